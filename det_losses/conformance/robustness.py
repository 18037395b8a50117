"""Checks of extreme inputs and low precision: finite loss and gradient, computed in float32."""

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Inputs,
    call,
    call_in_place,
    expect,
    expect_close,
    gradients,
    state_of,
)
from det_losses.losses.core.base import Loss

# name: (predicted box, target), in units of the size
DEGENERATE = {
    "identical": ((1, 1, 3, 2), (1, 1, 3, 2)),
    "disjoint": ((0, 0, 2, 1), (5, 6, 7, 9)),
    "sharing an edge": ((0, 0, 2, 1), (2, 0, 5, 1)),
    "sharing a corner": ((0, 0, 2, 1), (2, 1, 5, 3)),
    "target inside prediction": ((0, 0, 9, 6), (2, 1, 5, 3)),
    "zero-width prediction": ((1, 1, 1, 2), (0, 0, 3, 4)),
    "zero-height prediction": ((1, 1, 3, 1), (0, 0, 3, 4)),
    "zero-width target": ((0, 0, 3, 4), (1, 1, 1, 2)),
    "identical, zero width": ((1, 1, 1, 4), (1, 1, 1, 4)),
    "disjoint, zero height": ((1, 1, 4, 1), (1, 2, 4, 2)),
    "point prediction inside target": ((1, 1, 1, 1), (0, 0, 3, 4)),
    "identical points": ((1, 1, 1, 1), (1, 1, 1, 1)),
    "points at the origin": ((0, 0, 0, 0), (0, 0, 0, 0)),
    "distinct points": ((1, 1, 1, 1), (4, 5, 4, 5)),
    "inverted in x": ((3, 1, 1, 2), (0, 0, 3, 4)),
    "inverted in both, same corners": ((3, 4, 0, 0), (0, 0, 3, 4)),
    "inverted in both, inside": ((2, 3, 1, 1), (0, 0, 3, 4)),
    "inverted, disjoint": ((9, 8, 6, 6), (0, 0, 3, 4)),
    "very long and flat": ((-10, 0, 10, 1e-3), (0, 0, 3, 4)),
}
# The largest coordinate is ten times the size: 1e6, and 6e4 in float16.
SIZES = (
    (torch.float64, 1.0),
    (torch.float32, 1e-3),
    (torch.float32, 1.0),
    (torch.float32, 1e5),
    (torch.bfloat16, 1.0),
    (torch.bfloat16, 1e5),
    (torch.float16, 1.0),
    (torch.float16, 6e3),
)
# The largest fuzzed coordinate, in pixels, and its factor for float16: 6e4 px.
LARGEST = 1e6
HALF_FACTOR = 0.06
# In float16, the gradient of a division by less than about 0.001 px overflows.
HALF_STEP = 2.0**-10
TINY = (1e-30, 1e-7, 3e-4)
FUZZED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FUZZED_ROWS = 3


def degenerate(case: Case) -> None:
    """Loss and gradient are finite for degenerate boxes of several sizes and dtypes."""
    for dtype, size in SIZES:
        loss = _built(case, dtype)
        pred, target = degenerate_pairs(dtype, size)
        example = case.examples(loss, len(pred), dtype)
        if loss.kind == "box":
            inputs = Inputs(pred, target, example.extra)
        else:  # coordinates serve as logits
            logits = pred.repeat(1, 4)[:, : example.pred.shape[1]]
            inputs = Inputs(logits, example.target, example.extra)
        _check_finite(loss, inputs, f"degenerate boxes of size {size:g} in {_name(dtype)}")


def fuzz(case: Case) -> None:
    """Loss and gradient are finite for generated boxes up to 1e6 px and logits up to 1e4."""
    _fuzz(case, 10)


def fuzz_long(case: Case) -> None:
    """As fuzz, for 300 generated batches."""
    _fuzz(case, 300)


def half_precision(case: Case) -> None:
    """The loss of half-precision inputs is float32; gradients are finite and half precision."""
    for dtype in (torch.float16, torch.bfloat16):
        loss = case.build().float().train()
        inputs, leaves = case.examples(loss, dtype=dtype).leaves()
        value = call(loss, inputs, torch.ones(12, dtype=dtype))
        expect(value.dtype == torch.float32, f"{dtype} in: expected float32, got {value.dtype}")
        expected = call(loss, inputs.to(torch.float32), torch.ones(12))
        expect_close(f"{dtype}, against float32 inputs", value, expected, rtol=1e-6)
        for slope in gradients(value, leaves):
            expect(slope.dtype == dtype, f"{dtype} in: the gradient is in {slope.dtype}")
            expect(slope.isfinite().all(), f"{dtype}: the gradient is not finite")


