"""Checks of the interface: calls, state, errors, docstring, and PyTorch's function transforms."""

import inspect
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Failed,
    Inputs,
    Skipped,
    call,
    call_in_place,
    expect,
    expect_close,
    expect_error,
    gradients,
    has_state,
    state_of,
    warmed_up,
)
from det_losses.losses.core.base import REDUCTIONS, Loss
from det_losses.losses.core.build import build_loss

KINDS = ("box", "classification", "distribution")
SPACES = ("delta", "decoded")
ACTIVATIONS = ("sigmoid", "softmax")
# The sections of a docstring.
SECTIONS = ("Args", "Use", "Shape", "Raises", "Reference", "Example")

# Weights, normalisers, reductions


def weights(case: Case) -> None:
    """Weights of shape [N], or [N, 4] for boxes, scale the loss; other shapes are errors."""
    loss = case.build(reduction="none").eval()
    inputs = case.examples(loss)
    rows = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    value = call(loss, inputs)
    expect_close("loss with weights of one", call(loss, inputs, torch.ones(12)), value)
    weighted = call(loss, inputs, rows)
    expect_close("loss with twice the weight", call(loss, inputs, 2 * rows), 2 * weighted)
    mask = rows > 1
    expect_close("loss with a mask", call(loss, inputs, mask), call(loss, inputs, 1.0 * mask))
    each = rows[:, None].expand_as(inputs.pred)
    if loss.kind == "box" or value.shape == inputs.pred.shape:
        expect_close("loss with the row's weight at each entry", call(loss, inputs, each), weighted)
    else:
        expect_error(lambda: call(loss, inputs, each), ValueError, "weight must have shape")
    expect_error(lambda: call(loss, inputs, rows[:3]), ValueError, "weight must have shape")


def zero_weight(case: Case) -> None:
    """Given an avg_factor, rows of weight 0 change neither value nor gradient nor state."""
    inputs = case.examples(case.build())
    weight = torch.arange(12, dtype=torch.float64) % 2
    kept = weight > 0
    results = []
    for rows, row_weight in ((inputs.rows(kept), weight[kept]), (inputs, weight)):
        loss, (copy, leaves) = case.build().train(), rows.leaves()
        value = call_in_place(loss, copy, row_weight, avg_factor=5)
        results.append((value, gradients(value, leaves), state_of(loss)))
    (alone, alone_slopes, alone_state), (padded, slopes, state) = results
    expect_close("loss with additional rows of weight 0", padded, alone)
    for slope, expected in zip(slopes, alone_slopes, strict=True):
        expect_close("gradient of the rows of weight 1", slope[kept], expected)
        ignored = slope[~kept]
        expect_close("gradient of the rows of weight 0", ignored, torch.zeros_like(ignored))
    for name, buffer in state.items():
        expect_close(f"buffer {name!r} with rows of weight 0", buffer, alone_state[name])


def avg_factor(case: Case) -> None:
    """The mean divides the sum by avg_factor, with 0 as 1, unless own_mean is True."""
    loss = case.build()
    inputs = case.examples(loss)
    weight = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    if loss.own_mean:
        value = call(loss, inputs, weight)
        for factor in (7, torch.tensor([7.0])):
            with_factor = call(loss, inputs, weight, factor)
            expect_close(f"mean with avg_factor={factor!r} (own_mean)", with_factor, value)
        return
    total = call(loss, inputs, weight, reduction="none").sum()
    for factor in (7, 7.0, torch.tensor(7.0), torch.tensor([7])):
        value = call(loss, inputs, weight, factor)
        expect_close(f"mean with avg_factor={factor!r}", value, total / 7)
    for factor in (0, 0.0, torch.tensor(0.0), torch.tensor([0])):
        value = call(loss, inputs, weight, factor)
        expect_close(f"mean with avg_factor={factor!r}, which counts as 1", value, total)


def reductions(case: Case) -> None:
    """Mean, sum, loss_weight and unreduced_shape agree with the unreduced loss."""
    loss = case.build(loss_weight=2.5)
    inputs = case.examples(loss)
    none = call(loss, inputs, reduction="none")
    declared = loss.unreduced_shape(inputs.pred)
    expect(
        none.shape == declared,
        f"unreduced_shape returns {list(declared)}, but the loss has shape {list(none.shape)}",
    )
    plain = call(case.build(reduction="none"), inputs)
    expect_close("loss with loss_weight=2.5", none, 2.5 * plain)
    if not loss.own_mean:
        expect_close("mean", call(loss, inputs), none.mean())
    expect_close("sum", call(loss, inputs, reduction="sum"), none.sum())
    expect_close("sum as built", call(case.build(reduction="sum"), inputs), plain.sum())


