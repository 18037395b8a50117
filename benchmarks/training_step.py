"""One training step of a config: time, memory, and the lines that wait for the GPU.

    python benchmarks/training_step.py quickstart/retinanet_shapes [--amp] [--options KEY=VALUE ...]

Each line of Python that makes the CPU wait for the GPU is listed with the number of times that it
does so in a step. Data loading is not included: one batch is used again and again.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from det_losses.engine.build import build_runner
from det_losses.engine.config import apply_options, read_config, use_amp
from det_losses.engine.run import build_parts

HERE = Path(__file__).resolve().parents[1]


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def waits(step) -> Counter:
    """Return source line -> how often it waits for the GPU in a step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "synchronizing" in str(w.message)]
    return Counter(f"{os.path.relpath(w.filename, HERE)}:{w.lineno}" for w in found)


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    cfg = read_config(args.config)
    apply_options(cfg, args.options)
    if args.amp:
        use_amp(cfg)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.log_level = folder, "WARNING"
        runner = build_runner(cfg)
        build_parts(runner)
    runner.model.train()
    batch = next(iter(runner.train_dataloader))

    def step() -> None:
        runner.model.train_step(batch, runner.optim_wrapper)

    for _ in range(min(5, args.steps)):
        step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(args.steps):
        synchronize()
        begin = time.perf_counter()
        step()
        synchronize()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    print(f"{args.config} {'amp' if args.amp else ''} {' '.join(args.options)}")
    print(f"{1e3 * median:.1f} ms a step, {len(batch['images']) / median:.0f} images/s")
    if torch.cuda.is_available():
        print(f"peak {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
        lines = waits(step)
        print(f"{sum(lines.values())} waits for the GPU:")
        for line, count in lines.most_common():
            print(f"  {count:3d}  {line}")


if __name__ == "__main__":
    main()
