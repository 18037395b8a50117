"""Checks of the formula: value, gradient, stop-gradient, minimum, and behaviour as boxes move."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from det_losses.conformance.case import (
    CLASSES,
    Case,
    Inputs,
    Reference,
    Skipped,
    call,
    call_in_place,
    expect,
    expect_close,
    gradients,
    has_state,
    state_of,
    warmed_up,
)
from det_losses.losses.core.base import Loss
from det_losses.losses.core.box import PairLoss
from det_losses.losses.core.classification import ClassificationLoss

SEEDS = (0, 1)
# Step of the finite differences.
STEP = 1e-6
# Width and height in pixels, angles on and off the axes, and distances in widths and heights.
BOX_SIZES = ((20.0, 10.0), (8.0, 30.0), (64.0, 50.0))
ANGLES = tuple(math.radians(degree) for degree in (0, 20, 45, 90, 110, 200, 270, 335))
DISTANCES = tuple(step * step / 100 for step in range(40))


def value(case: Case) -> None:
    """The value equals an independent reference, for each set of arguments with a reference."""
    if not case.references:
        raise Skipped("no reference: define REFERENCES in the module of --references")
    for reference in case.references:
        loss = case.build(**reference.kwargs, reduction="none")
        for seed in SEEDS:
            for started in _fresh_and_warmed_up(case, loss):
                inputs = case.examples(loss, 24, seed=seed)
                arguments = _reference_arguments(started, inputs)
                expected = reference.function(*_arrays(inputs), **arguments)
                what = f"value of {_described(loss, reference)}, seed {seed}"
                expect_close(what, call(started, inputs), expected, rtol=1e-9)


def gradient(case: Case) -> None:
    """The gradient matches finite differences of the value, with detached values held fixed."""
    loss = _plain(case.build(reduction="none"))
    for started in _fresh_and_warmed_up(case, loss):
        inputs, leaves = case.examples(started, 9).leaves()
        with _recorded_detach() as constants:
            total = _weighted_sum(call_in_place(_frozen(started), inputs))
        for index, slope in enumerate(gradients(total, leaves)):
            numeric = _finite_differences(_frozen(started), inputs, leaves, index, constants)
            expect_close(
                "gradient, analytic against finite differences (use detach() for constants)",
                slope,
                numeric,
                rtol=1e-5,
                atol=1e-7 * max(1.0, float(numeric.abs().max())),
            )
        if has_state(loss):
            _check_training_gradient(started, inputs, leaves)


def reference_gradient(case: Case) -> None:
    """The gradient matches that of the reference, whose constants are held fixed."""
    checked = [reference for reference in case.references if reference.constants]
    if not checked:
        raise Skipped("no reference with constants")
    for reference in checked:
        loss = case.build(**reference.kwargs, reduction="none")
        example = case.examples(loss, 9)
        known, (pred, target) = _reference_arguments(loss, example), _arrays(example)
        constants = reference.constants(pred, target, **known)
        inputs, leaves = example.leaves()
        slope = gradients(call(loss, inputs), leaves[:1])[0]
        numeric = np.zeros(pred.shape)
        for index in np.ndindex(*numeric.shape):
            ends = []
            for sign in (1, -1):
                moved = pred.copy()
                moved[index] += sign * STEP
                ends.append(reference.function(moved, target, **{**known, **constants}).sum())
            numeric[index] = (ends[0] - ends[1]) / (2 * STEP)
        what = f"gradient against the reference, {_described(loss, reference)}"
        expect_close(what, slope, numeric, rtol=1e-5, atol=1e-7)


def stop_gradient(case: Case) -> None:
    """A loss that calls detach() names the detached quantities in constant_in_gradient."""
    loss = _plain(case.build(reduction="none"))
    inputs, _ = case.examples(loss).leaves()
    with _recorded_detach() as constants:
        call(loss.train(), inputs)
    named = loss.constant_in_gradient
    if constants:
        expect(named, "detach() is called, but constant_in_gradient is empty")
    elif not has_state(loss):
        expect(not named, f"constant_in_gradient names {', '.join(named)}, but nothing is detached")


def fast_path(case: Case) -> None:
    """The fast path on a CPU equals the plain formula: value, both derivatives and state."""
    fast = case.build(reduction="none")
    is_pair = isinstance(fast, PairLoss)
    if not is_pair and not (isinstance(fast, ClassificationLoss) and fast.channel_terms()):
        raise Skipped("not a loss of pairs of boxes, and without channel_terms")
    plain = _plain(deepcopy(fast))
    for seed in SEEDS:  # the second batch meets the state after the first
        example = case.examples(fast, 24, seed=seed)
        if is_pair:
            example.pred[:2] = example.target[:2]  # equal ends
        results = [_derivatives(loss, example) for loss in (fast, plain)]
        for what, *pair in zip(("value", "gradient", "second derivative"), *results, strict=True):
            expect_close(f"{what}, fast path against the plain formula", *pair, rtol=1e-8)
    if is_pair and not fast.is_compiled:
        raise Skipped("the formula has operations that the fast path lacks: plain autograd is used")
    for name, expected in state_of(plain).items():
        expect_close(f"buffer {name}, fast path", state_of(fast)[name], expected)


def zero(case: Case) -> None:
    """The loss is never negative, and 0 for a perfect prediction unless zero_at_target is False."""
    loss = case.build(reduction="none")
    for seed in SEEDS:
        low = call(loss, case.examples(loss, seed=seed)).min().item()
        expect(low >= -1e-9, f"expected no negative loss, got {low:.4g}")
    largest = call(loss.eval(), _perfect(case.examples(loss), loss)).abs().max().item()
    if loss.zero_at_target:
        expect(largest < 1e-9, f"expected 0 for a perfect prediction, got {largest:.4g}")
    else:
        expect(largest > 1e-9, "zero_at_target is False, but a perfect prediction has loss 0")


def invariances(case: Case) -> None:
    """The value is invariant under exactly the transforms listed in invariances."""
    loss = case.build(reduction="none").eval()
    if loss.space != "decoded":
        raise Skipped("not a loss of decoded boxes")
    inputs = case.examples(loss)
    value = call(loss, inputs)
    unknown = set(loss.invariances) - set(TRANSFORMS)
    expect(not unknown, f"invariances has {unknown}; known are {', '.join(TRANSFORMS)}")
    for name, changes in TRANSFORMS.items():
        same = [
            torch.allclose(call(loss, change(inputs)), value, rtol=1e-7, atol=1e-9)
            for change in changes
        ]
        declared = name in loss.invariances
        expect(all(same) or not declared, f"invariances lists {name}, but the value changes")
        expect(declared or not all(same), f"{name} changes no value, but invariances lacks it")


def distance(case: Case) -> None:
    """If monotone_in_distance, the loss never falls as a box moves away from its target."""
    loss = case.build(reduction="none").eval()
    if loss.kind != "box":
        raise Skipped("not a box loss")
    fall, where = 0.0, ""
    for w, h in BOX_SIZES:
        for angle in ANGLES:
            inputs = _moving_away(case, loss, w, h, angle)
            value = call(loss, inputs).reshape(len(DISTANCES), -1).sum(1)
            drop = (value[:-1] - value[1:]) / value.abs().max().clamp(min=1e-300)
            at = int(drop.argmax())
            if drop[at] > fall:
                fall = float(drop[at])
                where = (
                    f"from {value[at]:.6g} to {value[at + 1]:.6g} as a {w:g} x {h:g} box moves "
                    f"from {DISTANCES[at]:.3g} to {DISTANCES[at + 1]:.3g} of its size at "
                    f"{math.degrees(angle):.0f} degrees"
                )
    if loss.monotone_in_distance:
        expect(fall <= 1e-9, f"monotone_in_distance is True, but the loss falls {where}")
    elif not has_state(loss):  # with state, this may depend on the state
        expect(fall > 1e-9, "monotone_in_distance is False, but the loss never falls")


def row_order(case: Case) -> None:
    """Permuting the rows permutes the values and does not change the state."""
    loss = case.build(reduction="none").train()
    inputs = case.examples(loss)
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    expected = call(loss, inputs)[permutation]
    expect_close("loss of permuted rows", call(loss, inputs.rows(permutation)), expected)
    straight, shuffled = (case.build(reduction="none").train() for _ in range(2))
    call_in_place(straight, inputs)
    call_in_place(shuffled, inputs.rows(permutation))
    expected_state = state_of(straight)
    for name, buffer in state_of(shuffled).items():
        expect_close(f"buffer {name!r} after permuted rows", buffer, expected_state[name])


# References


def _fresh_and_warmed_up(case: Case, loss: Loss) -> tuple[Loss, ...]:
    """Return the loss and, if it has state, a copy after two training batches."""
    return (loss, warmed_up(case, loss)) if has_state(loss) else (loss,)


def _arrays(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    return inputs.pred.numpy().copy(), inputs.target.numpy().copy()


def _reference_arguments(loss: Loss, inputs: Inputs) -> dict[str, Any]:
    """Return the keyword arguments of a reference."""
    known = {k: v for k, v in loss.params().items() if k not in ("reduction", "loss_weight")}
    known |= {name: tensor.numpy().copy() for name, tensor in inputs.extra.items()}
    if has_state(loss):
        known["state"] = {name: tensor.numpy() for name, tensor in state_of(loss).items()}
    return known


def _described(loss: Loss, reference: Reference) -> str:
    arguments = ", ".join(f"{name}={each!r}" for name, each in reference.kwargs.items())
    return f"{type(loss).__name__}({arguments})"


# Finite differences, with the results of detach() held fixed


def _plain(loss: Loss) -> Loss:
    """Keep a loss from its fast path, whose intermediate values are no plain tensors."""
    if isinstance(loss, PairLoss):
        loss.is_compiled = False
    elif isinstance(loss, ClassificationLoss):
        loss.channel_terms = lambda: None
    return loss


def _derivatives(loss: Loss, example: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient and the gradient of a sum of its squares, with respect to pred."""
    pred = example.pred.clone().requires_grad_()
    weight = torch.linspace(0.5, 1.5, len(pred), dtype=torch.float64)
    value = loss(pred, example.target, weight, **example.extra)
    weight = weight.reshape(-1, *[1] * (value.dim() - 1)).expand_as(value)
    first = torch.autograd.grad(value, pred, weight, retain_graph=True)[0]
    again = torch.autograd.grad(value, pred, weight, create_graph=True)[0]
    second = (
        torch.autograd.grad((again**2).sum(), pred, allow_unused=True)[0]
        if again.requires_grad
        else None
    )
    return value, first, torch.zeros_like(pred) if second is None else second


