"""Training on one core, on two threads and in two processes; runs on two cores locally and on Ray.

    python benchmarks/several_processes.py WORK_DIR [--only train compare] [--repeats 3]

All settings of a part are repeated in turn; the table has medians. Each training is
``quickstart/retinanet_shapes`` with 16 images a step; its time per step is that of metrics.json,
without evaluations. Each comparison has four runs of one epoch; its time is that of the
whole command, report included.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONFIG = "quickstart/retinanet_shapes"
BATCH = 16
TOOL = [sys.executable, "-m", "det_losses"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# title -> start of the command, images per process, threads per process, further options
TRAININGS = {
    "1 process, 1 thread": (TOOL, BATCH, 1, []),
    "1 process, 2 threads": (TOOL, BATCH, 2, []),
    "2 processes, 1 thread each": (
        [*TORCHRUN, "-m", "det_losses"], BATCH // 2, 1, ["--launcher", "pytorch"]
    ),
}  # fmt: skip
COMPARISONS = {"--jobs 2": ["--jobs", "2"], "--executor ray": ["--executor", "ray"]}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--only", nargs="+", choices=("train", "compare"))
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    parts = args.only or ("train", "compare")
    if "train" in parts:
        found = _in_turn(_images_per_second, TRAININGS, args)
        _print("training", "images/s", found)
    if "compare" in parts:
        found = _in_turn(_seconds, COMPARISONS, args)
        _print("comparison of four short runs", "s", found)


def _in_turn(measure, settings, args) -> dict[str, list[float]]:
    found = {title: [] for title in settings}
    for number in range(args.repeats):
        for title, setting in settings.items():
            folder = args.work_dir / f"{len(found[title])}_{list(settings).index(title)}_{number}"
            shutil.rmtree(folder, ignore_errors=True)
            found[title].append(measure(folder, setting))
    return found


def _images_per_second(folder: Path, setting) -> float:
    start, batch_size, threads, options = setting
    changes = [f"train_dataloader.batch_size={batch_size}", "train_cfg.max_epochs=1"]
    command = [*start, "train", CONFIG, "--work-dir", str(folder), "--no-plan", *options]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    _run([*command, "--cfg-options", *changes], env)
    record = json.loads((folder / "metrics.json").read_text())
    return BATCH / record["seconds_per_iteration"]


def _seconds(folder: Path, options) -> float:
    command = [*TOOL, "compare", CONFIG, "--losses", "GIoULoss", "EIoULoss", "--seeds", "0", "1"]
    changes = ["train_cfg.max_epochs=1"]
    begin = time.perf_counter()
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    _run([*command, "--work-dir", str(folder), *options, "--cfg-options", *changes], env)
    return time.perf_counter() - begin


def _run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def _print(title: str, unit: str, found: dict[str, list[float]]) -> None:
    first = statistics.median(next(iter(found.values())))
    print(f"| {title} | {unit}, median (lowest to highest) | ratio to the first |\n|---|---|---|")
    for name, values in found.items():
        middle = statistics.median(values)
        spread = f"{middle:.3g} ({min(values):.3g} to {max(values):.3g})"
        print(f"| {name} | {spread} | {middle / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
