import copy
import json
from pathlib import Path

import pytest

from det_losses.compare.preflight import check_losses, describe, describe_data
from det_losses.compare.variants import Variant, select


def test_a_loss_that_does_not_fit_its_slot_is_an_error(cfg):
    check_losses(cfg, select(cfg, ["GIoULoss"]).variants)
    with pytest.raises(ValueError, match="takes a box loss, and FocalLoss"):
        check_losses(cfg, select(cfg, ["GIoULoss", "FocalLoss"]).variants)
    # A whole variant is checked in the slots that it changes.
    check_losses(cfg, [Variant("deep", {"model.num_convs": 3})])


def test_the_facts_are_those_of_the_validation_file(shapes):
    facts = describe(shapes)
    file = Path(shapes.val_dataloader.dataset.data_root) / "val.json"
    coco = json.loads(file.read_text())
    assert facts["images"] == {"train": 160, "val": 4}
    assert facts["classes"] == [category["name"] for category in coco["categories"]]
    areas = [box["area"] for box in coco["annotations"]]
    counts = facts["val_boxes"]
    assert counts["all"] == sum(counts["by_class"].values()) == len(areas)
    assert counts["small"] == sum(area <= 32**2 for area in areas)
    assert counts["large"] == 0  # in images of 64 x 64 pixels
    truth = facts["ground_truth"]
    assert [image["id"] for image in truth["images"]] == [image["id"] for image in coco["images"]]
    boxes = sorted((box["image_id"], box["bbox"]) for box in truth["annotations"])
    assert boxes == sorted((box["image_id"], box["bbox"]) for box in coco["annotations"])
    assert facts["data_notes"] == {}  # nothing in this data is dropped
    assert {"det_losses", "python", "torch", "torchvision"} <= facts["versions"].keys()


def test_repeated_images_count_once(shapes):
    cfg = copy.deepcopy(shapes)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=3, dataset=inner)
    facts = describe_data(cfg)
    assert facts["images"]["train"] == 160 and facts["epoch_samples"] == 3 * 160