def _frozen(loss: Loss) -> Loss:
    return deepcopy(loss).eval()


def _weighted_sum(value: Tensor) -> Tensor:
    """Sum with a different factor for each row, to detect swapped gradients."""
    factors = torch.linspace(0.5, 1.5, len(value), dtype=value.dtype)
    return (value.reshape(len(value), -1) * factors[:, None]).sum()


def _finite_differences(
    loss: Loss, inputs: Inputs, leaves: list[Tensor], index: int, constants: list[Tensor]
) -> Tensor:
    base = [leaf.detach() for leaf in leaves]
    numeric = torch.zeros_like(base[index])
    for entry in range(numeric.numel()):
        ends = []
        for sign in (1, -1):
            values = [tensor.clone() for tensor in base]
            values[index].view(-1)[entry] += sign * STEP
            moved = inputs.with_predicted([tensor.requires_grad_() for tensor in values])
            with _replayed_detach(constants):
                ends.append(_weighted_sum(call_in_place(loss, moved)).item())
        numeric.view(-1)[entry] = (ends[0] - ends[1]) / (2 * STEP)
    return numeric


def _check_training_gradient(loss: Loss, inputs: Inputs, leaves: list[Tensor]) -> None:
    """In training, the gradient must treat the state before or after the call as constant."""
    training = deepcopy(loss).train()
    slope = gradients(_weighted_sum(call_in_place(training, inputs)), leaves)[0]
    fixed = [
        gradients(_weighted_sum(call_in_place(_frozen(each), inputs)), leaves)[0]
        for each in (loss, training)
    ]
    expect(
        any(torch.allclose(slope, each, rtol=1e-9, atol=1e-12) for each in fixed),
        "the gradient in training is neither that with the state before the call nor after it: "
        "the state must be constant in the gradient",
    )


