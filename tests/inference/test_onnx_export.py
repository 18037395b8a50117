import json

import numpy as np
import pytest
import torch
from small_detectors import BACKBONE, LEVELS
from small_weights import random_weights

from det_losses.errors import ExistingFileError
from det_losses.inference import TrainedDetector
from det_losses.inference.onnx_export import (
    Agreement,
    _agreement,
    compare_onnx,
    export_onnx,
    pattern,
)
from det_losses.models import FCOS, FasterRCNN, RetinaNet

COMMON = dict(backbone=BACKBONE, num_classes=3, min_size=64, max_size=96)
ANCHORS = dict(anchors=LEVELS, **COMMON)
ROI = dict(representation_size=16, roi_size=2, **ANCHORS)
POINTS = dict(anchor_sizes=(8, 16, 32), num_convs=1, **COMMON)
# every activation and every branch of each detector
CASES = {
    "retinanet sigmoid": (RetinaNet, dict(num_convs=1, **ANCHORS), {}),
    "retinanet softmax": (
        RetinaNet,
        dict(num_convs=1, **ANCHORS),
        {"loss_cls": "CrossEntropyLoss"},
    ),
    "fcos centerness": (FCOS, POINTS, {}),
    "fcos without centerness": (FCOS, POINTS, {"loss_cls": "VarifocalLoss"}),
    "gfl": (FCOS, POINTS, {"loss_cls": "QualityFocalLoss", "loss_dfl": "DistributionFocalLoss"}),
    "faster rcnn softmax": (FasterRCNN, ROI, {}),
    "faster rcnn sigmoid": (FasterRCNN, ROI, {"loss_cls": "FocalLoss"}),
}
SLOW = ("retinanet sigmoid", "fcos without centerness", "faster rcnn softmax")


def detector(model):
    return TrainedDetector(model, ("a", "b", "ç"), (1, 2, 3), [], torch.device("cpu"))


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES]
)
def test_onnx_runtime_finds_the_same_boxes_at_other_image_sizes(case, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    cls, arguments, losses = CASES[case]
    model = cls(**arguments, **{slot: {"type": name} for slot, name in losses.items()}).eval()
    trained = detector(random_weights(model))
    file = tmp_path / "a.onnx"
    export_onnx(trained, file)
    for size in ((90, 120), (150, 100)):
        agreement = compare_onnx(trained, file, pattern(*size))
        assert agreement.boxes[0] > 5 and agreement.holds, agreement
    properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(properties["classes"]) == ["a", "b", "ç"]
    with pytest.raises(ExistingFileError, match=r"exists and is not overwritten"):
        export_onnx(trained, file)


def test_agreement_matches_boxes_of_one_class_in_any_order():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.2], [50, 50, 60, 60]], np.float32)
    ours = dict(boxes=boxes, scores=np.array([0.9, 0.9, 0.5]), labels=np.array([0, 1, 1]))
    theirs = {name: values[[1, 0, 2]] for name, values in ours.items()}
    assert _agreement(ours, theirs) == Agreement((3, 3), 0.0, 0.0)
    theirs["boxes"] = theirs["boxes"] + 0.05
    assert _agreement(ours, theirs).box_difference == pytest.approx(0.05, abs=1e-5)
    theirs["labels"] = np.array([0, 0, 1])
    assert not _agreement(ours, theirs).holds


@pytest.mark.parametrize(
    ("agreement", "holds"),
    [
        (Agreement((3, 3), 0.01, 1e-5), True),
        (Agreement((3, 2), 0.0, 0.0), False),
        (Agreement((3, 3), 0.5, 0.0), False),
        (Agreement((3, 3), 0.0, 0.01), False),
    ],
)
def test_agreement(agreement, holds):
    assert agreement.holds is holds
