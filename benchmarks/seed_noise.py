"""The spread between runs that differ only in the seed, and what reduces it.

    OMP_NUM_THREADS=1 python benchmarks/seed_noise.py WORK_DIR --seeds 0 1 2 3 4 5

Trains the quickstart's RetinaNet with two losses and several seeds. After each of the last epochs,
the weights and two exponential moving averages of them (updated during the same training, so at
equal cost) are evaluated on 1,000 images. `--warmup 200`, `--faster-rcnn` (a small one) and
`--free-sampling` (the random state carries over from step to step, so that two losses sample
different proposals) change the training: use a separate WORK_DIR for each. `--summary` prints the
table of the given directories without training.

For each kind of evaluation, the table shows the standard deviation of AP over seeds, and that of
the paired difference between the two losses, which determines what a comparison can detect.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage

from det_losses.engine import build_runner
from det_losses.engine.seed import SeedHook
from det_losses.evaluation.coco_metric import CocoMetric
from det_losses.paths import find_config

LOSSES = {
    "SmoothL1Loss": dict(type="SmoothL1Loss", loss_weight=1.0, beta=0.11),
    "GIoULoss": dict(type="GIoULoss", loss_weight=2.5),
}
MOMENTA = {"EMA over 100 steps": 0.01, "EMA over 500 steps": 0.002}
PARTS = (250, 500, 1000)  # evaluated images
FASTER_RCNN = dict(
    type="FasterRCNN",
    num_classes=None,
    min_size=96,
    max_size=96,
    backbone=dict(type="SmallResNetFPN", out_channels=32, extra_levels=None),
    anchors=dict(sizes=[[12], [24], [48]], aspect_ratios=(0.5, 1.0, 2.0)),
    representation_size=128,
    roi_size=5,
    box_batch_size_per_image=32,
    rpn_post_nms_top_n_train=100,
    rpn_post_nms_top_n_test=100,
)


class EvaluateHook(Hook):
    """Evaluates the weights and their averages after each of the last epochs."""

    def __init__(self, records: list, last: int, momenta: dict[str, float]) -> None:
        self.records, self.last, self.momenta = records, last, momenta

    def before_train(self, runner) -> None:
        """Start the averages at the initial weights."""
        self.averages = {
            name: ExponentialMovingAverage(runner.model, momentum=momentum)
            for name, momentum in self.momenta.items()
        }

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """Update the averages."""
        for average in self.averages.values():
            average.update_parameters(runner.model)

    def after_train_epoch(self, runner) -> None:
        """Evaluate, in the last epochs."""
        epoch = runner.epoch + 1
        if epoch <= runner.max_epochs - self.last:
            return
        models = {"weights": runner.model}
        models |= {name: average.module for name, average in self.averages.items()}
        for name, model in models.items():
            for part, numbers in evaluate(model, runner.val_dataloader).items():
                entry = dict(weights=name, epoch=epoch, part=part, AP=numbers["AP"])
                self.records.append(entry | {"AP75": numbers["AP75"], "AP90": numbers["AP90"]})


def evaluate(model, loader) -> dict[int, dict[str, float]]:
    """Return the numbers on the first images, for each number of images in PARTS."""
    model.eval()
    metric = CocoMetric()
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            metric.process(batch, model.val_step(batch))
    model.train()
    parts = [part for part in PARTS if part <= len(metric.results)]
    return {part: metric.compute_metrics(metric.results[:part]) for part in parts}


class FreeSampling(SeedHook):
    """Seeds only at the start of an epoch, as in most training loops."""

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        """Do not seed."""

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """Do not seed."""


def train(root: Path, loss: str, seed: int, args: argparse.Namespace) -> None:
    """Train one run, unless its file exists."""
    file = root / f"{loss}_{seed}.json"
    if file.is_file():
        return
    cfg = Config.fromfile(find_config("quickstart/retinanet_shapes"))
    cfg.work_dir = str(root / f"{loss}_{seed}")
    if args.faster_rcnn:
        cfg.model = ConfigDict(FASTER_RCNN)
        cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.model.loss_bbox = LOSSES[loss] | (dict(loss_weight=10.0) if args.faster_rcnn else {})
    if args.faster_rcnn and loss == "SmoothL1Loss":
        cfg.model.loss_bbox.loss_weight = 1.0
    cfg.randomness = dict(seed=seed)
    for name in ("train", "val"):
        loader = cfg[f"{name}_dataloader"]
        loader.dataset |= dict(data_root=str(root.parent / "shapes"), num_val=args.images)
        loader |= dict(num_workers=0, persistent_workers=False)
    cfg.train_cfg |= dict(max_epochs=args.epochs, val_interval=10**6)
    cfg.param_scheduler[0].end = args.warmup
    cfg.default_hooks.pop("run_record")
    cfg.default_hooks.checkpoint.interval = -1
    runner = build_runner(cfg)
    records: list = []
    momenta = {} if args.no_averages else MOMENTA
    runner.register_hook(EvaluateHook(records, args.last, momenta), priority="LOWEST")
    if args.free_sampling:
        runner._hooks = [FreeSampling() if type(h) is SeedHook else h for h in runner._hooks]
    runner.train()
    file.write_text(json.dumps(records))


def summary(roots: list[Path], longest: int) -> None:
    """Print the table."""
    print("| training | evaluated | images | AP | SD over seeds | SD of the difference | seeds |")
    print("|---|---|---|---|---|---|---|")
    for root in roots:
        files = root.glob("*.json")
        runs = {tuple(file.stem.rsplit("_", 1)): json.loads(file.read_text()) for file in files}
        seeds = sorted({s for _, s in runs if all((loss, s) in runs for loss in LOSSES)})
        known = {(r["weights"], r["part"]) for run in runs.values() for r in run}
        for last in sorted({1, longest}):
            for name in ("weights", *MOMENTA):
                for part in (part for part in PARTS if (name, part) in known):
                    ap = np.array(
                        [[value(runs[loss, s], name, part, last) for s in seeds] for loss in LOSSES]
                    )
                    spread = np.sqrt(ap.var(axis=1, ddof=1).mean())
                    what = name + (f", mean of the last {last} epochs" if last > 1 else "")
                    print(
                        f"| {root.name} | {what} | {part} | {ap.mean():.3f} | {spread:.4f} | "
                        f"{(ap[1] - ap[0]).std(ddof=1):.4f} | {len(seeds)} |"
                    )


def value(records: list, name: str, part: int, last: int) -> float:
    """Return the mean AP over the last epochs of one run."""
    own = [r for r in records if r["weights"] == name and r["part"] == part]
    return float(np.mean([r["AP"] for r in sorted(own, key=lambda r: r["epoch"])[-last:]]))


def main() -> None:
    """Train, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dirs", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--last", type=int, default=3, help="epochs that are evaluated")
    parser.add_argument("--images", type=int, default=1000, help="to evaluate on")
    parser.add_argument("--no-averages", action="store_true", help="without the moving averages")
    parser.add_argument("--faster-rcnn", action="store_true")
    parser.add_argument("--free-sampling", action="store_true")
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    if not args.summary:
        for seed in args.seeds:
            for loss in LOSSES:
                train(args.work_dirs[0].absolute(), loss, seed, args)
    summary(args.work_dirs, args.last)


if __name__ == "__main__":
    main()