_DETACH = torch.Tensor.detach


@contextmanager
def _recorded_detach() -> Iterator[list[Tensor]]:
    """Record, in order, the results of ``detach`` for tensors that depend on the prediction."""
    values: list[Tensor] = []

    def detach(tensor: Tensor) -> Tensor:
        value = _DETACH(tensor)
        if tensor.requires_grad:
            values.append(value.clone())
        return value

    with _replaced_detach(detach):
        yield values


@contextmanager
def _replayed_detach(values: list[Tensor]) -> Iterator[None]:
    """Make ``detach`` return the recorded values in the same order."""
    rest = iter(values)

    def detach(tensor: Tensor) -> Tensor:
        return next(rest).clone() if tensor.requires_grad else _DETACH(tensor)

    with _replaced_detach(detach):
        yield


@contextmanager
def _replaced_detach(detach: Callable[[Tensor], Tensor]) -> Iterator[None]:
    with patch.object(torch.Tensor, "detach", detach), patch.object(torch, "detach", detach):
        yield


# Inputs with known geometry


def _perfect(inputs: Inputs, loss: Loss) -> Inputs:
    """Replace the predictions by the best possible ones."""
    extra = dict(inputs.extra)
    if "pred_deltas" in extra:
        extra["pred_deltas"] = extra["target_deltas"]
    if "logits" in extra:
        extra["logits"] = _confident(extra["labels"], extra["logits"])
    if loss.kind == "box":
        return Inputs(inputs.target, inputs.target, extra)
    if loss.kind == "distribution":
        bins = torch.arange(inputs.pred.shape[-1], dtype=torch.float64)
        share = (1 - (bins - inputs.target[:, None]).abs()).clamp(min=1e-30)
        return Inputs(share.log(), inputs.target, extra)
    pred = _confident(inputs.target, inputs.pred)
    if "quality" in extra:
        known = (inputs.target >= 0) & (inputs.target < CLASSES)
        pred[known, inputs.target[known]] = extra["quality"][known].logit()
    return Inputs(pred, inputs.target, extra)


