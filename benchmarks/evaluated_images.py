"""How many images to evaluate: what they cost, and what they do to the detectable difference.

    OMP_NUM_THREADS=1 python benchmarks/evaluated_images.py WORK_DIR --data DATA

WORK_DIR is a finished quickstart with two seeds or more; its last checkpoints are evaluated on as
many shapes as the largest of --images, made in DATA. Subsets of these detections are then compared
as if they were the whole evaluation; the variances are means over disjoint subsets. `detectable` is
the difference to the baseline that is found with 80% probability by the seeds that fit into the CPU
time of three seeds with the number of images of --reference; seeds need not be whole numbers.
"""

import argparse
import json
import resource
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from det_losses.engine import build_runner
from det_losses.report import Study
from det_losses.statistics.families import detectable_difference
from det_losses.statistics.maximum import Family
from det_losses.statistics.verdict import Precision

SEEDS = 3


def main() -> None:
    """Evaluate, compare the subsets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument(
        "--train-seconds", type=float, required=True, help="CPU, without evaluation"
    )
    parser.add_argument("--most", type=int, default=4, help="subsets of one size")
    args = parser.parse_args()
    rows = json.loads((args.work_dir / "results.json").read_text())["runs"]
    runs = [row for row in rows if row["status"] == "done"]
    with TemporaryDirectory() as folder:
        files: dict[str, list[Path]] = {}
        seconds = []
        for run in runs:
            name = f"{run['variant']}_{run['seed']}.json"
            files.setdefault(run["variant"], []).append(Path(folder, name))
            own = args.work_dir / run["work_dir"]
            seconds.append(evaluate(own, args.data, max(args.images), Path(folder, name)))
        each = float(np.mean(seconds)) / max(args.images)
        truth = json.loads(Path(args.data, "val.json").read_text())
        print("| images | CPU s | SD over seeds | SE over images | seeds | detectable |")
        print("|---|---|---|---|---|---|")
        whole = SEEDS * (args.train_seconds + each * args.reference)
        for count in args.images:
            parts = min(args.most, max(args.images) // count)
            found = [precision(truth, files, count, part) for part in range(parts)]
            seeds = whole / (args.train_seconds + each * count)
            print(row_of(count, each * count, found, seeds), flush=True)


def evaluate(run: Path, data: str, images: int, out: Path) -> float:
    """Write a run's detections on that many shapes; return the CPU seconds."""
    cfg = Config.fromfile(run / "config.py")
    cfg.work_dir, cfg.log_level = str(out.parent / "run"), "ERROR"
    cfg.val_dataloader.dataset.update(data_root=data, num_train=1, num_val=images, seed=1)
    cfg.val_evaluator.out_file = str(out)
    cfg.load_from, cfg.resume = str(run / f"epoch_{cfg.train_cfg.max_epochs}.pth"), False
    runner = build_runner(cfg, train=False)
    begin = _cpu()
    with torch.no_grad():
        runner.test()
    return _cpu() - begin


def precision(
    truth: dict[str, Any], files: dict[str, list[Path]], count: int, part: int
) -> Precision:
    """Return the variances of a comparison on one subset of the images."""
    ids = {image["id"] for image in truth["images"][part * count : (part + 1) * count]}
    with TemporaryDirectory() as folder:
        chosen = {label: _subset(own, ids, Path(folder)) for label, own in files.items()}
        subset = {
            **truth,
            "images": [image for image in truth["images"] if image["id"] in ids],
            "annotations": [each for each in truth["annotations"] if each["image_id"] in ids],
        }
        file = Path(folder, "truth.json")
        file.write_text(json.dumps(subset))
        return Study.from_detections(file, chosen, resamples=300).verdict().precision


def _subset(files: Sequence[Path], ids: set[int], folder: Path) -> list[Path]:
    chosen = []
    for file in files:
        detections = [each for each in json.loads(file.read_text()) if each["image_id"] in ids]
        chosen.append(folder / file.name)
        chosen[-1].write_text(json.dumps(detections))
    return chosen


def row_of(count: int, seconds: float, found: Sequence[Precision], seeds: float) -> str:
    """Return a row of the table; AP in points."""
    seed_variance = float(np.mean([each.seed_variance for each in found]))
    image_variance = float(np.mean([each.image_variance for each in found]))
    mean = Precision(found[0].losses, seed_variance, image_variance, count, found[0].error)
    detectable = float(detectable_difference(*mean.with_seeds(seeds, Family.BASELINE)))
    values = [100 * seed_variance**0.5, 100 * image_variance**0.5]
    sds = " | ".join(f"{value:.2f}" for value in values)
    return f"| {count} | {seconds:.1f} | {sds} | {seeds:.2f} | {100 * detectable:.2f} |"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