def empty_batch(case: Case) -> None:
    """An empty batch gives 0, can be backpropagated, and does not change the state."""
    for reduction in REDUCTIONS:
        loss = case.build().train()
        before = state_of(loss)
        inputs, leaves = case.examples(loss).rows(slice(0)).leaves()
        value = call_in_place(loss, inputs, torch.ones(0), reduction=reduction)
        expect(value.sum() == 0, f"{reduction} of no rows: expected 0, got {value.sum().item()}")
        expect(value.requires_grad, f"{reduction} of no rows cannot be backpropagated")
        gradients(value, leaves)
        for name, buffer in state_of(loss).items():
            expect_close(f"buffer {name!r} after an empty batch", buffer, before[name])


def errors(case: Case) -> None:
    """A wrong reduction, avg_factor, argument, shape or input is named in an error."""
    loss = case.build()
    inputs = case.examples(loss)
    pred, target, extra = inputs.pred, inputs.target, inputs.extra
    known = f"must be one of {', '.join(REDUCTIONS)}"
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: case.build(reduction="avg"), ValueError, f"reduction {known}, got 'avg'"),
        (
            lambda: call(loss, inputs, reduction="avg"),
            ValueError,
            f"reduction_override {known}, got 'avg'",
        ),
        (lambda: case.build(no_such_argument=1), TypeError, "no_such_argument"),
        (
            lambda: call(loss, inputs, avg_factor=2, reduction="sum"),
            ValueError,
            "reduction 'sum' takes no avg_factor",
        ),
        (
            lambda: call(loss, inputs, avg_factor=torch.ones(2)),
            ValueError,
            "avg_factor must be one number, got shape [2]",
        ),
        (
            lambda: loss(pred, target, no_such_input=1, **extra),
            TypeError,
            "takes no input 'no_such_input'",
        ),
        (lambda: loss(pred, target[:1], **extra), ValueError, "target"),
    ]
    for function, kind, message in wrong:
        expect_error(function, kind, message)
    for name in loss.inputs:
        others = {key: value for key, value in extra.items() if key != name}
        expect_error(
            lambda others=others: loss(pred, target, **others),
            TypeError,
            f"needs the input {name!r}",
        )


# State


def stateless(case: Case) -> None:
    """A loss without buffers returns the same value in a second call."""
    loss = case.build().train()
    if has_state(loss):
        raise Skipped("has buffers")
    inputs = case.examples(loss)
    first, second = (call_in_place(loss, inputs) for _ in range(2))
    expect_close("second call with the same inputs", second, first, rtol=0, atol=0)


def state(case: Case) -> None:
    """Buffers change in training mode only, and state_dict saves and restores them."""
    variants = [{}, *(dict(reference.kwargs) for reference in case.references)]
    stateful = [kwargs for kwargs in variants if has_state(case.build(**kwargs))]
    if not stateful:
        raise Skipped("no state")
    for kwargs in stateful:
        _check_state(case, kwargs)


def _check_state(case: Case, kwargs: dict[str, Any]) -> None:
    loss = case.build(**kwargs).train()
    fresh, trained = state_of(loss), warmed_up(case, loss)
    changed = [n for n, buffer in state_of(trained).items() if not torch.equal(buffer, fresh[n])]
    saved = trained.state_dict()
    for name in changed:
        expect(name in saved, f"buffer {name!r} changes in training, but is not in the state_dict")
    before = state_of(trained)
    inputs = case.examples(loss, seed=5)
    value = call_in_place(trained.eval(), inputs)
    for name, buffer in state_of(trained).items():
        expect_close(f"buffer {name!r} after a call in evaluation", buffer, before[name], 0, 0)
    restored = case.build(**kwargs)
    try:
        restored.load_state_dict(saved)
    except RuntimeError as error:
        raise Failed(f"its own state_dict does not load: {error}") from None
    expect_close("value after loading its state_dict", call(restored.eval(), inputs), value)
    expect(all(buffer.isfinite().all() for buffer in before.values()), "a buffer is not finite")


# torch.compile and torch.func


