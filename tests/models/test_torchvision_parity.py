"""With torchvision's default losses, the detectors equal torchvision's."""

import copy
from functools import partial

import pytest
import torch
from torchvision.models import detection as tv
from torchvision.ops import generalized_box_iou_loss
from torchvision_pairs import (
    FCOS_LAYERS,
    NAMES,
    SIZE,
    batch,
    faster_rcnns,
    fcoses,
    randomise_outputs,
    retinanets,
    shifted,
    train_once,
)

from det_losses.models import FCOS, FasterRCNN, RetinaNet, with_losses

COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("pair", "first_label"), [(retinanets, 0), (faster_rcnns, 1), (fcoses, 0)])
@pytest.mark.parametrize("way", ["detector", "with_losses"])
def test_losses_and_gradients_equal_torchvisions(pair, first_label, dtype, way, monkeypatch):
    # torchvision's GIoU adds 1e-7 to its denominators, which changes the first 12 digits.
    exact = partial(generalized_box_iou_loss, eps=0.0)
    monkeypatch.setattr(tv.fcos, "generalized_box_iou_loss", exact)
    theirs, ours = pair(dtype)
    images, targets = batch(dtype, ([0, 4], [], [2]))
    channels = shifted(targets, first_label)
    if way == "detector":
        ours.detector.load_state_dict(theirs.state_dict())
        losses, grads = train_once(ours, images, targets, mode="loss")
        grads = {name.removeprefix("detector."): grad for name, grad in grads.items()}
    else:
        losses, grads = train_once(with_losses(copy.deepcopy(theirs)), images, channels)
    expected, expected_grads = train_once(theirs, images, channels)

    assert losses.keys() == {NAMES[name] for name in expected}
    assert all(value > 1e-3 for value in losses.values())  # there are positives
    for name, value in expected.items():
        torch.testing.assert_close(losses[NAMES[name]], value, rtol=TOLERANCE[dtype], atol=0)
    assert expected_grads.keys() == grads.keys()
    for name, grad in expected_grads.items():
        # Single entries nearly cancel, so the error is relative to the whole tensor.
        # In float32 torchvision rounds 1 - (1 - p) before it squares it, which at p = 0.01 loses
        # two digits in the gradient of background anchors; ours uses log p.
        error = (grads[name] - grad).norm() / grad.norm().clamp(min=1e-30)
        assert error < (2e-5 if dtype == torch.float32 else 1e-12), (name, error)
    flat = [torch.cat([g[n].flatten() for n in sorted(g)]) for g in (expected_grads, grads)]
    assert (flat[1] - flat[0]).norm() / flat[0].norm() < TOLERANCE[dtype]


@pytest.mark.parametrize("pair", [retinanets, faster_rcnns, fcoses])
def test_losses_are_not_in_torchvisions_state_dict(pair):
    theirs, ours = pair(torch.float32)
    assert ours.detector.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("detector", ["RetinaNet", "FasterRCNN", "FCOS"])
def test_coco_weights_with_91_channels_give_the_same_detections(detector, tmp_path):
    torch.manual_seed(0)
    if detector == "RetinaNet":
        theirs = tv.retinanet_resnet50_fpn(weights=None, weights_backbone=None, **SIZE)
        names = [
            "head.classification_head.cls_logits.weight",
            "head.regression_head.bbox_reg.weight",
        ]
        arguments = {"returned_layers": (2, 3, 4), "extra_levels": "p6p7"}
        ours = RetinaNet
    elif detector == "FCOS":
        theirs = tv.fcos_resnet50_fpn(weights=None, weights_backbone=None, **SIZE)
        names = FCOS_LAYERS
        arguments = {"returned_layers": (2, 3, 4), "extra_levels": "p6p7"}
        ours = FCOS
    else:
        theirs = tv.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZE)
        names = ["roi_heads.box_predictor.cls_score.weight"]
        arguments, ours = {}, FasterRCNN
    randomise_outputs(theirs, names)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = ours(
        {"type": "ResNetFPN", "name": "resnet50", "norm": "BN", **arguments},
        num_classes=80,
        class_to_channel=COCO_IDS,
        num_channels=91,
        weights=str(tmp_path / "weights.pth"),
        **SIZE,
    ).eval()
    images, _ = batch(torch.float32, ([0, 0], [], [0]))
    with torch.no_grad():
        expected, results = theirs(images), model(images, mode="predict")
    for want, got in zip(expected, results, strict=True):
        # The ten channels that no COCO category uses are not predicted.
        used = torch.isin(want["labels"], torch.tensor(COCO_IDS))
        assert used.sum() > 5
        assert torch.equal(torch.tensor(COCO_IDS)[got["labels"]], want["labels"][used])
        assert torch.equal(got["boxes"], want["boxes"][used])
        assert torch.equal(got["scores"], want["scores"][used])
