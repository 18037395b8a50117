"""Runs trained together in one process by stacked weights, compared with one after another.

    OMP_NUM_THREADS=1 python benchmarks/stacked_runs.py [--runs 4] [--device cuda] [--repeats 15]

The backbone and the head of the quickstart's RetinaNet, forward and backward, on batches of 16
images of 96 px, one batch for each run. Stacked: torch.func.stack_module_state and vmap over the
runs. The losses, which differ between runs, are not included; nor is the optimizer. Medians of
alternating repeats. With another --device: processes that share a GPU are the alternative there,
which `python -m det_losses compare` measures when --jobs is not given.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from det_losses.engine.config import read_config
from det_losses.registry import MODELS


class Outputs(nn.Module):
    """Images to the sum of the squared outputs of a detector's head."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> Tensor:
        """Return a number whose gradient reaches all weights."""
        found = self.head(list(self.backbone(images).values()))
        return sum(value.square().mean() for value in found.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--config", default="quickstart/retinanet_shapes")
    args = parser.parse_args()
    cfg = read_config(args.config)
    torch.manual_seed(0)
    detector = MODELS.build({**cfg.model, "num_classes": 3}).detector
    models = [copy.deepcopy(Outputs(detector)).to(args.device) for _ in range(args.runs)]
    shape = (args.runs, args.batch, 3, args.size, args.size)
    images = torch.randn(shape, device=args.device)
    stacked = stacked_step(models, images)
    ways = {"one after another": lambda: separate_step(models, images), "stacked": stacked}
    totals = [sum(float(value) for value in way()) for way in ways.values()]
    assert abs(totals[0] - totals[1]) < 1e-3 * abs(totals[0]), totals
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if args.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    for name, median in medians.items():
        rate = args.runs * args.batch / median
        print(f"{args.runs} runs {name}: {1e3 * median:.0f} ms, {rate:.0f} images/s")
    first, second = medians.values()
    print(f"one after another / stacked: {first / second:.2f}")


def separate_step(models: list[nn.Module], images: Tensor) -> list[Tensor]:
    """Compute the gradients of each model in turn; return their outputs."""
    outputs = []
    for model, own in zip(models, images, strict=True):
        output = model(own)
        torch.autograd.grad(output, list(model.parameters()))
        outputs.append(output.detach())
    return outputs


def stacked_step(models: list[nn.Module], images: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes the gradients of all models at once."""
    params, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def output_of(own_params: dict, own_buffers: dict, own_images: Tensor) -> Tensor:
        return functional_call(base, (own_params, own_buffers), (own_images,))

    def step() -> Tensor:
        outputs = vmap(output_of)(params, buffers, images)
        torch.autograd.grad(outputs.sum(), list(params.values()))
        return outputs.detach()

    return step


if __name__ == "__main__":
    main()
