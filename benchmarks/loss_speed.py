"""Time of losses, forward and backward, as a ratio to other libraries in the same process.

    python benchmarks/loss_speed.py [--device cuda] [--threads 1] [--sizes 64 1000 100000] [--plain]

Ours and the peers are timed in turn. A ratio above 1 means that ours is faster than the fastest
peer: torchvision and, where it is installed, ultralytics; mmdetection's formulas are written here,
because mmdetection needs a compiler. With ``--plain``, the peer of each loss is its own formula by
autograd. On a GPU, times are measured with events; peak memory is that of one call, beyond its
inputs.
"""

import argparse
import math
import statistics
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, smooth_l1_loss

from det_losses import build_loss, list_losses
from det_losses.conformance.case import box_pairs, example_inputs
from det_losses.cost import seconds
from det_losses.engine.cpu import keep_freed_memory
from det_losses.losses.core.box import PairLoss
from det_losses.losses.core.text import loss_text

try:
    from ultralytics.utils.metrics import bbox_iou
except ImportError:
    bbox_iou = None

CLASSES = 80
REPEATS = {64: 300, 1000: 300, 10_000: 60, 100_000: 11, 1_000_000: 5}
Loss = Callable[[Tensor], Tensor]


class MMDetection:
    """The formulas of mmdetection 3.3's box losses, each summed over the boxes."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def _overlap(self, pred: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        low = torch.max(pred[:, :2], self.target[:, :2])
        high = torch.min(pred[:, 2:], self.target[:, 2:])
        sides = (high - low).clamp(min=0)
        overlap = sides[:, 0] * sides[:, 1]
        area = (pred[:, 2] - pred[:, 0]) * (pred[:, 3] - pred[:, 1])
        target = self.target
        target_area = (target[:, 2] - target[:, 0]) * (target[:, 3] - target[:, 1])
        return overlap, area + target_area - overlap + eps

    def _hull(self, pred: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.min(pred[:, :2], self.target[:, :2])
        sides = (torch.max(pred[:, 2:], self.target[:, 2:]) - low).clamp(min=0)
        return sides[:, 0], sides[:, 1]

    def _distance2(self, pred: Tensor) -> Tensor:
        x = self.target[:, 0] + self.target[:, 2] - (pred[:, 0] + pred[:, 2])
        y = self.target[:, 1] + self.target[:, 3] - (pred[:, 1] + pred[:, 3])
        return x**2 / 4 + y**2 / 4

    def iou(self, pred: Tensor, eps: float = 1e-6) -> Tensor:
        """1 - IoU."""
        overlap, union = self._overlap(pred, eps)
        return (1 - (overlap / union).clamp(min=eps)).sum()

    def giou(self, pred: Tensor, eps: float = 1e-7) -> Tensor:
        """Generalized IoU."""
        overlap, union = self._overlap(pred, eps)
        w, h = self._hull(pred)
        hull = w * h + eps
        return (1 - (overlap / union - (hull - union) / hull)).sum()

    def diou(self, pred: Tensor, eps: float = 1e-7) -> Tensor:
        """Distance IoU."""
        overlap, union = self._overlap(pred, eps)
        w, h = self._hull(pred)
        return (1 - overlap / union + self._distance2(pred) / (w**2 + h**2 + eps)).sum()

    def ciou(self, pred: Tensor, eps: float = 1e-7) -> Tensor:
        """Complete IoU, with alpha 0 below an IoU of 0.5."""
        overlap, union = self._overlap(pred, eps)
        iou = overlap / union
        hull_w, hull_h = self._hull(pred)
        w, h = pred[:, 2] - pred[:, 0], pred[:, 3] - pred[:, 1] + eps
        target = self.target
        wg, hg = target[:, 2] - target[:, 0], target[:, 3] - target[:, 1] + eps
        v = 4 / math.pi**2 * (torch.atan(wg / hg) - torch.atan(w / h)) ** 2
        with torch.no_grad():
            alpha = (iou > 0.5).float() * v / (1 - iou + v)
        distance = self._distance2(pred) / (hull_w**2 + hull_h**2 + eps)
        return (1 - (iou - (distance + alpha * v)).clamp(min=-1, max=1)).sum()

    def siou(self, pred: Tensor, eps: float = 1e-7) -> Tensor:
        """SIoU."""
        overlap, union = self._overlap(pred, eps)
        hull_w, hull_h = self._hull(pred)
        target = self.target
        w, h = pred[:, 2] - pred[:, 0], pred[:, 3] - pred[:, 1] + eps
        wg, hg = target[:, 2] - target[:, 0], target[:, 3] - target[:, 1] + eps
        dx = (target[:, 0] + target[:, 2] - pred[:, 0] - pred[:, 2]) * 0.5 + eps
        dy = (target[:, 1] + target[:, 3] - pred[:, 1] - pred[:, 3]) * 0.5 + eps
        sigma = torch.pow(dx**2 + dy**2, 0.5)
        sine, cosine = torch.abs(dx) / sigma, torch.abs(dy) / sigma
        sine = torch.where(sine > 2**0.5 / 2, cosine, sine)
        gamma = torch.cos(torch.arcsin(sine) * 2 - math.pi / 2) - 2
        rho_x, rho_y = (dx / (hull_w + eps)) ** 2, (dy / (hull_h + eps)) ** 2
        distance = 2 - torch.exp(gamma * rho_x) - torch.exp(gamma * rho_y)
        gap_w = torch.abs(w - wg) / torch.max(w, wg)
        gap_h = torch.abs(h - hg) / torch.max(h, hg)
        shape = torch.pow(1 - torch.exp(-gap_w), 4) + torch.pow(1 - torch.exp(-gap_h), 4)
        return (1 - (overlap / union - (distance + shape) * 0.5).clamp(min=-1, max=1)).sum()


def box_cases(n: int, device: str) -> dict[str, tuple[Loss, dict[str, Loss], Tensor]]:
    """Return label -> ours, the peers by name, and the prediction."""
    pred, target = (x.to(device) for x in box_pairs(n, torch.float32))
    mmdetection, vision = MMDetection(target), torchvision.ops

    def torchvision_(function: Callable) -> Loss:
        return lambda x: function(x, target, reduction="sum")

    def ultralytics(**kind: bool) -> dict[str, Loss]:
        if bbox_iou is None:
            return {}
        return {"ultralytics": lambda x: (1 - bbox_iou(x, target, xywh=False, **kind)).sum()}

    complete = {
        "torchvision's CIoU": torchvision_(vision.complete_box_iou_loss),
        **{f"{name}' CIoU": peer for name, peer in ultralytics(CIoU=True).items()},
    }
    peers: dict[str, dict[str, Loss]] = {
        "IoULoss(mode=linear)": {"mmdetection": mmdetection.iou, **ultralytics()},
        "GIoULoss": {
            "torchvision": torchvision_(vision.generalized_box_iou_loss),
            "mmdetection": mmdetection.giou,
            **ultralytics(GIoU=True),
        },
        "DIoULoss": {
            "torchvision": torchvision_(vision.distance_box_iou_loss),
            "mmdetection": mmdetection.diou,
            **ultralytics(DIoU=True),
        },
        "CIoULoss": {
            "torchvision": torchvision_(vision.complete_box_iou_loss),
            "mmdetection": mmdetection.ciou,
            **ultralytics(CIoU=True),
        },
        "SIoULoss": {"mmdetection": mmdetection.siou},
        "EIoULoss": complete,
        "WIoUv3Loss": complete,
        "FocalEIoULoss": complete,
        "InnerIoU(CIoULoss)": complete,
        "SmoothL1Loss": {"torch": lambda x: smooth_l1_loss(x, target, reduction="sum")},
    }
    losses = {name: _build(name) for name in peers}
    return {
        name: (lambda x, name=name: losses[name](x, target), of, pred) for name, of in peers.items()
    }


def plain_cases(n: int, device: str) -> dict[str, tuple[Loss, dict[str, Loss], Tensor]]:
    """Return the same for all losses of box pairs, each against its plain formula by autograd."""
    pred, target = (x.to(device) for x in box_pairs(n, torch.float32))

    def case(config: dict) -> tuple[Loss, dict[str, Loss], Tensor]:
        ours, plain = _build(config), _build(config)
        extra = example_inputs(ours, n, torch.float32).extra
        extra = {name: x.to(device) for name, x in extra.items()}
        peer = {"plain formula": lambda x: plain.plain(x, target, **extra).sum()}
        return lambda x: ours(x, target, **extra), peer, pred

    configs = (info.config for info in list_losses())
    return {loss_text(each): case(each) for each in configs if isinstance(_build(each), PairLoss)}


def _build(loss: str | dict) -> torch.nn.Module:
    loss = build_loss(loss)
    loss.reduction = "sum"
    return loss


def class_cases(n: int, device: str) -> dict[str, tuple[Loss, dict[str, Loss], Tensor]]:
    """Return the same for sigmoid losses of integer labels; the peers take one-hot targets."""
    logits = 2 * torch.randn(n, CLASSES, device=device) - 3
    labels = torch.randint(0, CLASSES + 1, (n,), device=device)

    def one_hot_labels() -> Tensor:
        return one_hot(labels, CLASSES + 1)[:, :-1].to(logits)

    def vision(x: Tensor) -> Tensor:
        return torchvision.ops.sigmoid_focal_loss(x, one_hot_labels(), reduction="sum")

    def torch_(x: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(x, one_hot_labels(), reduction="sum")

    peers = {"FocalLoss": {"torchvision": vision}, "BinaryCrossEntropyLoss": {"torch": torch_}}
    losses = {name: _build(name) for name in peers}
    return {
        name: (lambda x, name=name: losses[name](x, labels), of, logits)
        for name, of in peers.items()
    }


def peak_mib(function: Loss, pred: Tensor) -> float:
    """Return the memory of one pass beyond what was allocated before it."""
    if pred.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds(function, pred)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(profile_memory=True) as profile:
        seconds(function, pred)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(REPEATS))
    parser.add_argument("--plain", action="store_true", help="all losses, by autograd as the peer")
    parser.add_argument("--anchors", type=int, default=60_000, help="rows of the focal loss")
    args = parser.parse_args()
    keep_freed_memory()  # as in a training; else the times depend on the state of the heap
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{versions}, {args.device}, {args.threads} threads")
    print("| loss | rows | ours, µs | fastest peer / ours | each peer / ours |")
    print("|---|---|---|---|---|")
    for n in args.sizes:
        for label, case in (plain_cases if args.plain else box_cases)(n, args.device).items():
            print(row(label, n, *case, REPEATS.get(n, 11)), flush=True)
    if args.plain or not args.anchors:
        return
    for label, (ours, peers, pred) in class_cases(args.anchors, args.device).items():
        print(row(label, args.anchors, ours, peers, pred, 9), flush=True)
        memory = [peak_mib(each, pred) for each in (ours, *peers.values())]
        print(f"memory, MiB: ours {memory[0]:.0f}, {', '.join(peers)} {memory[1]:.0f}")


def row(label: str, n: int, ours: Loss, peers: dict[str, Loss], pred: Tensor, repeats: int) -> str:
    """Measure in turn, and return a row of the table."""
    functions = [ours, *peers.values()]
    for function in functions * 3:
        seconds(function, pred)
    times = [[seconds(each, pred) for each in functions] for _ in range(repeats)]
    own, *others = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    ratios = ", ".join(
        f"{name} {other / own:.2f}" for name, other in zip(peers, others, strict=True)
    )
    return f"| {label} | {n} | {own:.0f} | {min(others) / own:.2f} | {ratios} |"


if __name__ == "__main__":
    main()
