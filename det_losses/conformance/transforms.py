"""torch.compile, torch.func.vmap and torch.func.grad."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Failed,
    Inputs,
    Skipped,
    call,
    call_in_place,
    expect_close,
    gradients,
)
from det_losses.conformance.inputs import examples
from det_losses.conformance.state import has_state, state_of


def compiles(case: Case) -> None:
    """torch.compile(fullgraph=True) has no graph break and changes no value (aot_eager)."""
    _check_compiled(case, "aot_eager")


def inductor(case: Case) -> None:
    """The same with the code that inductor generates, where there is a C++ compiler."""
    compiler = cpp_compiler()
    if not has_command(compiler):
        raise Skipped(f"no C++ compiler {compiler!r}")
    _check_compiled(case, "inductor")


def cpp_compiler() -> str:
    """Return the command that inductor compiles C++ with."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def has_command(command: str) -> bool:
    """Whether the program of a command line is installed."""
    words = shlex.split(command)
    return bool(words) and shutil.which(words[0]) is not None


def _check_compiled(case: Case, backend: str) -> None:
    results = []
    # All losses share one forward, and the compiler keeps eight variants of a function.
    torch.compiler.reset()
    try:
        for compiled in (False, True):
            loss = case.build().float().train()
            function = torch.compile(loss, fullgraph=True, backend=backend) if compiled else loss
            inputs, leaves = examples(case, loss, dtype=torch.float32).leaves()
            weight, factor = torch.linspace(0, 2, 12), torch.tensor(3.0)
            value = call_in_place(function, inputs, weight, factor)
            results.append((value, gradients(value, leaves), state_of(loss)))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise Failed(f"does not compile: {_first_line(error)}") from None
    finally:
        torch.compiler.reset()
    (expected, expected_slopes, expected_state), (value, slopes, state) = results
    expect_close("compiled value", value, expected, rtol=1e-5)
    for slope, known in zip(slopes, expected_slopes, strict=True):
        expect_close("compiled gradient", slope, known, rtol=1e-4, atol=1e-6)
    for name, buffer in state.items():
        expect_close(f"compiled buffer {name!r}", buffer, expected_state[name], rtol=1e-5)


def functional_transforms(case: Case) -> None:
    """A stateless loss works under torch.func.vmap and grad: as a loop over the batches."""
    loss = case.build()
    if has_state(loss):
        raise Skipped("has state")
    batches = [examples(case, loss, 6, seed=seed) for seed in range(3)]
    names = list(loss.inputs)
    stacked = [
        torch.stack(tensors) for tensors in zip(*(_listed(b, names) for b in batches), strict=True)
    ]

    def function(pred: Tensor, target: Tensor, *extra: Tensor) -> Tensor:
        return loss(pred, target, **dict(zip(names, extra, strict=True)))

    values = _transformed(torch.func.vmap(function), stacked)
    slopes = _transformed(torch.func.vmap(torch.func.grad(function)), stacked)
    for index, batch in enumerate(batches):
        inputs, leaves = batch.leaves()
        value = call(loss, inputs)
        expect_close("value under vmap", values[index], value)
        expect_close("gradient under vmap", slopes[index], gradients(value, leaves)[0])


def _listed(inputs: Inputs, names: list[str]) -> list[Tensor]:
    return [inputs.pred, inputs.target, *(inputs.extra[name] for name in names)]


def _transformed(function: Callable[..., Tensor], stacked: list[Tensor]) -> Tensor:
    try:
        return function(*stacked)
    except RuntimeError as error:
        raise Failed(f"torch.func: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
