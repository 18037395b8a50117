"""The calling convention: weights, normalisers, reductions, empty batches, errors."""

from collections.abc import Callable

import torch

from det_losses.conformance.case import (
    Case,
    Failed,
    call,
    call_in_place,
    expect,
    expect_close,
    gradients,
)
from det_losses.conformance.inputs import examples
from det_losses.conformance.state import state_of
from det_losses.losses.core.base import REDUCTIONS


def weights(case: Case) -> None:
    """Weights are ``[N]``, or ``[N, 4]`` of a box, and scale the loss; other shapes are refused."""
    loss = case.build(reduction="none").eval()
    inputs = examples(case, loss)
    rows = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    value = call(loss, inputs)
    expect_close("loss with weights of one", call(loss, inputs, torch.ones(12)), value)
    weighed = call(loss, inputs, rows)
    expect_close("loss with twice the weight", call(loss, inputs, 2 * rows), 2 * weighed)
    expect_close(
        "loss with a mask", call(loss, inputs, rows > 1), call(loss, inputs, 1.0 * (rows > 1))
    )
    each = rows[:, None].expand_as(inputs.pred)
    if loss.kind == "box" or value.shape == inputs.pred.shape:
        expect_close("loss with the row's weight at each entry", call(loss, inputs, each), weighed)
    else:
        _refuses(lambda: call(loss, inputs, each), ValueError, "weight must have shape")
    _refuses(lambda: call(loss, inputs, rows[:3]), ValueError, "weight must have shape")


def zero_weight(case: Case) -> None:
    """Rows of weight 0 change neither value, nor gradient, nor state, beside an avg_factor."""
    inputs = examples(case, case.build())
    weight = torch.arange(12, dtype=torch.float64) % 2
    kept = weight > 0
    results = []
    for some, own in ((inputs.rows(kept), weight[kept]), (inputs, weight)):
        loss, (rows, leaves) = case.build().train(), some.leaves()
        value = call_in_place(loss, rows, own, avg_factor=5)
        results.append((value, gradients(value, leaves), state_of(loss)))
    (alone, alone_slopes, alone_state), (padded, slopes, state) = results
    expect_close("loss with rows of weight 0 among the others", padded, alone)
    for slope, expected in zip(slopes, alone_slopes, strict=True):
        expect_close("gradient of the rows of weight 1", slope[kept], expected)
        left = slope[~kept]
        expect_close("gradient of the rows of weight 0", left, torch.zeros_like(left))
    for name, buffer in state.items():
        expect_close(f"buffer {name!r} with rows of weight 0", buffer, alone_state[name])


def avg_factor(case: Case) -> None:
    """Mean divides the sum by avg_factor, a number or tensor, 0 as 1; not with own_mean."""
    loss = case.build()
    inputs = examples(case, loss)
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
    """Mean and sum are those of the unreduced loss, whose shape is as stated, times loss_weight."""
    loss = case.build(loss_weight=2.5)
    inputs = examples(case, loss)
    none = call(loss, inputs, reduction="none")
    stated = loss.unreduced_shape(inputs.pred)
    expect(
        none.shape == stated,
        f"unreduced_shape says {list(stated)}, but the loss has shape {list(none.shape)}",
    )
    plain = call(case.build(reduction="none"), inputs)
    expect_close("loss with loss_weight=2.5", none, 2.5 * plain)
    if not loss.own_mean:
        expect_close("mean", call(loss, inputs), none.mean())
    expect_close("sum", call(loss, inputs, reduction="sum"), none.sum())
    expect_close("sum as built", call(case.build(reduction="sum"), inputs), plain.sum())


def empty(case: Case) -> None:
    """An empty batch is a zero that back-propagates, and leaves the state alone."""
    for reduction in REDUCTIONS:
        loss = case.build().train()
        before = state_of(loss)
        inputs, leaves = examples(case, loss).rows(slice(0)).leaves()
        value = call_in_place(loss, inputs, torch.ones(0), reduction=reduction)
        expect(value.sum() == 0, f"{reduction} of no rows: expected 0, got {value.sum().item()}")
        expect(value.requires_grad, f"{reduction} of no rows does not back-propagate")
        gradients(value, leaves)
        for name, buffer in state_of(loss).items():
            expect_close(f"buffer {name!r} after an empty batch", buffer, before[name])


def errors(case: Case) -> None:
    """A wrong reduction, factor, argument, shape or input is an error that names it."""
    loss = case.build()
    inputs = examples(case, loss)
    known = f"must be one of {', '.join(REDUCTIONS)}"
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
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
            lambda: loss(inputs.pred, inputs.target, no_such_input=1, **inputs.extra),
            TypeError,
            "takes no input 'no_such_input'",
        ),
        (
            lambda: loss(inputs.pred, inputs.target[:1], **inputs.extra),
            ValueError,
            "target",
        ),
    ]
    for function, kind, message in cases:
        _refuses(function, kind, message)
    for name in loss.inputs:
        others = {key: value for key, value in inputs.extra.items() if key != name}
        _refuses(
            lambda others=others: loss(inputs.pred, inputs.target, **others),
            TypeError,
            f"needs the input {name!r}",
        )


def _refuses(function: Callable[[], object], kind: type[Exception], message: str) -> None:
    try:
        function()
    except kind as error:
        if message in str(error):
            return
        raise Failed(f"expected an error that has {message!r}, got {error}") from None
    except Exception as error:
        raise Failed(
            f"expected a {kind.__name__} that has {message!r}, got {type(error).__name__}: {error}"
        ) from None
    raise Failed(f"expected a {kind.__name__} that has {message!r}, but nothing was raised")
