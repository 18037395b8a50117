"""All that can be checked before the first training, so that no run fails hours later."""

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from det_losses.compare.machine import describe_machine
from det_losses.compare.variants import Variant, slots_of
from det_losses.engine import build_runner
from det_losses.engine.run import build_parts
from det_losses.evaluation.ground_truth import ground_truth_json
from det_losses.evaluation.summary import count_boxes
from det_losses.models.slots import build_slot_losses
from det_losses.registry import DATASETS


def check_component(cfg: Config, component: str, option: str = "--component") -> None:
    """Check that the detector has that slot.

    Raises:
        ValueError: it has not; the message names those that it has.
    """
    slots = slots_of(cfg)
    if component not in slots:
        raise ValueError(
            f"{option} {component}: {cfg.model.type} has the losses {', '.join(slots)}"
        )


def check_losses(cfg: Config, variants: Sequence[Variant]) -> None:
    """Build the losses of every variant and check that their slots take them.

    Raises:
        ValueError: a slot does not take its loss, or a parameter is out of range.
    """
    slots = slots_of(cfg)
    for variant in variants:
        own = {
            slot: variant.changes[f"model.{slot}"]
            for slot in slots
            if f"model.{slot}" in variant.changes
        }
        classes = cfg.model.get("num_classes") or 1
        build_slot_losses(cfg.model.type, {slot: slots[slot] for slot in own}, own, classes)


def check_runner(cfg: Config, variant: Variant) -> None:
    """Build everything of one run, without training.

    Raises:
        ValueError: and others, as the parts raise them.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = variant.apply(cfg)
        trial.work_dir, trial.log_level = folder, "WARNING"
        build_parts(build_runner(trial))
    gc.collect()
    torch.cuda.empty_cache()  # the runs need the memory


def describe(cfg: Config, name: str) -> dict[str, Any]:
    """Return what results say of config, data, versions and hardware."""
    return {"config": name, **describe_data(cfg), **describe_machine()}


def describe_data(cfg: Config) -> dict[str, Any]:
    """Return classes, numbers of images, and counts of the boxes that the evaluation looks for."""
    train, val = (DATASETS.build(cfg[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    truth = ground_truth(val)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = count_boxes(truth["annotations"], names)
    return {
        "classes": list(names.values()),
        "images": {"train": len(train), "val": len(val)},
        "image_dir": str(Path(val.image_dir).absolute()) if hasattr(val, "image_dir") else None,
        "val_boxes": {**counts["areas"], "by_class": counts["classes"]},
        "ground_truth": truth,
    }


def ground_truth(dataset: Any) -> dict[str, Any]:
    """Return the COCO json of exactly what an evaluation on this dataset looks for."""
    names = dict(zip(dataset.metainfo["category_ids"], dataset.metainfo["classes"], strict=True))
    if hasattr(dataset, "ground_truth"):
        found = [dataset.ground_truth(index) for index in range(len(dataset))]
    else:
        found = [dataset[index][1]["coco"] for index in range(len(dataset))]
    return ground_truth_json(found, names)
