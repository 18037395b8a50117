"""Checks before the first training, and the facts that results record."""

import copy
import gc
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from det_losses.comparison.trainer import is_foreign
from det_losses.comparison.variants import Variant, slots_of
from det_losses.data.split_checks import beyond_max_dets, data_notes
from det_losses.engine.build import build_runner
from det_losses.engine.config import entries, folds_of, select_fold, use_labels
from det_losses.engine.coverage import notes_before_training
from det_losses.engine.device import uses_cuda
from det_losses.engine.loss_record import matches_config
from det_losses.engine.pretrained import loaded_lines
from det_losses.engine.run import build_parts
from det_losses.errors import InputError, UserError, printable
from det_losses.evaluation.ground_truth import ground_truth_json
from det_losses.evaluation.metrics import MAX_DETS
from det_losses.evaluation.summary import count_boxes
from det_losses.models.published import table_of
from det_losses.models.slots import build_slot_losses
from det_losses.registry import DATASETS
from det_losses.versions import versions


def check_losses(cfg: Config, variants: Sequence[Variant]) -> None:
    """Build the losses of every variant and check that their slots accept them.

    Raises:
        UserError: a slot does not accept its loss, or a parameter is out of range.
    """
    for variant in variants:
        model = variant.apply(cfg).model
        slots = {k: slot for k, slot in slots_of(cfg).items() if f"model.{k}" in variant.changes}
        losses = {name: model[name] for name in slots}
        classes = model.get("num_classes") or 1
        built, _ = build_slot_losses(model.type, slots, losses, classes, table_of(model))
        for slot, loss in built.items():
            _check_parameters(slot, losses[slot], loss)


def _check_parameters(slot: str, config: Any, loss: nn.Module) -> None:
    """Check that a loss can show its parameters, as each run does before its first step.

    Raises:
        InputError: it cannot, so a run could not prove that it trained with this loss.
    """
    try:
        same, reason = matches_config(config, loss), "they differ from those that it was given"
    except Exception as error:  # of a loss of another package
        same, reason = False, f"{type(error).__name__}: {error}"
    if not same:
        raise InputError(
            f"{slot}: {type(loss).__name__} cannot show its parameters ({reason:.200}). Store each "
            "argument of the constructor in an attribute of the same name; **kwargs has none"
        )


def check_runner(cfg: Config, variant: Variant) -> dict[str, tuple[int, ...]]:
    """Build all objects of one run, without training.

    Returns:
        Name -> shape of its model's parameters, and of the buffers outside of losses.

    Raises:
        UserError: as the parts raise it.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = variant.apply(cfg)
        trial.work_dir, trial.log_level = folder, "WARNING"
        runner = build_runner(trial)
        for is_warning, line in loaded_lines(runner.model):
            if not is_warning:  # the runner's logger shows warnings
                print(printable(f"{variant.label}: {line}"))
        build_parts(runner)
        _try_evaluation(runner)
        shapes = {name: tuple(value.shape) for name, value in runner.model.named_parameters()}
        for name, value in runner.model.named_buffers():
            if not name.startswith("losses."):
                shapes[name] = tuple(value.shape)
        del runner
    gc.collect()
    torch.cuda.empty_cache()  # the runs need the memory
    return shapes


def _try_evaluation(runner: Runner) -> None:
    """Evaluate one image with the untrained model.

    Raises:
        InputError: it fails, as each run would after its first epoch.
    """
    loader = runner.val_dataloader
    batch = loader.collate_fn([loader.dataset[0]])
    runner.model.eval()
    try:
        with torch.no_grad():
            runner.model.val_step(batch)
    except UserError:
        raise
    except Exception as error:
        raise InputError(
            f"the model cannot evaluate the first validation image: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. Check the settings of the model"
        ) from error


def evaluator(cfg: Config) -> dict[str, Any]:
    """Return the config of the metric whose detections and numbers a comparison uses.

    Raises:
        InputError: there is no CocoMetric or several of them, or its metrics have a prefix.
    """
    every = entries(cfg.get("val_evaluator"))
    found = [each for each in every if str(each.get("type", "")).split(".")[-1] == "CocoMetric"]
    if len(found) != 1:
        names = ", ".join(str(each.get("type")) for each in every) or "none"
        raise InputError(
            f"val_evaluator: a comparison needs exactly one CocoMetric, which writes the "
            f"detections that the statistics use; the config has {names}"
        )
    if found[0].get("prefix"):
        raise InputError(
            f"val_evaluator.prefix={found[0].prefix!r} renames the metrics that a comparison "
            "reads; remove it"
        )
    return found[0]


def describe(cfg: Config) -> dict[str, Any]:
    """Return the facts about data, metric, versions and hardware."""
    max_dets = evaluator(cfg).get("max_dets", MAX_DETS)
    machine = describe_machine()
    if is_foreign(cfg):
        del machine["hardware"]["memory"]  # which is not recorded
    return {**describe_data(cfg), "max_dets": max_dets, **machine}


def describe_data(cfg: Config) -> dict[str, Any]:
    """Return classes, numbers of images and boxes, folds, and the evaluation's ground truth.

    With folds, the training images are those of one run, the evaluated images those of all runs.
    The ground truth has the ``fold`` of each image.
    """
    folds, evaluated = folds_of(cfg), copy.deepcopy(cfg)
    select_fold(evaluated, None)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    use_labels(evaluated, train.metainfo["classes"])
    val = DATASETS.build(evaluated.val_dataloader.dataset)
    truth = ground_truth(val)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = count_boxes(truth["annotations"], names)
    other = None if folds else val  # folds: of one run
    foreign = is_foreign(cfg)
    notes = data_notes(train, other) if foreign else notes_before_training(cfg.model, train, other)
    if remarks := beyond_max_dets(val, evaluator(cfg).get("max_dets", MAX_DETS)):
        notes.setdefault("val", []).extend(remarks)
    return {
        "classes": list(names.values()),
        "images": {"train": count_images(train), "val": count_images(val)},
        "epoch_samples": len(train),
        **({"folds": {"count": folds.count, "key": folds.key}} if folds else {}),
        "image_dir": str(Path(val.image_dir).absolute()) if hasattr(val, "image_dir") else None,
        "val_boxes": {**counts["areas"], "by_class": counts["classes"]},
        "data_notes": notes,
        "ground_truth": truth,
    }


def count_images(dataset: Any) -> int:
    """Return the number of different images; a dataset may repeat them within an epoch."""
    return getattr(dataset, "num_images", len(dataset))


def ground_truth(dataset: Any) -> dict[str, Any]:
    """Return the COCO json of exactly the images and boxes that are evaluated."""
    names = dict(zip(dataset.metainfo["category_ids"], dataset.metainfo["classes"], strict=True))
    if hasattr(dataset, "ground_truth"):
        found = [dataset.ground_truth(index) for index in range(len(dataset))]
    else:
        found = [dataset[index][1]["coco"] for index in range(len(dataset))]
    return ground_truth_json(found, names)


def describe_machine() -> dict[str, Any]:
    """Return ``versions`` and ``hardware``."""
    count = torch.cuda.device_count() if uses_cuda() else 0
    gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    return {
        "versions": versions(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
            "memory": "peak memory is the memory allocated on the GPU"
            if gpus
            else "peak memory is the resident memory of the training process",
        },
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
