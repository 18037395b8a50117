"""Half precision and autocast: the loss itself is computed in float32."""

import torch

from det_losses.conformance.case import Case, call, expect, expect_close, gradients
from det_losses.conformance.inputs import examples


def half(case: Case) -> None:
    """Half precision is computed in float32; its gradient comes back in half, and finite."""
    for dtype in (torch.float16, torch.bfloat16):
        loss = case.build().float().train()
        inputs, leaves = examples(case, loss, dtype=dtype).leaves()
        value = call(loss, inputs, torch.ones(12, dtype=dtype))
        expect(value.dtype == torch.float32, f"{dtype} in: expected float32, got {value.dtype}")
        expected = call(loss, inputs.to(torch.float32), torch.ones(12))
        expect_close(f"{dtype}, against the same in float32", value, expected, rtol=1e-6)
        for slope in gradients(value, leaves):
            expect(slope.dtype == dtype, f"{dtype} in: expected its gradient, got {slope.dtype}")
            expect(slope.isfinite().all(), f"{dtype}: the gradient is not finite")


def autocast(case: Case) -> None:
    """Under autocast the loss stays in float32."""
    loss = case.build().float()
    inputs = examples(case, loss, dtype=torch.float32)
    expected = call(loss, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(loss, inputs)
    expect_close("value under autocast", value, expected, rtol=0, atol=0)
