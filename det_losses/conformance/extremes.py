"""Finite loss and gradient on anything that a detector may predict."""

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Inputs,
    call_in_place,
    expect,
    gradients,
)
from det_losses.conformance.inputs import SIZES, awkward_pairs, examples
from det_losses.conformance.state import state_of
from det_losses.losses.core.base import Loss

# The largest coordinate, in pixels; float16 has a share of it, 6e4.
LARGEST = 1e6
HALF_SHARE = 0.06
# float16 has no room for gradients by the inverse of less than about a thousandth of a pixel.
HALF_STEP = 2.0**-10
TINY = (1e-30, 1e-7, 3e-4)
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
ROWS = 3


def awkward(case: Case) -> None:
    """Loss and gradient are finite on named awkward boxes, in four precisions and sizes."""
    for dtype, size in SIZES:
        loss = _built(case, dtype)
        pred, target = awkward_pairs(dtype, size)
        inputs = _replaced(loss, examples(case, loss, len(pred), dtype), pred, target)
        _check_finite(loss, inputs, f"awkward boxes of size {size:g} in {_name(dtype)}")


def search(case: Case) -> None:
    """The same over a search of boxes up to 1e6 (float16: 6e4) px and logits up to +-1e4."""
    _search(case, 20)


def long_search(case: Case) -> None:
    """The same over three hundred examples."""
    _search(case, 300)


def _search(case: Case, examples_tried: int) -> None:
    losses = {dtype: _built(case, dtype) for dtype in PRECISIONS}
    loss = losses[torch.float32]

    @settings(
        max_examples=examples_tried,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(_inputs(loss, examples(case, loss, ROWS)))
    def finite(inputs: Inputs) -> None:
        for dtype, each in losses.items():
            fitting = _within_half(each, inputs) if dtype == torch.float16 else inputs
            _check_finite(each, fitting.to(dtype), _name(dtype))

    finite()


def _within_half(loss: Loss, inputs: Inputs) -> Inputs:
    """Bring boxes and the deltas of a delta loss into the range of float16."""

    def shrunk(x: Tensor) -> Tensor:
        return (x * HALF_SHARE / HALF_STEP).round() * HALF_STEP

    if loss.kind != "box":
        return inputs
    return Inputs(shrunk(inputs.pred), shrunk(inputs.target), inputs.extra)


def _built(case: Case, dtype: torch.dtype) -> Loss:
    loss = case.build().train()
    return loss if dtype == torch.float64 else loss.float()


def _check_finite(loss: Loss, inputs: Inputs, what: str) -> None:
    inputs, leaves = inputs.leaves()
    before = state_of(loss)
    none = call_in_place(loss, inputs, reduction="none")
    mean = call_in_place(loss, inputs)
    slopes = gradients(mean, leaves)
    after = state_of(loss)
    loss.load_state_dict(before, strict=False)
    rows = none.reshape(len(inputs.pred), -1).isfinite().all(1)
    rows &= torch.stack([s.reshape(len(rows), -1).isfinite().all(1) for s in slopes]).all(0)
    if not rows.all():
        at = int((~rows).int().argmax())
        shown = ", ".join(
            f"{name}={tensor[at].tolist()}"
            for name, tensor in {
                "pred": inputs.pred,
                "target": inputs.target,
                **inputs.extra,
            }.items()
        )
        slope = [s[at].tolist() for s in slopes]
        expect(False, f"{what}: not finite at {shown}: loss {none[at].tolist()}, gradient {slope}")
    for name, buffer in after.items():
        expect(buffer.isfinite().all(), f"{what}: buffer {name!r} is not finite")


def _replaced(loss: Loss, inputs: Inputs, pred: Tensor, target: Tensor) -> Inputs:
    """Put boxes in their place; a classification loss takes their coordinates as logits."""
    if loss.kind == "box":
        return Inputs(pred, target, inputs.extra)
    logits = pred.repeat(1, 4)[:, : inputs.pred.shape[1]]
    return Inputs(logits, inputs.target, inputs.extra)


def _inputs(loss: Loss, base: Inputs) -> st.SearchStrategy[Inputs]:
    """Draw what the loss takes: in the place of each tensor of ``base`` an extreme one."""
    extra = {
        name: _filled(NUMBERS[name], value) if name in NUMBERS else st.just(value)
        for name, value in base.extra.items()
    }
    if loss.kind == "box":
        both = _BOXES
    elif loss.kind == "distribution":
        shares = _filled(_SHARES, base.target)
        target = shares.map(lambda x: x * (base.pred.shape[-1] - 1))
        both = st.tuples(_filled(_LOGITS, base.pred), target)
    else:
        both = st.tuples(_filled(_LOGITS, base.pred), st.just(base.target))
    return st.tuples(both, st.fixed_dictionaries(extra)).map(
        lambda drawn: Inputs(*drawn[0], drawn[1])
    )


def _filled(numbers: st.SearchStrategy[float], like: Tensor) -> st.SearchStrategy[Tensor]:
    count = like.numel()
    return st.lists(numbers, min_size=count, max_size=count).map(
        lambda values: torch.tensor(values, dtype=torch.float64).reshape(like.shape)
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _mixed(drawn: tuple[list[float], list[float], int]) -> tuple[list[float], list[float]]:
    """Let the second box share those coordinates of the first that the bits of a number name."""
    first, second, bits = drawn
    places = zip(first, second, range(4), strict=True)
    return first, [a if bits >> place & 1 else b for a, b, place in places]


def _sized(drawn: tuple[float, float, float, float]) -> list[float]:
    x, y, w, h = drawn
    return [x, y, x + w, y + h]


_LOGITS = st.sampled_from([1e4, -1e4, 100.0, -100.0, 17.0, -17.0, 0.0, 1e-4]) | st.floats(-1e4, 1e4)
_SHARES = st.sampled_from([0.0, 1.0, 0.5, 1e-3]) | st.floats(0, 1)
# Beside decoded boxes deltas stay within what still decodes to one.
_DELTAS = st.sampled_from([0.0, 10.0, -10.0, 1e-4]) | st.floats(-10, 10)
NUMBERS = {
    "pred_deltas": _DELTAS,
    "target_deltas": _DELTAS,
    "logits": _LOGITS,
    "quality": _SHARES,
    "image_size": st.sampled_from([1.0, 32.0, 640.0, 6e4]),
}

_COORDINATE = st.sampled_from([0.0, -0.0, 1.0, 10.0, LARGEST, -LARGEST, *TINY]) | st.floats(
    -LARGEST, LARGEST, width=32
)
_SIDE = st.sampled_from([0.0, 1.0, -1.0, 100.0, -100.0, *TINY])
# Four coordinates as they come, mostly disjoint or inverted; or a corner and sides.
_BOX = st.lists(_COORDINATE, min_size=4, max_size=4) | st.tuples(
    _COORDINATE, _COORDINATE, _SIDE, _SIDE
).map(_sized)
_PAIR = st.tuples(_BOX, _BOX, st.sampled_from([0, 15, 1, 2, 5, 10, 12])).map(_mixed)
_BOXES = st.lists(_PAIR, min_size=ROWS, max_size=ROWS).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).unbind(1)
)
