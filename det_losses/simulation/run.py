"""Run a simulation for one loss: all cases in chunks, sums of the errors at each step."""

import platform
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from det_losses.boxes import box_pair
from det_losses.errors import InputError
from det_losses.losses import build_loss
from det_losses.losses.core.base import Loss
from det_losses.simulation.protocol import PROTOCOLS, Protocol
from det_losses.simulation.published import PUBLISHED, corners, published_gradient

# Cases in a chunk. On a CPU, the tensors of a step stay in the cache.
_CHUNK, _CHUNK_OF_ACCELERATOR = 2**14, 2**19
_INPUTS = ("image_size", "pred_deltas", "target_deltas")

# boxes [4, N] -> gradient by x, y, w and h, [4, N]
Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """What determines the numbers of a simulation, apart from rounding.

    Attributes:
        loss: name, or text such as ``"InnerIoU(CIoULoss, ratio=0.7)"``.
        protocol: key of ``PROTOCOLS``.
        cases: number of cases; None: all.
        steps: number of steps; None: those of the protocol.
        seed: of the points and of the sample of cases.
        gradients: ``"exact"`` or ``"published"``.
    """

    loss: str
    protocol: str = "diou"
    cases: int | None = None
    steps: int | None = None
    seed: int = 0
    gradients: str = "exact"


@dataclass(frozen=True)
class Result:
    """The result of one loss; lists over steps start with step 0, the anchors.

    Attributes:
        settings: what was simulated.
        cases: number of cases simulated.
        error: at each step, the sum over all cases of the protocol of the l1 errors of x, y, w and
            h; if only a sample was simulated, its estimate.
        standard_error: of that estimate, for the same points; 0 if all cases were simulated.
        iou: at each step, the mean IoU.
        clamped: fraction of all steps in which a side was clamped to stay positive.
        plane: for each point, the mean final error of its cases; None without cases.
        seconds: wall time.
        machine: processor or accelerator, and number of threads.
    """

    settings: dict[str, Any]
    cases: int
    error: list[float]
    standard_error: list[float]
    iou: list[float]
    clamped: float
    plane: list[float | None]
    seconds: float
    machine: str


