"""What the conformance suite does not ask: the functions, and elementwise losses of any shape."""

import pytest
import torch
from loss_inputs import DELTA_NAMES, INFOS

from det_losses import build_loss, functional
from det_losses.conformance import example_inputs

FUNCTIONS = {name.replace("_", ""): getattr(functional, name) for name in functional.__all__}
# Losses with two activations have two functions, stateful ones none.
WITH_FUNCTION = [info.name for info in INFOS if info.name.lower() in FUNCTIONS]


def arguments(name):
    loss = build_loss(name)
    inputs = example_inputs(loss)
    return loss, (inputs.pred, inputs.target), inputs.extra


@pytest.mark.parametrize("name", WITH_FUNCTION)
def test_function_is_the_unreduced_module(name):
    loss, tensors, extra = arguments(name)
    expected = loss.unreduced(*tensors, **extra)
    value = FUNCTIONS[name.lower()](*tensors, **extra)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_FUNCTION)
def test_functions_compile_without_a_graph_break(name):
    function = FUNCTIONS[name.lower()]
    _, tensors, extra = arguments(name)
    torch.compiler.reset()  # the compiler keeps eight variants of a function
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors, **extra), function(*tensors, **extra))
    torch.compiler.reset()


@pytest.mark.parametrize("name", DELTA_NAMES)
def test_elementwise_losses_take_any_shape(name):
    loss = build_loss(name, reduction="none")
    pred, target = torch.randn(2, 5, dtype=torch.float64)
    assert loss(pred, target).shape == (5,)
