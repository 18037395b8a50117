"""What heads pass to losses beside pred and target: sizes, deltas, logits, quality."""

import pytest
import torch
from test_slots import faster_rcnn, retinanet
from torch import nn
from torchvision.ops import box_iou

from det_losses import build_loss
from det_losses.losses import Loss
from det_losses.models.slots import INPUTS

# Images of two sizes; the network scales the shorter side to 64.
IMAGES = [(64, 96), (80, 64)]
SIZES = torch.tensor([[96.0, 64.0], [64.0, 80.0]])
BOXES = [[[8.0, 8, 40, 30], [50, 20, 90, 60]], [[10.0, 12, 30, 60]]]
BUILDS = {"RetinaNet": retinanet, "FasterRCNN": faster_rcnn}
BOX_SLOTS = [
    ("RetinaNet", "loss_bbox"),
    ("FasterRCNN", "loss_bbox"),
    ("FasterRCNN", "loss_rpn_bbox"),
]


class AllInputs(Loss):
    """A box loss that asks for everything and keeps it."""

    paper = "made up"
    kind, space, inputs = "box", "decoded", INPUTS["box"]

    def unreduced_shape(self, pred):
        return pred.shape[:-1]

    def unreduced(self, pred, target, weight=None, **inputs):
        self.got = dict(pred=pred, target=target, **inputs)
        return pred.sum(-1) * 0


class WithQuality(Loss):
    """A sigmoid loss that keeps what it is given."""

    paper = "made up"
    kind, activation, inputs = "classification", "sigmoid", ("quality",)

    def unreduced(self, pred, target, weight=None, *, quality):
        self.got = dict(labels=target, quality=quality)
        return pred * 0


def batch():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in IMAGES]
    targets = [
        {"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))} for boxes in BOXES
    ]
    return images, targets


def built(detector, **losses):
    """A detector whose weights are the same whatever its losses are."""
    torch.manual_seed(0)
    return BUILDS[detector](min_size=64, max_size=100, **losses)


def losses_of(model):
    torch.manual_seed(1)
    return model(*batch(), mode="loss")


@pytest.mark.parametrize(("detector", "slot"), BOX_SLOTS)
def test_a_box_loss_gets_what_belongs_to_its_boxes(detector, slot):
    loss = AllInputs()
    model = built(detector, **{slot: loss})
    losses_of(model)
    got, truth = loss.got, torch.cat([torch.tensor(boxes) for boxes in BOXES])
    assert len(got["pred"]) > 2
    # Every target is one of the three boxes, which tells its image and its label.
    same = (got["target"][:, None] == truth).all(-1)
    assert (same.sum(1) == 1).all() and same.any(0).all()
    which = same.int().argmax(1)
    torch.testing.assert_close(got["image_size"], SIZES[torch.tensor([0, 0, 1])[which]])
    label = torch.tensor([0, 1, 0])[which]
    expected = torch.zeros_like(label) if slot == "loss_rpn_bbox" else label
    assert torch.equal(got["labels"], expected)
    channels = {"loss_rpn_bbox": 1}.get(slot, 3 if detector == "RetinaNet" else 4)
    assert got["logits"].shape == (len(which), channels)
    # pred and target differ by the same vector in either space, where a side is as long as the
    # anchor's: so the delta of a box's target is zero exactly where the box is the anchor.
    assert got["pred_deltas"].shape == got["target_deltas"].shape == got["pred"].shape


@pytest.mark.parametrize(("detector", "slot"), BOX_SLOTS)
def test_a_sum_over_both_spaces_is_the_sum_of_what_its_losses_give_alone(detector, slot):
    alone = [
        losses_of(built(detector, **{slot: loss}))[slot]
        for loss in ("L1Loss", dict(type="GIoULoss", loss_weight=2.0))
    ]
    both = dict(type="SumLoss", losses=["L1Loss", dict(type="GIoULoss", loss_weight=2.0)])
    got = losses_of(built(detector, **{slot: both}))[slot]
    torch.testing.assert_close(got, sum(alone), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("detector", "slot", "focal"),
    [
        ("RetinaNet", "loss_bbox", "FocalLoss"),
        ("FasterRCNN", "loss_bbox", "FocalLoss(use_sigmoid=False)"),
        ("FasterRCNN", "loss_rpn_bbox", "FocalLoss"),
    ],
)
def test_a_product_with_the_class_is_that_of_its_parts(detector, slot, focal):
    loss = AllInputs()
    product = build_loss(f"ProductLoss({focal}, L1Loss, EIoULoss)", reduction="none")
    losses_of(built(detector, **{slot: loss}))
    got = loss.got
    parts = [
        build_loss(focal, reduction="none")(got["logits"], got["labels"]),
        (got["pred_deltas"] - got["target_deltas"]).abs().sum(-1),
        build_loss("EIoULoss", reduction="none")(got["pred"], got["target"]),
    ]
    parts[0] = parts[0].reshape(len(parts[1]), -1).sum(-1)
    inputs = {name: got[name] for name in product.inputs}
    value = product(got["pred"], got["target"], **inputs)
    torch.testing.assert_close(value, parts[0] * parts[1] * parts[2])
    model = built(detector, **{slot: f"ProductLoss({focal}, L1Loss, EIoULoss)"})
    total = losses_of(model)[slot]
    gradients = torch.autograd.grad(total, list(model.detector.parameters()), allow_unused=True)
    assert total > 0 and any(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("detector", "slot", "box_slot"),
    [
        ("RetinaNet", "loss_cls", "loss_bbox"),
        ("FasterRCNN", "loss_cls", "loss_bbox"),
        ("FasterRCNN", "loss_rpn_cls", "loss_rpn_bbox"),
    ],
)
def test_quality_is_the_iou_of_the_predicted_box_and_zero_for_background(detector, slot, box_slot):
    quality, boxes = WithQuality(), AllInputs()
    losses_of(built(detector, **{slot: quality, box_slot: boxes}))
    objects = quality.got["labels"] < (1 if slot == "loss_rpn_cls" else 3)
    expected = box_iou(boxes.got["pred"].detach(), boxes.got["target"]).diagonal()
    torch.testing.assert_close(quality.got["quality"][objects], expected, rtol=1e-5, atol=1e-6)
    assert expected.max() > 0.1 and not quality.got["quality"].requires_grad
    assert (quality.got["quality"][~objects] == 0).all() and (~objects).any()


@pytest.mark.parametrize(
    ("build", "losses", "message"),
    [
        (retinanet, {"loss_cls": AllInputs()}, "takes a classification loss"),
        (
            faster_rcnn,
            {"loss_bbox": "ProductLoss(FocalLoss, GIoULoss)"},
            "loss_bbox holds a classification loss for sigmoid, and FasterRCNN.loss_cls scores by "
            "softmax",
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_the_detector_is_built(build, losses, message):
    with pytest.raises(ValueError, match=message):
        build(**losses)


def test_an_input_that_no_head_has_is_refused_when_the_detector_is_built():
    class Depth(AllInputs):
        inputs = ("depth",)

    with pytest.raises(ValueError, match="Depth needs the input 'depth'; a detector passes image_"):
        retinanet(loss_bbox=Depth())


def test_losses_stay_out_of_torchvisions_modules():
    model = built("RetinaNet", loss_bbox="SumLoss(L1Loss, GIoULoss)")
    assert isinstance(model.losses["loss_bbox"], nn.Module)
    assert not [name for name in model.detector.state_dict() if "loss" in name]
