"""Shared by all tests: one thread, the real COCO subset, a tiny COCO dataset."""

import atexit
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from det_losses.paths import configs_root

# Doctests are collected from modules, of which only one may be called conftest.
collect_ignore_glob = ["*conftest.py"]

torch.set_num_threads(1)
# Background jobs of a shell ignore Ctrl-C, but some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What the tests remember of images must not depend on what earlier ones did.
os.environ["DET_LOSSES_CACHE"] = tempfile.mkdtemp(prefix="det_losses_cache.")
atexit.register(shutil.rmtree, os.environ["DET_LOSSES_CACHE"], ignore_errors=True)

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def coco_subset() -> Path:
    """Folder of real COCO images (images/, instances_train.json, instances_val.json), or a skip."""
    default = REPO.parent / "shared" / "data" / "coco_subset"
    folder = Path(os.environ.get("DET_LOSSES_COCO_SUBSET", default))
    if not (folder / "instances_val.json").is_file():
        pytest.skip(f"no COCO subset at {folder}; set DET_LOSSES_COCO_SUBSET to its folder")
    return folder


class TinyCoco(NamedTuple):
    ann_file: str
    image_dir: str


# Ids with gaps and out of order, as COCO's own have gaps: label 0 is category 3.
TINY_CATEGORIES = ({"id": 18, "name": "bird"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"})
TINY_COLOURS = {3: (220, 40, 40), 7: (40, 200, 60), 18: (50, 70, 230)}
# image id, width, height, then (category, [x, y, w, h], iscrowd) of each box
TINY_IMAGES = (
    (11, 96, 64, ((3, [10, 8, 40, 20], 0), (7, [60, 30, 20, 30], 0))),
    (5, 64, 96, ((7, [6, 10, 50, 25], 0),)),
    (42, 80, 80, ()),
    (8, 96, 64, ((3, [5, 5, 24, 48], 0), (3, [40, 10, 45, 20], 0), (18, [50, 35, 30, 24], 0))),
    (20, 64, 64, ((18, [0, 0, 64, 40], 1),)),
    (33, 100, 60, ((18, [70, 5, 25, 45], 0), (7, [5, 20, 50, 30], 1))),
)


@pytest.fixture
def tiny_coco(tmp_path) -> Callable[..., TinyCoco]:
    """Factory of a COCO set of six small images: ``tiny_coco()`` -> (ann_file, image_dir).

    Cats are red, dogs green, birds blue rectangles on grey. Image 42 has no box, image 20 only a
    crowd, image 33 a box and a crowd. ``change(json dict)`` edits the json before it is written.
    """

    def make(
        name: str = "tiny",
        images: Sequence[tuple] = TINY_IMAGES,
        change: Callable[[dict[str, Any]], Any] | None = None,
    ) -> TinyCoco:
        folder = tmp_path / name / "images"
        folder.mkdir(parents=True)
        coco = {"images": [], "annotations": [], "categories": [dict(c) for c in TINY_CATEGORIES]}
        for image_id, width, height, boxes in images:
            pixels = np.full((height, width, 3), 110, np.uint8)
            file_name = f"{image_id:06d}.png"
            for category, (x, y, w, h), crowd in boxes:
                pixels[y : y + h, x : x + w] = TINY_COLOURS[category]
                entry = dict(category_id=category, bbox=[x, y, w, h], area=w * h, iscrowd=crowd)
                number = len(coco["annotations"]) + 1
                coco["annotations"].append(dict(id=number, image_id=image_id, **entry))
            entry = dict(id=image_id, file_name=file_name, width=width, height=height)
            coco["images"].append(entry)
            Image.fromarray(pixels).save(folder / file_name)
        if change:
            change(coco)
        ann_file = tmp_path / name / "instances.json"
        ann_file.write_text(json.dumps(coco))
        return TinyCoco(str(ann_file), str(folder))

    return make


TINY_CONFIG = """
_base_ = [{runtime!r}]
model = dict(
    type="RetinaNet",
    backbone=dict(type="SmallResNetFPN", widths=(4, 8, 8, 8), out_channels=8),
    num_convs=1,
    anchors=dict(sizes=((16,), (32,), (64,)), aspect_ratios=(1.0,)),
    min_size=64,
    max_size=64,
)
train_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(type="CocoDataset", ann_file={ann_file!r}, image_dir={image_dir!r}),
)
val_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="CocoDataset", ann_file={ann_file!r}, image_dir={image_dir!r}, test_mode=True
    ),
)
val_evaluator = dict(type="CocoMetric")
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
randomness = dict(seed=0)
"""


@pytest.fixture
def tiny_config(tiny_coco, tmp_path):
    """A config file: a RetinaNet on ``tiny_coco``, so small that a run takes seconds."""
    ann_file, image_dir = tiny_coco()
    runtime = str(configs_root() / "_base_" / "runtime.py")
    file = tmp_path / "tiny_retinanet.py"
    file.write_text(TINY_CONFIG.format(runtime=runtime, ann_file=ann_file, image_dir=image_dir))
    return file