def simulate(settings: Settings, device: str = "cpu") -> Result:
    """Simulate one loss, in float64: rounding in float32 changes the smallest final errors by 5%.

    Chunks are random samples of all cases. A loss with running statistics starts anew with each
    chunk, which is its batch in all steps.

    Args:
        settings: loss, protocol and size.
        device: a torch device.

    Raises:
        InputError: not a box loss, a loss with inputs that a simulation lacks, boxes that
            diverge, published gradients of a loss that has none, or an impossible number of
            cases.
    """
    protocol = PROTOCOLS[settings.protocol]
    loss = simulated_loss(settings)
    cases = protocol.draw(settings.cases, settings.seed)
    positions = protocol.point_positions(settings.seed)
    steps = settings.steps or protocol.steps
    totals = _Totals(protocol, steps)
    start = time.perf_counter()
    size = _CHUNK if torch.device(device).type == "cpu" else _CHUNK_OF_ACCELERATOR
    for chunk in np.array_split(cases, -(-len(cases) // size)):
        anchors, targets = (
            torch.from_numpy(each).to(device) for each in protocol.boxes(chunk, positions)
        )
        stratum = torch.from_numpy(chunk % protocol.strata).to(device)
        gradient = gradient_of(settings, loss, anchors, targets)
        for step, (boxes, iou, clamped) in enumerate(
            descend(gradient, anchors, targets, protocol, steps)
        ):
            error = (boxes - targets).abs().sum(0)
            totals.add(step, stratum, error, iou, clamped)
        totals.add_final(chunk, error)
    return totals.result(settings, len(cases), time.perf_counter() - start, device)


def simulated_loss(settings: Settings) -> Loss:
    """Build the loss of a simulation, in training mode.

    Raises:
        InputError: not a box loss, one with inputs that a simulation lacks, or, for published
            gradients, one that has none.
    """
    loss = build_loss(settings.loss)
    if getattr(loss, "kind", None) != "box":
        raise InputError(f"{settings.loss} is not a box loss; list_losses --kind box lists these")
    missing = [name for name in loss.inputs if name not in _INPUTS]
    if missing:
        raise InputError(f"{settings.loss} needs {', '.join(missing)}; a simulation has only boxes")
    if settings.gradients == "published":
        known = {str(build_loss(each)) for each in PUBLISHED}
        if str(loss) not in known:
            raise InputError(
                f"--gradients published: the paper has gradients of {', '.join(PUBLISHED)}; "
                f"{settings.loss} is another loss"
            )
    return loss.train()


def gradient_of(settings: Settings, loss: Loss, anchors: Tensor, targets: Tensor) -> Gradient:
    """Return the function that computes the gradient of each box, ``[4, N]``.

    Args:
        settings: the loss and the kind of gradients.
        loss: the loss; it is copied, so that its running statistics are unchanged.
        anchors: x, y, w, h of the first boxes, ``[4, N]``.
        targets: of their targets.
    """
    if settings.gradients == "published":
        return lambda boxes: published_gradient(type(loss).__name__, boxes, targets)
    loss = deepcopy(loss).to(anchors.device)
    anchor_corners, target_corners = corners(anchors).t(), corners(targets).t()
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    target_deltas = coder.encode_single(target_corners, anchor_corners)
    image = torch.tensor(PROTOCOLS[settings.protocol].image_size).to(anchors)
    inputs: dict[str, Callable[[Tensor], Tensor]] = {
        "image_size": lambda pred: image.expand(len(pred), 2),
        "pred_deltas": lambda pred: coder.encode_single(pred, anchor_corners),
        "target_deltas": lambda pred: target_deltas,
    }

    def gradient(boxes: Tensor) -> Tensor:
        leaf = corners(boxes).requires_grad_()
        pred = leaf.t()  # [N, 4], with contiguous coordinates
        extra = {name: inputs[name](pred) for name in loss.inputs}
        if loss.space == "delta":
            value = loss(
                inputs["pred_deltas"](pred), target_deltas, reduction_override="none", **extra
            )
        else:
            value = loss(pred, target_corners, reduction_override="none", **extra)
        first, second = torch.autograd.grad(value.sum(), leaf)[0].split(2)
        # x1 = x - w / 2 and x2 = x + w / 2
        return torch.cat([first + second, (second - first) / 2])

    return gradient


def descend(
    gradient: Gradient, anchors: Tensor, targets: Tensor, protocol: Protocol, steps: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the boxes before the first and after each step, their IoU, and how many were clamped.

    Raises:
        InputError: boxes diverge, or the gradient is not finite.
    """
    update = protocol.new_update()
    boxes, target_corners = anchors, corners(targets).t()
    clamped = torch.zeros((), device=anchors.device)
    for step in range(1, steps + 1):
        iou = box_pair(corners(boxes).t(), target_corners).iou
        yield boxes, iou, clamped
        moved = update(boxes, gradient(boxes), iou, step, protocol.cases)
        sides = moved[2:].clamp(min=protocol.smallest_side)
        clamped = (sides != moved[2:]).any(0).sum()
        boxes = torch.cat([moved[:2], sides])
    if not boxes.isfinite().all():
        raise InputError(
            "some boxes diverge: the step size of the protocol is too large for this loss, or its "
            "gradient is not finite"
        )
    yield boxes, box_pair(corners(boxes).t(), target_corners).iou, clamped


class _Totals:
    """Sums over cases at each step, by stratum, and over strata at each point at the end."""

    def __init__(self, protocol: Protocol, steps: int) -> None:
        shape = (steps + 1, protocol.strata)
        self.protocol = protocol
        self.sums, self.squares, self.counts = np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
        self.ious, self.clamped = np.zeros(steps + 1), np.zeros(steps + 1)
        self.point_sums, self.point_counts = np.zeros((2, protocol.points))

    def add(self, step: int, stratum: Tensor, error: Tensor, iou: Tensor, clamped: Tensor) -> None:
        error = error.double()
        size = self.protocol.strata
        self.sums[step] += torch.bincount(stratum, error, size).cpu().numpy()
        self.squares[step] += torch.bincount(stratum, error**2, size).cpu().numpy()
        self.ious[step] += iou.double().sum().item()
        self.clamped[step] += clamped.item()
        if step == 0:
            self.counts += torch.bincount(stratum, minlength=size).cpu().numpy()

    def add_final(self, cases: np.ndarray, error: Tensor) -> None:
        point, size = cases // self.protocol.strata, self.protocol.points
        self.point_sums += np.bincount(point, error.double().cpu().numpy(), size)
        self.point_counts += np.bincount(point, minlength=size)

    def result(self, settings: Settings, cases: int, seconds: float, device: str) -> Result:
        points, n = self.protocol.points, self.counts
        variance = (self.squares - self.sums**2 / n).clip(min=0) / (n - 1)
        # of a stratum's total, estimated from n of its points without replacement
        of_totals = points**2 * (1 - n / points) * variance / n
        plane = [
            round(total / count, 6) if count else None
            for total, count in zip(self.point_sums, self.point_counts, strict=True)
        ]
        return Result(
            settings=asdict(settings),
            cases=cases,
            error=(points * self.sums / n).sum(1).tolist(),
            standard_error=np.sqrt(of_totals.sum(1)).tolist(),
            iou=(self.ious / cases).tolist(),
            clamped=float(self.clamped.sum() / (cases * (len(self.clamped) - 1))),
            plane=plane,
            seconds=round(seconds, 1),
            machine=_machine(device),
        )


def _machine(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return f"{model}, {torch.get_num_threads()} threads"
