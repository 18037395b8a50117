"""What moving boxes does: invariances, distance, the order of the rows."""

import math

import torch
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Inputs,
    Skipped,
    call,
    call_in_place,
    expect,
    expect_close,
)
from det_losses.conformance.inputs import examples
from det_losses.conformance.state import has_state, state_of
from det_losses.losses.core.base import Loss

# Width and height in pixels; angles on and off the axes; how far in widths and heights.
BOX_SIZES = ((20.0, 10.0), (8.0, 30.0), (64.0, 50.0))
ANGLES = tuple(math.radians(degree) for degree in (0, 20, 45, 90, 110, 200, 270, 335))
STEPS = tuple(step * step / 100 for step in range(40))


def invariances(case: Case) -> None:
    """Value is invariant to translation, scale and mirror exactly where the class says so."""
    loss = case.build(reduction="none").eval()
    if loss.space != "decoded":
        raise Skipped("not on decoded boxes")
    inputs = examples(case, loss)
    value = call(loss, inputs)
    unknown = set(loss.invariances) - set(CHANGES)
    expect(not unknown, f"invariances has {unknown}; known are {', '.join(CHANGES)}")
    for name, changes in CHANGES.items():
        same = [
            torch.allclose(call(loss, change(inputs)), value, rtol=1e-7, atol=1e-9)
            for change in changes
        ]
        declared = name in loss.invariances
        expect(all(same) or not declared, f"invariances names {name}, but the value changes")
        expect(declared or not all(same), f"{name} changes no value, but invariances lacks it")


def _moved(inputs: Inputs) -> Inputs:
    return _boxes(inputs, lambda x: x + torch.tensor([37.5, -12.25, 37.5, -12.25]).to(x))


def _scaled(inputs: Inputs) -> Inputs:
    scaled = _boxes(inputs, lambda x: 3.7 * x)
    if "image_size" not in inputs.extra:
        return scaled
    size = 3.7 * inputs.extra["image_size"]
    return Inputs(scaled.pred, scaled.target, {**inputs.extra, "image_size": size})


def _mirrored_x(inputs: Inputs) -> Inputs:
    return _boxes(inputs, lambda x: torch.stack([-x[:, 2], x[:, 1], -x[:, 0], x[:, 3]], 1))


def _mirrored_y(inputs: Inputs) -> Inputs:
    return _boxes(inputs, lambda x: torch.stack([x[:, 0], -x[:, 3], x[:, 2], -x[:, 1]], 1))


def _boxes(inputs: Inputs, change) -> Inputs:
    return Inputs(change(inputs.pred), change(inputs.target), inputs.extra)


CHANGES = {
    "translation": (_moved,),
    "scale": (_scaled,),
    "mirror": (_mirrored_x, _mirrored_y),
}


def distance(case: Case) -> None:
    """Loss of boxes of equal size never falls with distance, as monotone_in_distance says."""
    loss = case.build(reduction="none").eval()
    if loss.kind != "box":
        raise Skipped("not a box loss")
    fall, where = 0.0, ""
    for w, h in BOX_SIZES:
        for angle in ANGLES:
            value = call(loss, _path(case, loss, w, h, angle)).reshape(len(STEPS), -1).sum(1)
            drop = (value[:-1] - value[1:]) / value.abs().max().clamp(min=1e-300)
            at = int(drop.argmax())
            if drop[at] > fall:
                fall = float(drop[at])
                where = (
                    f"from {value[at]:.6g} to {value[at + 1]:.6g} as a {w:g} x {h:g} box goes from "
                    f"{STEPS[at]:.3g} to {STEPS[at + 1]:.3g} of its size at "
                    f"{math.degrees(angle):.0f} degrees"
                )
    if loss.monotone_in_distance:
        expect(fall <= 1e-9, f"monotone_in_distance is True, but the loss falls {where}")
    elif not has_state(loss):  # with a state it depends on the state
        expect(fall > 1e-9, "monotone_in_distance is False, but the loss never falls")


def _path(case: Case, loss: Loss, w: float, h: float, angle: float) -> Inputs:
    """Boxes of one size on their way from the target, as decoded boxes and as deltas."""
    inputs = examples(case, loss, len(STEPS))
    way = torch.tensor(STEPS, dtype=torch.float64)[:, None]
    deltas = way * torch.tensor([[math.cos(angle), math.sin(angle), 0, 0]], dtype=torch.float64)
    target = torch.tensor([[400.0, 300, 400 + w, 300 + h]], dtype=torch.float64).expand(40, 4)
    extra = {name: _first(value) for name, value in inputs.extra.items()}
    if "pred_deltas" in extra:
        extra |= {"pred_deltas": deltas, "target_deltas": torch.zeros_like(deltas)}
    if loss.space == "delta":
        return Inputs(deltas, torch.zeros_like(deltas), extra)
    shift = (deltas[:, :2] * torch.tensor([w, h])).repeat(1, 2)
    return Inputs(target + shift, target, extra)


def _first(value: Tensor) -> Tensor:
    return value[:1].expand_as(value)


def order(case: Case) -> None:
    """The order of the rows changes no row's value, and no state."""
    loss = case.build(reduction="none").train()
    inputs = examples(case, loss)
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    expected = call(loss, inputs)[permutation]
    expect_close("loss of permuted rows", call(loss, inputs.rows(permutation)), expected)
    straight, shuffled = (case.build(reduction="none").train() for _ in range(2))
    call_in_place(straight, inputs)
    call_in_place(shuffled, inputs.rows(permutation))
    expected_state = state_of(straight)
    for name, buffer in state_of(shuffled).items():
        expect_close(f"buffer {name!r} after permuted rows", buffer, expected_state[name])
