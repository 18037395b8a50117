"""Slots: accepted and refused losses, inputs of a loss, and the layer that outputs the deltas."""

import pytest
import torch
from small_detectors import (
    BACKBONE,
    BOXES,
    SIZES,
    AllInputs,
    WithQuality,
    batch,
    faster_rcnn,
    retinanet,
)
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from det_losses import build_loss
from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.slots import PairCoder, box_layer_name, box_slot_loss

BUILDS = {"RetinaNet": retinanet, "FasterRCNN": faster_rcnn}
BOX_SLOTS = [
    ("RetinaNet", "loss_bbox"),
    ("FasterRCNN", "loss_bbox"),
    ("FasterRCNN", "loss_rpn_bbox"),
]
TWO_RATIOS = {"sizes": [[16], [32], [64]], "aspect_ratios": [0.5, 2.0]}


@pytest.mark.parametrize(
    ("build", "losses", "message"),
    [
        (retinanet, {"loss_cls": "GIoULoss"}, "RetinaNet.loss_cls takes a classification loss"),
        (retinanet, {"loss_bbox": "FocalLoss"}, "RetinaNet.loss_bbox takes a box loss"),
        (
            faster_rcnn,
            {"loss_rpn_cls": "CrossEntropyLoss"},
            "FasterRCNN.loss_rpn_cls scores by sigmoid, and CrossEntropyLoss is for softmax",
        ),
        (faster_rcnn, {"loss_rpn_bbox": torch.nn.L1Loss()}, "not a loss of this registry"),
        (
            retinanet,
            {"loss_bbox": {"type": "L1Loss", "reduction": "none"}},
            "RetinaNet.loss_bbox: .* reduction='mean', got 'none'",
        ),
    ],
)
def test_a_loss_that_does_not_fit_the_slot_is_refused(build, losses, message):
    with pytest.raises(ValueError, match=message):
        build(**losses)


def test_a_misspelt_loss_suggests_the_nearest_name():
    with pytest.raises(KeyError, match="GIoULoss"):
        retinanet(loss_bbox="GIouLoss")


@pytest.mark.parametrize(("name", "space"), [("L1Loss", "delta"), ("GIoULoss", "decoded")])
def test_a_box_loss_is_called_in_its_space(name, space):
    coder = PairCoder((10.0, 10.0, 5.0, 5.0))
    anchors = torch.tensor([[0.0, 0.0, 20.0, 40.0], [10.0, 10.0, 50.0, 30.0]])
    boxes = torch.tensor([[2.0, 1.0, 25.0, 38.0], [12.0, 8.0, 44.0, 31.0]])
    deltas = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    loss = build_loss(name)
    got = box_slot_loss(loss, coder, deltas, boxes, anchors, avg_factor=3)
    if space == "delta":
        want = loss(deltas, BoxCoder(coder.weights).encode_single(boxes, anchors), avg_factor=3)
    else:
        want = loss(coder.decode_single(deltas, anchors), boxes, avg_factor=3)
    assert torch.equal(got, want)
    half = box_slot_loss(loss, coder, deltas.half(), boxes, anchors, avg_factor=3)
    assert half.dtype == torch.float32


def test_pair_coder_keeps_ground_truth_and_anchor():
    boxes, anchors = [torch.rand(2, 4), torch.rand(0, 4)], [torch.rand(2, 4), torch.rand(0, 4)]
    pairs = PairCoder((1.0, 1.0, 1.0, 1.0)).encode(boxes, anchors)
    assert torch.equal(pairs[0], torch.cat([boxes[0], anchors[0]], dim=1))
    assert pairs[1].shape == (0, 8)


def built(detector, **losses):
    """Return a detector with the same weights for all losses."""
    torch.manual_seed(0)
    return BUILDS[detector](min_size=64, max_size=100, **losses)


def losses_of(model):
    torch.manual_seed(1)
    return model(*batch(), mode="loss")


@pytest.mark.parametrize(("detector", "slot"), BOX_SLOTS)
def test_the_inputs_of_a_box_loss_belong_to_its_boxes(detector, slot):
    loss = AllInputs()
    model = built(detector, **{slot: loss})
    losses_of(model)
    got, truth = loss.got, torch.cat([torch.tensor(boxes) for boxes in BOXES])
    assert len(got["pred"]) > 2
    # Every target is one of the three boxes, which identifies its image and label.
    same = (got["target"][:, None] == truth).all(-1)
    assert (same.sum(1) == 1).all() and same.any(0).all()
    which = same.int().argmax(1)
    torch.testing.assert_close(got["image_size"], SIZES[torch.tensor([0, 0, 1])[which]])
    label = torch.tensor([0, 1, 0])[which]
    expected = torch.zeros_like(label) if slot == "loss_rpn_bbox" else label
    assert torch.equal(got["labels"], expected)
    channels = {"loss_rpn_bbox": 1}.get(slot, 3 if detector == "RetinaNet" else 4)
    assert got["logits"].shape == (len(which), channels)
    assert got["pred_deltas"].shape == got["target_deltas"].shape == got["pred"].shape