def compiles(case: Case) -> None:
    """torch.compile(fullgraph=True, backend='aot_eager') gives the same values."""
    _check_compiled(case, "aot_eager")


def inductor(case: Case) -> None:
    """Code generated by inductor gives the same values; skipped without a C++ compiler."""
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
    # All losses share one forward method; the compiler caches at most eight variants of it.
    torch.compiler.reset()
    try:
        for compiled in (False, True):
            loss = case.build().float().train()
            function = torch.compile(loss, fullgraph=True, backend=backend) if compiled else loss
            inputs, leaves = case.examples(loss, dtype=torch.float32).leaves()
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


def vmap(case: Case) -> None:
    """Under torch.func.vmap and grad, a stateless loss equals a loop over batches."""
    loss = case.build()
    if has_state(loss):
        raise Skipped("has state")
    batches = [case.examples(loss, 6, seed=seed) for seed in range(3)]
    names = list(loss.inputs)
    stacked = [
        torch.stack(tensors) for tensors in zip(*(_listed(b, names) for b in batches), strict=True)
    ]

    def function(pred: Tensor, target: Tensor, *extra: Tensor) -> Tensor:
        return loss(pred, target, **dict(zip(names, extra, strict=True)))

    try:
        values = torch.func.vmap(function)(*stacked)
        slopes = torch.func.vmap(torch.func.grad(function))(*stacked)
    except RuntimeError as error:
        raise Failed(f"torch.func: {_first_line(error)}") from None
    for index, batch in enumerate(batches):
        inputs, leaves = batch.leaves()
        value = call(loss, inputs)
        expect_close("value under vmap", values[index], value)
        expect_close("gradient under vmap", slopes[index], gradients(value, leaves)[0])


def _listed(inputs: Inputs, names: list[str]) -> list[Tensor]:
    return [inputs.pred, inputs.target, *(inputs.extra[name] for name in names)]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


# repr and docstring


def rebuilds(case: Case) -> None:
    """repr() and params() both rebuild the same loss."""
    loss = case.build()
    names = {type(module).__name__: type(module) for module in loss.modules()}
    rebuilt = eval(repr(loss), names)
    expected, got = repr(loss.params()), repr(rebuilt.params())
    expect(got == expected, f"repr {loss!r}: expected the arguments {expected}, it builds {got}")
    got = repr(build_loss({"type": case.cls, **loss.params()}).params())
    expect(got == expected, f"params(): expected the arguments {expected}, they build {got}")


def card(case: Case) -> None:
    """The docstring has all sections of a card; optional for losses of other packages."""
    loss = case.build()
    _check_declarations(loss)
    if sys.flags.optimize > 1:
        raise Skipped("python -OO, or PYTHONOPTIMIZE=2, removes docstrings")
    text = inspect.cleandoc(case.cls.__doc__ or "")
    wanted = [*SECTIONS, "Disjoint"] if loss.space == "decoded" else list(SECTIONS)
    found = re.findall(r"^(\w+):$", text, re.MULTILINE)
    missing = [name for name in wanted if name not in found]
    if not re.search(r"^\.\. math::", text, re.MULTILINE):
        missing.insert(0, ".. math")
    message = f"the docstring has no {', '.join(f'{name}:' for name in missing)}"
    if missing and not case.cls.__module__.startswith("det_losses."):
        raise Skipped(f"{message}, so there is no card")
    expect(not missing, message)
    arguments = re.split(r"^Args:$", text, flags=re.MULTILINE)[1]
    arguments = re.split(r"^\w+:$", arguments, flags=re.MULTILINE)[0]
    listed = re.findall(r"^    ((?:\w+, )*\w+):", arguments, re.MULTILINE)
    documented = {name for names in listed for name in names.split(", ")}
    undocumented = [n for n in inspect.signature(case.cls).parameters if n not in documented]
    expect(not undocumented, f"Args lacks {', '.join(undocumented)}")


def _check_declarations(loss: Loss) -> None:
    expect(loss.kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {loss.kind!r}")
    if loss.kind == "box":
        expect(
            loss.space in SPACES,
            f"space of a box loss must be {' or '.join(SPACES)}, got {loss.space!r}",
        )
    if loss.kind == "classification":
        expect(
            loss.activation in ACTIVATIONS,
            f"activation of a classification loss must be {' or '.join(ACTIVATIONS)}, "
            f"got {loss.activation!r}",
        )
    expect(getattr(loss, "paper", ""), "paper is empty: give a short citation")