def autocast(case: Case) -> None:
    """Under autocast the loss is computed in float32."""
    loss = case.build().float()
    inputs = case.examples(loss, dtype=torch.float32)
    expected = call(loss, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(loss, inputs)
    expect_close("value under autocast", value, expected, rtol=0, atol=0)


def degenerate_pairs(dtype: torch.dtype, size: float) -> tuple[Tensor, Tensor]:
    """Return the pairs of :data:`DEGENERATE` as predictions and targets, scaled by ``size``."""
    boxes = torch.tensor(list(DEGENERATE.values()), dtype=torch.float64) * size
    return boxes[:, 0].to(dtype), boxes[:, 1].to(dtype)


def _built(case: Case, dtype: torch.dtype) -> Loss:
    loss = case.build().train()
    return loss if dtype == torch.float64 else loss.float()


def _check_finite(loss: Loss, inputs: Inputs, what: str) -> None:
    inputs, leaves = inputs.leaves()
    before = state_of(loss)
    none = call_in_place(loss, inputs, reduction="none")
    slopes = gradients(call_in_place(loss, inputs), leaves)
    after = state_of(loss)
    loss.load_state_dict(before, strict=False)
    finite = none.reshape(len(inputs.pred), -1).isfinite().all(1)
    for slope in slopes:
        finite &= slope.reshape(len(finite), -1).isfinite().all(1)
    if not finite.all():
        row = int((~finite).int().argmax())
        tensors = {"pred": inputs.pred, "target": inputs.target, **inputs.extra}
        shown = ", ".join(f"{name}={tensor[row].tolist()}" for name, tensor in tensors.items())
        slope = [each[row].tolist() for each in slopes]
        expect(False, f"{what}: not finite at {shown}: loss {none[row].tolist()}, gradient {slope}")
    for name, buffer in after.items():
        expect(buffer.isfinite().all(), f"{what}: buffer {name!r} is not finite")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Fuzzing


def _fuzz(case: Case, batches: int) -> None:
    losses = {dtype: _built(case, dtype) for dtype in FUZZED_DTYPES}
    loss = losses[torch.float32]

    @settings(
        max_examples=batches,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(_fuzzed(loss, case.examples(loss, FUZZED_ROWS)))
    def finite(inputs: Inputs) -> None:
        for dtype, each in losses.items():
            fitting = _scaled_to_float16(each, inputs) if dtype == torch.float16 else inputs
            _check_finite(each, fitting.to(dtype), _name(dtype))

    finite()


def _scaled_to_float16(loss: Loss, inputs: Inputs) -> Inputs:
    """Scale boxes, and the deltas of a delta loss, to the range of float16."""

    def scaled(x: Tensor) -> Tensor:
        return (x * HALF_FACTOR / HALF_STEP).round() * HALF_STEP

    if loss.kind != "box":
        return inputs
    return Inputs(scaled(inputs.pred), scaled(inputs.target), inputs.extra)


def _fuzzed(loss: Loss, example: Inputs) -> st.SearchStrategy[Inputs]:
    """Generate inputs of the shapes of ``example``, with extreme values."""
    extra = {
        name: _filled(_EXTRA[name], value) if name in _EXTRA else st.just(value)
        for name, value in example.extra.items()
    }
    if loss.kind == "box":
        both = _BOX_PAIRS
    elif loss.kind == "distribution":
        bins = example.pred.shape[-1] - 1
        target = _filled(_FRACTION, example.target).map(lambda x: x * bins)
        both = st.tuples(_filled(_LOGIT, example.pred), target)
    else:
        both = st.tuples(_filled(_LOGIT, example.pred), st.just(example.target))
    return st.tuples(both, st.fixed_dictionaries(extra)).map(
        lambda drawn: Inputs(*drawn[0], drawn[1])
    )


def _filled(numbers: st.SearchStrategy[float], like: Tensor) -> st.SearchStrategy[Tensor]:
    count = like.numel()
    return st.lists(numbers, min_size=count, max_size=count).map(
        lambda values: torch.tensor(values, dtype=torch.float64).reshape(like.shape)
    )


def _with_common_coordinates(
    drawn: tuple[list[float], list[float], int],
) -> tuple[list[float], list[float]]:
    """Copy the coordinates that are selected by a bit mask from the first box to the second."""
    first, second, bits = drawn
    places = zip(first, second, range(4), strict=True)
    return first, [a if bits >> place & 1 else b for a, b, place in places]


def _from_sides(drawn: tuple[float, float, float, float]) -> list[float]:
    x, y, w, h = drawn
    return [x, y, x + w, y + h]


_LOGIT = st.sampled_from([1e4, -1e4, 100.0, -100.0, 17.0, -17.0, 0.0, 1e-4]) | st.floats(-1e4, 1e4)
_FRACTION = st.sampled_from([0.0, 1.0, 0.5, 1e-3]) | st.floats(0, 1)
# Deltas passed in addition to decoded boxes stay in a range that decodes to a box.
_DELTA = st.sampled_from([0.0, 10.0, -10.0, 1e-4]) | st.floats(-10, 10)
_EXTRA = {
    "pred_deltas": _DELTA,
    "target_deltas": _DELTA,
    "logits": _LOGIT,
    "quality": _FRACTION,
    "image_size": st.sampled_from([1.0, 32.0, 640.0, 6e4]),
}
_COORDINATE = st.sampled_from([0.0, -0.0, 1.0, 10.0, LARGEST, -LARGEST, *TINY]) | st.floats(
    -LARGEST, LARGEST, width=32
)
_SIDE = st.sampled_from([0.0, 1.0, -1.0, 100.0, -100.0, *TINY])
# Either four free coordinates, mostly disjoint or inverted, or a corner and two sides.
_BOX = st.lists(_COORDINATE, min_size=4, max_size=4) | st.tuples(
    _COORDINATE, _COORDINATE, _SIDE, _SIDE
).map(_from_sides)
_PAIR = st.tuples(_BOX, _BOX, st.sampled_from([0, 15, 1, 2, 5, 10, 12])).map(
    _with_common_coordinates
)
_BOX_PAIRS = st.lists(_PAIR, min_size=FUZZED_ROWS, max_size=FUZZED_ROWS).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).unbind(1)
)
