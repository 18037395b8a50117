"""Running means: where they live, when they move, and that nothing else remembers."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from det_losses.conformance.case import (
    Case,
    Failed,
    Skipped,
    call,
    call_in_place,
    expect,
    expect_close,
)
from det_losses.conformance.inputs import examples
from det_losses.losses.core.base import Loss


def has_state(loss: Loss) -> bool:
    """Whether the loss has buffers, which may be running means."""
    return next(loss.buffers(), None) is not None


def state_of(loss: Loss) -> dict[str, Tensor]:
    """Copy the buffers."""
    return {name: buffer.detach().clone() for name, buffer in loss.named_buffers()}


def warm(case: Case, loss: Loss) -> Loss:
    """Return a copy that has seen two batches."""
    loss = deepcopy(loss).train()
    for seed in (101, 102):
        call_in_place(loss, examples(case, loss, 24, seed=seed))
    return loss


def memory(case: Case) -> None:
    """A loss without buffers gives the same value twice: no hidden state."""
    loss = case.build().train()
    if has_state(loss):
        raise Skipped("has buffers")
    inputs = examples(case, loss)
    first, second = (call_in_place(loss, inputs) for _ in range(2))
    expect_close("second call with the same inputs", second, first, rtol=0, atol=0)


def state(case: Case) -> None:
    """Buffers move in training only and are all in the state_dict, which restores the value."""
    variants = [{}, *(dict(reference.kwargs) for reference in case.references)]
    stateful = [kwargs for kwargs in variants if has_state(case.build(**kwargs))]
    if not stateful:
        raise Skipped("no state")
    for kwargs in stateful:
        _check_state(case, kwargs)


def _check_state(case: Case, kwargs: dict[str, Any]) -> None:
    loss = case.build(**kwargs).train()
    fresh, trained = state_of(loss), warm(case, loss)
    moved = [n for n, buffer in state_of(trained).items() if not torch.equal(buffer, fresh[n])]
    saved = trained.state_dict()
    for name in moved:
        expect(name in saved, f"buffer {name!r} moves in training, but is not in the state_dict")
    before = state_of(trained)
    inputs = examples(case, loss, seed=5)
    value = call_in_place(trained.eval(), inputs)
    for name, buffer in state_of(trained).items():
        expect_close(f"buffer {name!r} after a call in evaluation", buffer, before[name], 0, 0)
    restored = case.build(**kwargs)
    try:
        restored.load_state_dict(saved)
    except RuntimeError as error:
        raise Failed(f"its own state_dict does not load: {error}") from None
    expect_close("value after its state_dict was loaded", call(restored.eval(), inputs), value)
    expect(all(buffer.isfinite().all() for buffer in before.values()), "a buffer is not finite")
