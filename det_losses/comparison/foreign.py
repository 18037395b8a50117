"""Runs that another program trains: their config, their data as files, the record of their results.

What such a run cannot show is not recorded: the hash of its initial weights, and which losses it
called. The report says so.
"""

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from det_losses.comparison.plan import Plan, PlannedRun
from det_losses.comparison.preflight import ground_truth
from det_losses.comparison.trainer import Trainer, TrainingRun, build_trainer, is_foreign
from det_losses.engine.config import folds_of, read_config, select_fold, use_labels
from det_losses.engine.run import HISTORY_FILE, METRICS_FILE
from det_losses.errors import InputError
from det_losses.evaluation.backends import hotcoco_curves
from det_losses.evaluation.ground_truth import GroundTruth, suspect
from det_losses.evaluation.metrics import MAX_DETS
from det_losses.evaluation.result_file import read_detections
from det_losses.evaluation.summary import coco_numbers
from det_losses.files import finite, read_whole_json, write_json, write_text
from det_losses.losses.core.text import loss_text
from det_losses.options.comparison import DEFAULTS, ComparisonOptions
from det_losses.registry import DATASETS

_SHARED = ("train_dataloader", "val_dataloader", "val_evaluator", "custom_imports")
# Options of the training itself, which only this package's engine has.
_OF_ENGINE = (
    "device",
    "match_weights",
    "screen",
    "fork_at",
    "amp",
    "weights_from",
    "fit_anchors",
    "tensorboard",
)


def starting_config(options: ComparisonOptions) -> Config:
    """Return the config of CONFIG; with --command, its data and metric, trained by the command.

    With --command and no CONFIG, the data is that of the options.

    Raises:
        InputError: neither of both is given, data is missing, or an option is of this package's
            engine, which does not train.
    """
    cfg = _with_command(options)
    if not is_foreign(cfg):
        return cfg
    for option in options.cfg_options:
        if option.split(".")[0] not in cfg:
            raise InputError(f"--cfg-options {option}: the trainer does not read this key")
    given = [name for name in _OF_ENGINE if getattr(options, name) != DEFAULTS[name]]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"{names}: only this package's engine has such an option, but the runs are trained by "
            f"{build_trainer(cfg).description}; leave it out, or let the trainer do it"
        )
    return cfg


def _with_command(options: ComparisonOptions) -> Config:
    if options.command is None:
        if options.detections_file != DEFAULTS["detections_file"]:
            raise InputError("--detections-file requires --command")
        if options.config is None:
            raise InputError("give CONFIG, or --command with the data of the options")
        return read_config(options.config)
    if options.config is not None:
        cfg = read_config(options.config)
        if is_foreign(cfg):
            raise InputError(f"--command: {options.config} has a trainer of its own")
        own = {key: cfg[key] for key in _SHARED if key in cfg}
    else:
        if not options.train_ann or not (options.val_ann or options.folds):
            raise InputError(
                "--command without CONFIG requires --train-ann and --train-images, and --val-ann "
                "and --val-images or --folds"
            )
        own = {f"{split}_dataloader": {"dataset": _coco(split)} for split in ("train", "val")}
        own["val_evaluator"] = dict(type="CocoMetric")
    trainer = dict(
        type="CommandTrainer", command=options.command, detections_file=options.detections_file
    )
    _check_command(options, trainer)
    return Config({**own, "trainer": trainer})


def _coco(split: str) -> dict[str, Any]:
    return dict(type="CocoDataset", **({"test_mode": True} if split == "val" else {}))


def _check_command(options: ComparisonOptions, trainer: Mapping[str, Any]) -> None:
    """Check that the runs of a command differ, and that their files do."""
    names = build_trainer(Config({"trainer": trainer})).names
    if not {"loss", "label"} & names and options.component not in names:
        raise InputError("--command has neither {loss} nor {label}, so all variants are the same")
    if options.cross and not {"label", options.cross[0]} & names:
        raise InputError(f"--command has no {{{options.cross[0]}}}, which --cross compares")
    if "work_dir" not in names:
        raise InputError(
            "--command has no {work_dir}, the directory of the run, in which it leaves "
            f"{options.detections_file}"
        )


@dataclass(frozen=True)
class RunData:
    """The data of the runs as COCO json: the images and boxes of the datasets in the config.

    Attributes:
        folder: where the files are.
        files: name -> content, of the files to be written.
        train_images: folder of the training images.
        val_images: folder of the evaluated images.
        folds: number of folds; None without.
    """

    folder: Path
    files: Mapping[str, dict[str, Any]]
    train_images: Path
    val_images: Path
    folds: int | None = None

    @classmethod
    def of(cls, cfg: Config, root: Path) -> "RunData":
        """Return the data of a config.

        Raises:
            UserError: a dataset cannot be read, or is a wrapper.
        """
        own, folds = copy.deepcopy(cfg), folds_of(cfg)
        select_fold(own, None)
        own.train_dataloader.dataset.update(test_mode=True, transforms=[])
        train = DATASETS.build(own.train_dataloader.dataset)
        if not (hasattr(train, "ground_truth") and hasattr(train, "image_dir")):
            raise InputError(
                f"train_dataloader: {own.train_dataloader.dataset.type} cannot be written as a "
                "COCO json for the trainer; use one CocoDataset"
            )
        whole, images = ground_truth(train), Path(train.image_dir).absolute()
        folder = root.absolute() / "data"
        if folds:
            files = {}
            for index in range(folds.count):
                files[_train_name(index)] = _part(whole, index, inside=False)
                files[_val_name(index)] = _part(whole, index, inside=True)
            return cls(folder, files, images, images, folds.count)
        use_labels(own, train.metainfo["classes"])
        val = DATASETS.build(own.val_dataloader.dataset)
        files = {_train_name(None): whole, _val_name(None): ground_truth(val)}
        return cls(folder, files, images, Path(val.image_dir).absolute())

    def of_seed(self, seed: int) -> dict[str, Path]:
        """Return the entries of a :class:`TrainingRun` with the data of a seed."""
        fold = seed % self.folds if self.folds else None
        return {
            "train_ann": self.folder / _train_name(fold),
            "train_images": self.train_images,
            "val_ann": self.folder / _val_name(fold),
            "val_images": self.val_images,
        }

    def write(self) -> None:
        """Write the files that are missing or damaged.

        Raises:
            InputError: a file has other data, which the runs before were trained on.
        """
        for name, content in self.files.items():
            file, new = self.folder / name, json.loads(json.dumps(finite(content)))
            stored = read_whole_json(file)
            if stored is None:
                write_json(file, new)
            elif stored != new:
                raise InputError(
                    f"{file}: the data has changed since this comparison was started; give "
                    "another --work-dir"
                )