def _confident(labels: Tensor, like: Tensor) -> Tensor:
    channels = torch.arange(like.shape[-1])
    return torch.where(labels[:, None] == channels, 60.0, -60.0).to(like)


def _moving_away(case: Case, loss: Loss, w: float, h: float, angle: float) -> Inputs:
    """Boxes of the target's size at all distances, as decoded boxes or as deltas."""
    inputs = case.examples(loss, len(DISTANCES))
    direction = torch.tensor([[math.cos(angle), math.sin(angle), 0, 0]], dtype=torch.float64)
    deltas = torch.tensor(DISTANCES, dtype=torch.float64)[:, None] * direction
    extra = {name: value[:1].expand_as(value) for name, value in inputs.extra.items()}
    if "pred_deltas" in extra:
        extra |= {"pred_deltas": deltas, "target_deltas": torch.zeros_like(deltas)}
    if loss.space == "delta":
        return Inputs(deltas, torch.zeros_like(deltas), extra)
    target = torch.tensor([[400.0, 300, 400 + w, 300 + h]], dtype=torch.float64)
    target = target.expand(len(DISTANCES), 4)
    shift = (deltas[:, :2] * torch.tensor([w, h])).repeat(1, 2)
    return Inputs(target + shift, target, extra)


def _map_boxes(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return Inputs(change(inputs.pred), change(inputs.target), inputs.extra)


def _translated(inputs: Inputs) -> Inputs:
    return _map_boxes(inputs, lambda x: x + torch.tensor([37.5, -12.25, 37.5, -12.25]).to(x))


def _scaled(inputs: Inputs) -> Inputs:
    scaled = _map_boxes(inputs, lambda x: 3.7 * x)
    if "image_size" not in inputs.extra:
        return scaled
    size = 3.7 * inputs.extra["image_size"]
    return Inputs(scaled.pred, scaled.target, {**inputs.extra, "image_size": size})


def _mirrored_x(inputs: Inputs) -> Inputs:
    return _map_boxes(inputs, lambda x: torch.stack([-x[:, 2], x[:, 1], -x[:, 0], x[:, 3]], 1))


def _mirrored_y(inputs: Inputs) -> Inputs:
    return _map_boxes(inputs, lambda x: torch.stack([x[:, 0], -x[:, 3], x[:, 2], -x[:, 1]], 1))


TRANSFORMS = {
    "translation": (_translated,),
    "scale": (_scaled,),
    "mirror": (_mirrored_x, _mirrored_y),
}
