"""The pure functions: all are exported, and each is the unreduced value of its module."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch

from det_losses import build_loss, functional, list_losses, losses
from det_losses.conformance import example_inputs
from det_losses.registry import MODELS

MODULES = [
    import_module(f"{losses.__name__}.{module.name}")
    for module in iter_modules(losses.__path__)
    if not module.ispkg
]


def test_every_registered_loss_of_the_package_is_exported():
    own = {
        name: cls for name, cls in MODELS.module_dict.items() if cls.__module__ in names(MODULES)
    }
    assert set(own) <= set(losses.__all__)
    for name, cls in own.items():
        assert getattr(losses, name) is cls


def test_every_module_of_a_loss_registers_one():
    assert {cls.__module__ for cls in MODELS.module_dict.values()} >= names(MODULES)


def test_every_function_of_a_loss_is_in_functional():
    defined = {
        name: function
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.endswith("_loss") and function.__module__ == module.__name__
    }
    assert set(functional.__all__) == set(defined)
    for name, function in defined.items():
        assert getattr(functional, name) is function


@pytest.mark.parametrize("name", functional.__all__)
def test_defaults_of_a_function_are_those_of_its_class(name):
    function = getattr(functional, name)
    classes = [cls for cls in MODELS.module_dict.values() if cls.__module__ == function.__module__]
    for parameter in inspect.signature(function).parameters.values():
        stated = [
            inspect.signature(cls).parameters[parameter.name].default
            for cls in classes
            if parameter.name in inspect.signature(cls).parameters
        ]
        assert not stated or parameter.default in stated, parameter.name


def names(modules):
    return {module.__name__ for module in modules}


BY_NAME = {name.replace("_", ""): getattr(functional, name) for name in functional.__all__}
# Losses with two activations have two functions; wrappers and losses of only one state none.
WITH_FUNCTION = [
    info.name
    for info in list_losses()
    if info.name.lower() in BY_NAME and info.config == {"type": info.name}
]


def arguments(name):
    loss = build_loss(name)
    inputs = example_inputs(loss)
    return loss, (inputs.pred, inputs.target), inputs.extra


@pytest.mark.parametrize("name", WITH_FUNCTION)
def test_a_function_is_the_unreduced_module_and_builds_none(name, monkeypatch):
    loss, tensors, extra = arguments(name)
    function = BY_NAME[name.lower()]
    expected = loss.unreduced(*tensors, **extra)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "__init__", lambda *_, **__: pytest.fail("builds a module"))
        value = function(*tensors, **extra)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_FUNCTION)
def test_functions_compile_without_a_graph_break(name):
    function = BY_NAME[name.lower()]
    _, tensors, extra = arguments(name)
    torch.compiler.reset()  # the compiler keeps eight variants of a function
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors, **extra), function(*tensors, **extra))
    torch.compiler.reset()
