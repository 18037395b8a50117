"""What one evaluation of a box loss costs: time, and memory until the backward pass."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss

BOXES = 1000
_REPEATS, _WARM_UP = 30, 5


@dataclass(frozen=True)
class Cost:
    """The cost of a loss for :data:`BOXES` boxes, on a CPU.

    Attributes:
        microseconds: forward and backward pass, the median of several.
        bytes: what the forward pass keeps for the backward pass, besides predictions and targets.
    """

    microseconds: float
    bytes: int


def cost(loss: Loss) -> Cost:
    """Measure a box loss on random boxes, or random deltas, in float32.

    Raises:
        InputError: the loss has an input that is not known here.
    """
    pred, target, inputs = _example(loss)

    def evaluate(pred: Tensor) -> Tensor:
        return loss(pred, target, **inputs)

    times = [seconds(evaluate, pred) for _ in range(_WARM_UP + _REPEATS)][_WARM_UP:]
    given = {x.data_ptr() for x in (pred, target, *inputs.values())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        evaluate(pred.requires_grad_()).backward()
    return Cost(1e6 * statistics.median(times), sum(kept.values()))


def _example(loss: Loss) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return predictions that overlap their targets, the targets, and further inputs."""
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(BOXES, 4, generator=generator) for _ in range(2)]
    corner, size = (100 * torch.rand(BOXES, 2, generator=generator) + 10 for _ in range(2))
    target = torch.cat([corner, corner + size], 1)
    pred = target + 0.1 * size.repeat(1, 2) * deltas[0].clamp(-2, 2)
    known = {
        "image_size": torch.full((BOXES, 2), 500.0),
        "pred_deltas": deltas[0],
        "target_deltas": deltas[1],
    }
    for name in loss.inputs:
        if name not in known:
            raise InputError(f"{type(loss).__name__} needs the input {name!r}, not known here")
    inputs = {name: known[name] for name in loss.inputs}
    return (*deltas, inputs) if loss.space == "delta" else (pred, target, inputs)


def seconds(function: Callable[[Tensor], Tensor], pred: Tensor) -> float:
    """Return the time of one forward and backward pass, on a GPU by its own clock."""
    leaf = pred.detach().requires_grad_()
    if pred.is_cuda:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function(leaf).backward()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    function(leaf).backward()
    return time.perf_counter() - begin
