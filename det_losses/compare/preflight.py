"""All that can be checked before the first training, so that no run fails hours later."""

import gc
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from det_losses.compare.machine import describe_machine
from det_losses.compare.run import build_parts
from det_losses.compare.weights import NamedLoss
from det_losses.data.coco_json import load_coco_json
from det_losses.engine import build_runner
from det_losses.evaluation.table import count_boxes
from det_losses.models.slots import build_slot_losses
from det_losses.registry import DATASETS, MODELS, find


def check_component(cfg: Config, component: str) -> None:
    """Check that the detector has that slot.

    Raises:
        ValueError: it has not; the message names those that it has.
    """
    slots = _slots(cfg)
    if component not in slots:
        raise ValueError(
            f"--component {component}: {cfg.model.type} has the losses {', '.join(slots)}"
        )


def check_losses(cfg: Config, component: str, losses: Sequence[NamedLoss]) -> None:
    """Build every loss and check that the slot takes it.

    Raises:
        ValueError: the slot does not take it, or a parameter is out of range.
    """
    slot = {component: _slots(cfg)[component]}
    for loss in losses:
        build_slot_losses(cfg.model.type, slot, {component: loss.config})


def check_runner(cfg: Config, component: str, loss: NamedLoss) -> None:
    """Build everything of one run, without training.

    Raises:
        ValueError: and others, as the parts raise them.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Config(cfg.to_dict())
        trial.work_dir, trial.log_level = folder, "WARNING"
        trial.model[component] = ConfigDict(loss.config)
        build_parts(build_runner(trial))
    gc.collect()
    torch.cuda.empty_cache()  # the runs need the memory


def describe(cfg: Config, name: str) -> dict[str, Any]:
    """Return what results say of config, data, versions and hardware."""
    return {"config": name, **describe_data(cfg), **describe_machine()}


def describe_data(cfg: Config) -> dict[str, Any]:
    """Return classes, numbers of images, and counts of the boxes that the evaluation looks for."""
    train, val = (DATASETS.build(cfg[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    names = dict(zip(val.metainfo["category_ids"], val.metainfo["classes"], strict=True))
    images = set(val.image_ids)
    counts = count_boxes(
        [
            annotation
            for annotation in load_coco_json(val.ann_file)["annotations"]
            if annotation["image_id"] in images and annotation["category_id"] in names
        ],
        names,
    )
    return {
        "classes": list(names.values()),
        "images": {"train": len(train), "val": len(val)},
        "val_boxes": {**counts["areas"], "by_class": counts["classes"]},
    }


def _slots(cfg: Config) -> Mapping[str, Any]:
    slots = getattr(find(MODELS, cfg.model.type), "slots", None)
    if slots is None:
        raise ValueError(f"{cfg.model.type} is no detector with losses to be compared")
    return slots
