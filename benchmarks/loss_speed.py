"""Time of losses, forward and backward, as a ratio to torchvision's and torch's own.

    python benchmarks/loss_speed.py [--device cuda] [--threads 1] [--sizes 64 1000 10000 100000]

Ours and the peer's are timed in turn in one process. A ratio above 1 means that ours is faster. On
a GPU, times are measured with events; peak memory is that of one call, beyond its inputs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import one_hot, smooth_l1_loss

from det_losses import build_loss
from det_losses.conformance.case import box_pairs

CLASSES = 80


def box_cases(n: int, device: str) -> dict[str, tuple[Callable, Callable, Tensor]]:
    """Return label -> ours, the peer's and the prediction."""
    pred, target = (x.to(device) for x in box_pairs(n, torch.float32))
    peers = {
        "GIoULoss": torchvision.ops.generalized_box_iou_loss,
        "DIoULoss": torchvision.ops.distance_box_iou_loss,
        "CIoULoss": torchvision.ops.complete_box_iou_loss,
        "EIoULoss": torchvision.ops.complete_box_iou_loss,  # the closest peer
        "SmoothL1Loss": smooth_l1_loss,
    }
    cases = {}
    for name, peer in peers.items():
        ours = build_loss({"type": name, "reduction": "sum"})
        cases[name] = (
            lambda x, ours=ours: ours(x, target),
            lambda x, peer=peer: peer(x, target, reduction="sum"),
            pred,
        )
    return cases


def class_cases(n: int, device: str) -> dict[str, tuple[Callable, Callable, Tensor]]:
    """Return the same for focal loss with integer labels; torchvision's takes one-hot targets."""
    logits = torch.randn(n, CLASSES, device=device)
    labels = torch.randint(0, CLASSES + 1, (n,), device=device)
    ours = build_loss({"type": "FocalLoss", "reduction": "sum"})

    def peer(x: Tensor) -> Tensor:
        hot = one_hot(labels, CLASSES + 1)[:, :-1].to(x)
        return torchvision.ops.sigmoid_focal_loss(x, hot, reduction="sum")

    return {"FocalLoss": (lambda x: ours(x, labels), peer, logits)}


def seconds(function: Callable, pred: Tensor) -> float:
    """Return the time of one forward and backward pass."""
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


def peak_mib(function: Callable, pred: Tensor) -> float:
    """Return the GPU memory of one pass beyond what was allocated before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds(function, pred)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1000, 10_000, 100_000])
    parser.add_argument("--anchors", type=int, default=60_000, help="rows of the focal loss")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    on_gpu = args.device.startswith("cuda")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {args.device}")
    print("| loss | rows | ours, ms | peer, ms | peer / ours |" + (" MiB | peer, MiB |" * on_gpu))
    print("|---|---|---|---|---|" + "---|---|" * on_gpu)
    rows = [(n, box_cases(n, args.device)) for n in args.sizes]
    rows.append((args.anchors, class_cases(args.anchors, args.device)))
    for n, cases in rows:
        for label, (ours, peer, pred) in cases.items():
            for function in (ours, peer) * 3:
                seconds(function, pred)
            times = [(seconds(ours, pred), seconds(peer, pred)) for _ in range(args.repeats)]
            own, other = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            line = f"| {label} | {n} | {own:.3f} | {other:.3f} | {other / own:.2f} |"
            if on_gpu:
                line += f" {peak_mib(ours, pred):.1f} | {peak_mib(peer, pred):.1f} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
