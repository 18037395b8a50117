"""The spread between runs that differ only in the seed, and what reduces it without more training.

    OMP_NUM_THREADS=1 python benchmarks/run_noise.py WORK_DIR

WORK_DIR is a finished comparison with two seeds or more. The script evaluates the last two
checkpoints of each run, the mean of their weights, and half of the images. For each of these it
prints the standard deviation of AP over the seeds of one variant (pooled over variants) and that of
the paired difference to the first variant, which determines what a comparison can detect.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from det_losses.engine import build_runner
from det_losses.evaluation.coco_metric import CocoMetric

State = dict[str, torch.Tensor]


def main() -> None:
    """Evaluate the checkpoints and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    args = parser.parse_args()
    results = json.loads((args.work_dir / "results.json").read_text())
    done = [run for run in results["runs"] if run["status"] == "done"]
    found = {}
    for run in done:
        found[run["variant"], run["seed"]] = evaluate_run(args.work_dir / run["work_dir"])
        print(run["variant"], run["seed"], found[run["variant"], run["seed"]], file=sys.stderr)
    variants = list(results["meta"]["variants"])
    seeds = sorted({seed for _, seed in found if all((v, seed) in found for v in variants)})
    print(f"{len(variants)} variants, seeds {seeds}\n")
    print("| evaluated | AP | SD over seeds | SD of the paired difference |\n|---|---|---|---|")
    for kind in next(iter(found.values())):
        ap = 100 * np.array([[found[v, s][kind] for s in seeds] for v in variants])
        spread = np.sqrt(ap.var(axis=1, ddof=1).mean())
        paired = np.sqrt((ap[1:] - ap[0]).var(axis=1, ddof=1).mean())
        print(f"| {kind} | {ap.mean():.1f} | {spread:.2f} | {paired:.2f} |")


def evaluate_run(folder: Path) -> dict[str, float]:
    """Return the AP of a run for each kind of evaluation."""
    cfg = Config.fromfile(folder / "config.py")
    cfg.work_dir, cfg.log_level = str(folder / "noise"), "ERROR"
    runner = build_runner(cfg, train=False)
    files = sorted(folder.glob("epoch_*.pth"), key=lambda file: int(file.stem.split("_")[1]))[-2:]
    before, last = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    mean = {
        key: (value + before[key]) / 2 if value.is_floating_point() else value
        for key, value in last.items()
    }
    at_last, at_before, at_mean = (average_precision(runner, s) for s in (last, before, mean))
    return {
        "final weights": at_last[0],
        "final weights, every other image": at_last[1],
        "mean of the last two evaluations": (at_last[0] + at_before[0]) / 2,
        "mean of the last two checkpoints' weights": at_mean[0],
    }


def average_precision(runner: Runner, state: State) -> tuple[float, float]:
    """Return the AP on all images and on every other one."""
    model, loader = runner.model, runner.test_loop.dataloader
    model.load_state_dict(state)
    model.eval()
    metric: Any = CocoMetric()
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            metric.process(batch, model.test_step(batch))
    parts = metric.results, list(itertools.islice(metric.results, 0, None, 2))
    whole, half = (metric.compute_metrics(part)["AP"] for part in parts)
    return whole, half


if __name__ == "__main__":
    main()
