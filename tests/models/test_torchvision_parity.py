"""With torchvision's default losses, the detectors equal torchvision's."""

from functools import partial

import pytest
import torch
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import generalized_box_iou_loss

from det_losses.models import FCOS, FasterRCNN, RetinaNet, SmallResNetFPN

SIZE = {"min_size": 96, "max_size": 128}
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def batch(dtype, labels):
    """Three images; the second has a different size and no boxes."""
    generator = torch.Generator().manual_seed(3)
    sizes = ((96, 112), (128, 96), (96, 112))
    images = [torch.rand(3, *size, generator=generator, dtype=dtype) for size in sizes]
    boxes = [
        torch.tensor([[4.0, 6.0, 60.0, 40.0], [50.0, 30.0, 100.0, 90.0]], dtype=dtype),
        torch.zeros(0, 4, dtype=dtype),
        torch.tensor([[10.0, 10.0, 42.0, 88.0]], dtype=dtype),
    ]
    targets = [
        {"boxes": box, "labels": torch.tensor(label, dtype=torch.int64)}
        for box, label in zip(boxes, labels, strict=True)
    ]
    return images, targets


def shifted(targets, by):
    return [{**target, "labels": target["labels"] + by} for target in targets]


def train_once(model, images, targets, **kwargs):
    """Return the losses and every gradient, with the samplers' random state fixed."""
    model.train()
    torch.manual_seed(7)
    losses = model(images, targets, **kwargs)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def body(extra_levels):
    """A small backbone with five levels and fixed weights."""
    torch.manual_seed(0)
    widths = (8, 8, 16, 16, 16, 16) if extra_levels == "pool" else (8, 8, 16, 16, 16)
    return SmallResNetFPN(widths, norm="FrozenBN", out_channels=64, extra_levels=extra_levels)


def retinanets(dtype):
    theirs = tv.RetinaNet(body("p6p7"), num_classes=5, **SIZE)
    return theirs.to(dtype), RetinaNet(body("p6p7"), num_classes=5, **SIZE).to(dtype)


def fcoses(dtype):
    theirs = tv.FCOS(body("p6p7"), num_classes=5, **SIZE)
    # With the initial weights, nearly all predicted boxes are points: distances are clamped at 0.
    randomise_outputs(theirs, FCOS_LAYERS)
    return theirs.to(dtype), FCOS(body("p6p7"), num_classes=5, **SIZE).to(dtype)


def faster_rcnns(dtype):
    few = {"box_batch_size_per_image": 64, "rpn_post_nms_top_n_train": 100, **SIZE}
    theirs = tv.FasterRCNN(
        body("pool"),
        box_head=TwoMLPHead(64 * 7**2, 64),
        box_predictor=FastRCNNPredictor(64, 6),
        **few,
    )
    ours = FasterRCNN(body("pool"), num_classes=5, representation_size=64, **few)
    # torchvision's RPN labels are always float32, which rounds its float64 loss to float32.
    assign = theirs.rpn.assign_targets_to_anchors
    theirs.rpn.assign_targets_to_anchors = lambda *args: (
        [labels.to(dtype) for labels in assign(*args)[0]],
        assign(*args)[1],
    )
    return theirs.to(dtype), ours.to(dtype)


FCOS_LAYERS = [
    "head.classification_head.cls_logits.weight",
    "head.regression_head.bbox_reg.weight",
    "head.regression_head.bbox_ctrness.weight",
]
NAMES = {
    "classification": "loss_cls",
    "bbox_regression": "loss_bbox",
    "bbox_ctrness": "loss_centerness",
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_bbox",
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_bbox",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("pair", "first_label"), [(retinanets, 0), (faster_rcnns, 1), (fcoses, 0)])
def test_losses_and_gradients_equal_torchvisions(pair, first_label, dtype, monkeypatch):
    # torchvision's GIoU adds 1e-7 to its denominators, which changes the first 12 digits.
    exact = partial(generalized_box_iou_loss, eps=0.0)
    monkeypatch.setattr(tv.fcos, "generalized_box_iou_loss", exact)
    theirs, ours = pair(dtype)
    ours.detector.load_state_dict(theirs.state_dict())
    images, targets = batch(dtype, ([0, 4], [], [2]))
    expected, expected_grads = train_once(theirs, images, shifted(targets, first_label))
    losses, grads = train_once(ours, images, targets, mode="loss")

    assert losses.keys() == {NAMES[name] for name in expected}
    assert all(value > 1e-3 for value in losses.values())  # there are positives
    for name, value in expected.items():
        torch.testing.assert_close(losses[NAMES[name]], value, rtol=TOLERANCE[dtype], atol=0)
    assert {f"detector.{name}" for name in expected_grads} == grads.keys()
    for name, grad in expected_grads.items():
        # Single entries nearly cancel, so the error is relative to the whole tensor.
        # In float32 torchvision rounds 1 - (1 - p) before it squares it, which at p = 0.01 loses
        # two digits in the gradient of background anchors; ours uses log p.
        error = (grads[f"detector.{name}"] - grad).norm() / grad.norm().clamp(min=1e-30)
        assert error < (2e-5 if dtype == torch.float32 else 1e-12), (name, error)
    flat = [torch.cat([g[n].flatten() for n in sorted(g)]) for g in (expected_grads, grads)]
    assert (flat[1] - flat[0]).norm() / flat[0].norm() < TOLERANCE[dtype]


@pytest.mark.parametrize("pair", [retinanets, faster_rcnns, fcoses])
def test_losses_are_not_in_torchvisions_state_dict(pair):
    theirs, ours = pair(torch.float32)
    assert ours.detector.state_dict().keys() == theirs.state_dict().keys()


def randomise_outputs(model, names):
    """Set weights of output layers large enough for confident, varied scores."""
    torch.manual_seed(1)
    for name in names:
        parameter = model.get_parameter(name)
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


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
