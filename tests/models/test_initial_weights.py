"""The initial weights of a detector do not depend on its losses."""

import random

import numpy as np
import pytest
import torch

from det_losses.losses import Loss
from det_losses.models import FasterRCNN, RetinaNet
from det_losses.registry import MODELS

BACKBONE = {"type": "SmallResNetFPN", "widths": (8, 8, 16, 16), "out_channels": 16}
ANCHORS = {"sizes": [[16], [32]], "aspect_ratios": [0.5, 2.0]}
FIVE_LEVELS = {
    "type": "SmallResNetFPN",
    "widths": [8] * 5,
    "out_channels": 8,
    "extra_levels": "p6p7",
}
CLASSES = 3


@pytest.fixture(autouse=True)
def drawing_loss(monkeypatch):
    """Register a loss whose constructor draws from all random generators."""

    class DrawingLoss(Loss):
        kind, space, paper = "box", "delta", ""

        def __init__(self, *, reduction="mean", loss_weight=1.0):
            super().__init__(reduction=reduction, loss_weight=loss_weight)
            self.register_buffer("drawn", torch.rand(random.randint(1, 9) + np.random.randint(9)))

    monkeypatch.setitem(MODELS.module_dict, "DrawingLoss", DrawingLoss)


def retinanet(**losses):
    torch.manual_seed(5)
    return RetinaNet(
        BACKBONE | {"extra_levels": None}, CLASSES, anchors=ANCHORS, head_norm="GN", **losses
    )


def faster_rcnn(**losses):
    torch.manual_seed(5)
    return FasterRCNN(
        BACKBONE | {"extra_levels": None}, CLASSES, anchors=ANCHORS, representation_size=8, **losses
    )


def softmax_rows(kind, weight):
    """Return the channels of the classes, without the background, in the sigmoid's order."""
    if kind == "retinanet":  # two anchors per location, background last
        return weight.unflatten(0, (2, CLASSES + 1))[:, :-1].flatten(0, 1)
    return weight[len(weight) // (CLASSES + 1) :]  # background first


@pytest.mark.parametrize("build", [retinanet, faster_rcnn])
def test_a_loss_whose_constructor_draws_does_not_change_weights(build):
    plain, drawing = build(), build(loss_bbox="DrawingLoss")
    after = torch.rand(3)
    plain, drawing = (model.detector.state_dict() for model in (plain, drawing))
    assert plain.keys() == drawing.keys()
    assert all(torch.equal(value, drawing[name]) for name, value in plain.items())
    build()
    assert torch.equal(torch.rand(3), after)


def test_the_draws_of_a_loss_depend_on_the_seed():
    # The generator states are restored, not seeded, so another seed gives other numbers.
    torch.manual_seed(1)
    first = RetinaNet(FIVE_LEVELS, CLASSES, loss_bbox="DrawingLoss").losses["loss_bbox"].drawn
    torch.manual_seed(2)
    second = RetinaNet(FIVE_LEVELS, CLASSES, loss_bbox="DrawingLoss").losses["loss_bbox"].drawn
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("build", "softmax", "sigmoid"),
    [
        (retinanet, "CrossEntropyLoss", "FocalLoss"),
        (faster_rcnn, "CrossEntropyLoss", "BinaryCrossEntropyLoss"),
    ],
)
def test_softmax_and_sigmoid_share_all_weights_except_the_backgrounds(build, softmax, sigmoid):
    softmax = build(loss_cls=softmax).detector.state_dict()
    after = torch.rand(3)
    sigmoid = build(loss_cls=sigmoid).detector.state_dict()
    assert torch.equal(torch.rand(3), after)
    assert softmax.keys() == sigmoid.keys()
    other_shape = {name for name in softmax if softmax[name].shape != sigmoid[name].shape}
    if build is retinanet:
        last = {"head.classification_head.cls_logits"}
    else:
        last = {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}
    assert other_shape == {f"{name}.{part}" for name in last for part in ("weight", "bias")}
    for name, value in softmax.items():
        if name in other_shape and not name.endswith(("cls_logits.bias", "cls_score.bias")):
            value = softmax_rows(build.__name__, value)
        elif name in other_shape:
            continue  # set from the prior, which differs for softmax
        assert torch.equal(value, sigmoid[name]), name


def test_the_last_layers_keep_torchvisions_distribution():
    # RetinaNet's class layer: a normal distribution of deviation 0.01 for classes and background.
    weight = retinanet(loss_cls="CrossEntropyLoss").detector.head.classification_head.cls_logits
    background = weight.weight.unflatten(0, (2, CLASSES + 1))[:, -1]
    assert background.std().item() == pytest.approx(0.01, rel=0.15)  # 288 draws
    assert background.mean().abs().item() < 0.002
    # The RoI head's layers: uniform within 1 / sqrt(8 inputs).
    predictor = faster_rcnn(loss_cls="FocalLoss").detector.roi_heads.box_predictor
    assert predictor.bbox_pred.out_features == len(predictor.bbox_pred.weight) == 4 * CLASSES
    assert predictor.bbox_pred.weight.abs().max() <= 8**-0.5
    assert predictor.bbox_pred.weight.abs().max() > 0.8 * 8**-0.5
