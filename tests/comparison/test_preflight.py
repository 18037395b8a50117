import copy
import json
from collections import Counter
from pathlib import Path

import pytest

from det_losses.comparison.preflight import (
    check_losses,
    check_runner,
    describe,
    describe_data,
    evaluator,
)
from det_losses.comparison.variants import Variant, select
from det_losses.errors import UserError
from det_losses.losses import L1Loss
from det_losses.models import RetinaNet
from det_losses.registry import MODELS


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
    assert facts["max_dets"] == 100
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
    assert list(facts["data_notes"]) == ["anchors"]  # nothing is dropped; anchors are for 96 px
    assert {"det_losses", "python", "torch", "torchvision"} <= facts["versions"].keys()


def test_more_objects_than_evaluated_detections_are_told_before_training(shapes):
    cfg = copy.deepcopy(shapes)
    cfg.val_evaluator.max_dets = 1  # too few for an evaluation, but most images have more objects
    coco = json.loads((Path(cfg.val_dataloader.dataset.data_root) / "val.json").read_text())
    cells = Counter((box["image_id"], box["category_id"]) for box in coco["annotations"])
    crowded = {image for (image, _), count in cells.items() if count > 1}
    (note,) = describe_data(cfg)["data_notes"]["val"]
    assert f"val.json: {len(crowded)} of 4 evaluated images ha" in note and crowded


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "needs exactly one CocoMetric, .* the config has none"),
        ([{"type": "VOCMetric"}], "the config has VOCMetric"),
        ([{"type": "CocoMetric"}, {"type": "CocoMetric", "prefix": "b"}], "exactly one CocoMetric"),
        ({"type": "CocoMetric", "prefix": "val"}, "val_evaluator.prefix='val' renames the metrics"),
    ],
)
def test_a_metric_that_the_report_cannot_use_is_found_before_training(cfg, metrics, message):
    cfg.val_evaluator = metrics
    with pytest.raises(ValueError, match=message):
        evaluator(cfg)


class ForwardingLoss(L1Loss):
    """A loss of a user whose constructor has arguments without a name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class ForgetfulLoss(L1Loss):
    """A loss of a user that stores something other than its argument."""

    def __init__(self, factor=1.0, **given):
        super().__init__(**given)
        self.double = 2 * factor


def test_a_loss_that_cannot_show_its_parameters_is_found_before_training(cfg, monkeypatch):
    for cls in (ForwardingLoss, ForgetfulLoss):
        monkeypatch.setitem(MODELS._module_dict, cls.__name__, cls)
    check_losses(cfg, select(cfg, ["ForwardingLoss"]).variants)  # its base class stores them
    with pytest.raises(UserError, match=r"ForgetfulLoss .*does not store factor"):
        check_losses(cfg, select(cfg, ["ForgetfulLoss(factor=3.0)"]).variants)


def test_an_evaluation_is_tried_before_training(shapes, monkeypatch):
    def broken(self, result):
        raise TypeError("no such class")

    check_runner(shapes, Variant("as it is", {}))
    monkeypatch.setattr(RetinaNet, "_to_classes", broken)
    message = "cannot evaluate the first validation image: TypeError: no such class"
    with pytest.raises(ValueError, match=message):
        check_runner(shapes, Variant("broken", {}))


def test_repeated_images_count_once(shapes):
    cfg = copy.deepcopy(shapes)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=3, dataset=inner)
    facts = describe_data(cfg)
    assert facts["images"]["train"] == 160 and facts["epoch_samples"] == 3 * 160