@pytest.mark.parametrize(("detector", "slot"), BOX_SLOTS)
def test_a_sum_over_both_spaces_is_the_sum_of_the_separate_losses(detector, slot):
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
def test_a_product_with_a_classification_loss_is_the_product_of_its_parts(detector, slot, focal):
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
            "loss_bbox contains a classification loss for sigmoid, and FasterRCNN.loss_cls scores "
            "by softmax",
        ),
    ],
)
def test_a_loss_of_the_wrong_kind_or_activation_is_refused(build, losses, message):
    with pytest.raises(ValueError, match=message):
        build(**losses)


def test_an_input_that_no_head_offers_is_refused():
    class Depth(AllInputs):
        inputs = ("depth",)

    with pytest.raises(ValueError, match="Depth needs the input 'depth'; a detector passes image_"):
        retinanet(loss_bbox=Depth())


def test_losses_are_not_part_of_torchvisions_modules():
    model = built("RetinaNet", loss_bbox="SumLoss(L1Loss, GIoULoss)")
    assert isinstance(model.losses["loss_bbox"], nn.Module)
    assert not [name for name in model.detector.state_dict() if "loss" in name]


def run_and_catch(model, slot):
    """Return the outputs of the slot's layer in a training step."""
    outputs = []
    layer = model.get_submodule(box_layer_name(type(model), slot))
    layer.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    boxes = torch.tensor([[3.0, 5.0, 40.0, 44.0]])
    model.train()([torch.rand(3, 64, 64)], [{"boxes": boxes, "labels": torch.tensor([0])}], "loss")
    return outputs


def catch(module):
    outputs = []
    module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    return outputs


def per_anchor(levels):
    """Reshape [1, 4 A, H, W] of each level as torchvision does, to [1, anchors, 4]."""
    rows = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(1, -1, 4) for x in levels]
    return torch.cat(rows, dim=1)


def test_retinanets_box_layer_outputs_the_regression_heads_deltas():
    model = RetinaNet(BACKBONE, num_classes=3, anchors=TWO_RATIOS, min_size=64, max_size=64)
    heads = catch(model.detector.head.regression_head)
    levels = run_and_catch(model, "loss_bbox")
    # Strides 8, 16, 32 on 64 px, two anchors per location.
    assert [tuple(x.shape) for x in levels] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    assert torch.equal(per_anchor(levels), heads[0])


def test_faster_rcnns_box_layers_output_the_heads_deltas():
    def build():
        return FasterRCNN(
            BACKBONE, 3, anchors=TWO_RATIOS, representation_size=32, min_size=64, max_size=64
        )

    model = build()
    rpn = catch(model.detector.rpn.head)
    levels = run_and_catch(model, "loss_rpn_bbox")
    assert len(levels) == 3
    assert all(torch.equal(x, y) for x, y in zip(levels, rpn[0][1], strict=True))
    model = build()
    predictor = catch(model.detector.roi_heads.box_predictor)
    (deltas,) = run_and_catch(model, "loss_bbox")
    assert deltas.shape[1] == 4 * 4  # three classes and the background
    assert torch.equal(deltas, predictor[0][1])


def test_a_derived_detector_has_the_layers_of_its_base():
    class Mine(RetinaNet):
        pass

    assert box_layer_name(Mine, "loss_bbox") == box_layer_name(RetinaNet, "loss_bbox")


@pytest.mark.parametrize(
    ("detector", "slot", "message"),
    [
        (RetinaNet, "loss_cls", "RetinaNet has no box deltas for 'loss_cls'.*are loss_bbox$"),
        (FasterRCNN, "loss_box", "its box slots are loss_rpn_bbox, loss_bbox"),
        (FCOS, "loss_dfl", "FCOS has no box deltas for 'loss_dfl'.*are loss_bbox$"),
        (
            nn.Linear,
            "loss_bbox",
            "no box deltas for 'loss_bbox'; its box slots are none",
        ),
    ],
)
def test_slots_without_a_box_layer_are_refused(detector, slot, message):
    with pytest.raises(ValueError, match=message):
        box_layer_name(detector, slot)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_training_that_starts_without_objects_calls_every_loss(build):
    """Each run checks after its first step that its losses were called."""
    model, called = build().train(), []
    for slot, loss in model.losses.items():
        loss.register_forward_hook(lambda *_, slot=slot: called.append(slot))
    images, _ = batch()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    found = model(images, [empty, empty], mode="loss")
    assert set(called) == set(model.losses)
    assert all(found[slot].isfinite() for slot in model.losses)
    assert found["loss_bbox"] == 0 and found["loss_cls"] > 0
    sum(found.values()).backward()