def _train_name(fold: int | None) -> str:
    return "train.json" if fold is None else f"train_without_fold_{fold}.json"


def _val_name(fold: int | None) -> str:
    return "val.json" if fold is None else f"val_fold_{fold}.json"


def _part(coco: Mapping[str, Any], fold: int, *, inside: bool) -> dict[str, Any]:
    """Return the part of a COCO json with the images of a fold, or of all others."""
    images = [image for image in coco["images"] if (image["fold"] == fold) == inside]
    ids = {image["id"] for image in images}
    boxes = [box for box in coco["annotations"] if box["image_id"] in ids]
    return {**coco, "images": images, "annotations": boxes}


def training_run(
    run: PlannedRun,
    config: Config,
    data: RunData | None = None,
    *,
    resume: bool = False,
    start: Path | None = None,
) -> TrainingRun:
    """Return what a trainer is told about a run.

    Args:
        run: the run.
        config: its config.
        data: the data as files; None: the trainer reads it as the config says.
        resume: whether an earlier attempt was interrupted or failed.
        start: the checkpoint of another run from which it starts.
    """
    paths = dict.fromkeys(("train_ann", "train_images", "val_ann", "val_images"))
    return TrainingRun(
        label=run.variant.label,
        losses=_losses(run),
        seed=run.seed,
        work_dir=run.work_dir.absolute() if data else run.work_dir,
        config=config,
        resume=resume,
        start=start,
        **(data.of_seed(run.seed) if data else paths),
    )


def _losses(run: PlannedRun) -> dict[str, str]:
    """Return slot -> loss as text: as it was typed, unless its weight has been multiplied."""
    typed = run.variant.factors if run.variant.weight.get("multiple") == 1.0 else {}
    return {
        slot: typed.get(slot) or loss_text(value)
        for key, value in run.variant.changes.items()
        if (slot := key.removeprefix("model.")).startswith("loss_") and isinstance(value, Mapping)
    }


def check_runs(cfg: Config, plan: Plan, data: RunData, root: Path) -> None:
    """Let the trainer of each variant check its first run, and make its command.

    Raises:
        UserError: a run cannot be trained.
    """
    for run in replace(plan, seeds=plan.seeds[:1]).runs(root):
        config = run.config(cfg)
        trainer, told = build_trainer(config), training_run(run, config, data)
        trainer.check(told)
        trainer.command(told)


def write_record(
    run: TrainingRun, trainer: Trainer, metric: Mapping[str, Any], seconds: float
) -> list[str]:
    """Evaluate the result files of a run, and write its ``metrics.json`` and ``history.jsonl``.

    Args:
        run: what the trainer was told.
        trainer: the trainer.
        metric: config of the metric.
        seconds: time that the command took.

    Returns:
        A sentence if the boxes look wrong.

    Raises:
        UserError: a file is missing or invalid, or has no detections.
    """
    file = trainer.detections(run)
    if not file.is_file():
        raise InputError(f"the command ended without an error, but left no {file}")
    truth = json.loads(run.val_ann.read_text(encoding="utf-8"))
    found = read_detections(file, GroundTruth(truth))
    if not len(found):
        raise InputError(f"{file} has no detections")
    max_dets = metric.get("max_dets", MAX_DETS)
    if not (run.work_dir / HISTORY_FILE).is_file():
        _write_history(run, trainer, truth, max_dets)
    record = {
        "status": "done",
        "trained_by": trainer.description,
        "seed": run.seed,
        "detections": os.path.relpath(file, run.work_dir),
        "metrics": _metrics(truth, found, max_dets),
        "train_seconds": seconds,
    }
    write_json(run.work_dir / METRICS_FILE, record, indent=2)
    return suspect(truth, found)


def _write_history(
    run: TrainingRun, trainer: Trainer, truth: dict[str, Any], max_dets: int
) -> None:
    """Write a line for each earlier evaluation."""
    lines = []
    for step, file in sorted(trainer.evaluations(run).items()):
        found = read_detections(file, GroundTruth(truth))
        metrics = _metrics(truth, found, max_dets)
        line = {"kind": "val", "step": step, "epoch": None, "seconds": None, "metrics": metrics}
        lines.append(json.dumps(line) + "\n")
    if lines:
        write_text(run.work_dir / HISTORY_FILE, "".join(lines))


def _metrics(truth: dict[str, Any], found: np.ndarray, max_dets: int) -> dict[str, float | None]:
    names = {category["id"]: category["name"] for category in truth["categories"]}
    limits = (1, 10, max_dets)
    curves = hotcoco_curves(truth, found, limits)
    return finite(coco_numbers(curves, [names[key] for key in sorted(names)], limits))
