"""Losses in detectors of torchvision that the user has built."""

import copy
import pickle

import pytest
import torch
from small_detectors import AllInputs
from torch import nn
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision_pairs import (
    FCOS_LAYERS,
    NAMES,
    SIZE,
    batch,
    body,
    faster_rcnns,
    fcoses,
    randomise_outputs,
    retinanets,
    shifted,
    train_once,
)

from det_losses.errors import InputError, InputTypeError
from det_losses.models import FCOS, FasterRCNN, with_losses

FEW = dict(representation_size=64, box_batch_size_per_image=64, rpn_post_nms_top_n_train=100)
PAIRS = {"RetinaNet": (retinanets, 0), "FasterRCNN": (faster_rcnns, 1), "FCOS": (fcoses, 0)}


def theirs_of(name):
    return PAIRS[name][0](torch.float32)[0]


def trained(model, name, **kwargs):
    images, targets = batch(torch.float32, ([0, 4], [], [2]))
    return train_once(
        model, images, shifted(targets, kwargs.pop("first", PAIRS[name][1])), **kwargs
    )


def assert_equal_losses(got, expected, tolerance=1e-6):
    """Equal values, and equal gradients of the parameters that both have."""
    for slot, value in expected[0].items():
        torch.testing.assert_close(got[0][NAMES.get(slot, slot)], value, rtol=tolerance, atol=0)
    for name, grad in expected[1].items():
        error = (got[1][name] - grad).norm() / grad.norm().clamp(min=1e-30)
        assert error < 20 * tolerance, (name, error)


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("RetinaNet", {"loss_bbox": "GIoULoss", "loss_cls": "QualityFocalLoss"}),
        ("RetinaNet", {"loss_bbox": "MPDIoULoss"}),  # with the size of the image
        ("FasterRCNN", {"loss_bbox": "EIoULoss", "loss_cls": "SeesawLoss"}),
        ("FasterRCNN", {"loss_rpn_bbox": "CIoULoss", "loss_rpn_cls": "FocalLoss"}),
        ("FCOS", {"loss_bbox": "L1Loss", "loss_centerness": "FocalLoss"}),
    ],
)
def test_losses_are_those_of_our_detector(name, losses):
    pair, _ = PAIRS[name]
    theirs, default = pair(torch.float32)
    ours = type(default)
    own, levels = (FEW, "pool") if name == "FasterRCNN" else ({}, "p6p7")
    model = ours(body(levels), num_classes=5, **SIZE, **own, **losses)
    model.detector.load_state_dict(theirs.state_dict())
    injected = with_losses(theirs, **losses)
    assert injected is theirs
    assert injected.loss_sources == model.loss_sources
    values, grads = trained(model, name, first=0, mode="loss")
    grads = {key.removeprefix("detector."): grad for key, grad in grads.items()}
    assert_equal_losses(trained(injected, name), (values, grads))


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_retinanet_keeps_the_box_loss_it_was_built_with(kind):
    theirs = theirs_of("RetinaNet")
    theirs.head.regression_head._loss_type = kind
    injected = with_losses(copy.deepcopy(theirs))
    assert_equal_losses(trained(injected, "RetinaNet"), trained(theirs, "RetinaNet"))


@pytest.mark.parametrize("name", PAIRS)
def test_a_second_call_replaces_the_losses_of_the_first(name):
    theirs = theirs_of(name)
    twice = with_losses(with_losses(copy.deepcopy(theirs), loss_bbox="WIoUv3Loss"))
    assert twice.state_dict().keys() == theirs.state_dict().keys()
    assert_equal_losses(trained(twice, name), trained(theirs, name))


def test_a_sigmoid_loss_in_faster_rcnn_does_not_use_the_background():
    """Losses and detections are those of our detector, which has no channel of the background."""
    theirs = randomise_outputs(
        theirs_of("FasterRCNN"), ["roi_heads.box_predictor.cls_score.weight"]
    )
    ours = FasterRCNN(body("pool"), num_classes=5, loss_cls="FocalLoss", **FEW, **SIZE)
    state = theirs.state_dict()
    for layer, rows in (("cls_score", 1), ("bbox_pred", 4)):
        for kind in ("weight", "bias"):
            key = f"roi_heads.box_predictor.{layer}.{kind}"
            state[key] = state[key][rows:]
    ours.detector.load_state_dict(state)
    injected = with_losses(theirs, loss_cls="FocalLoss")
    values, grads = trained(ours, "FasterRCNN", first=0, mode="loss")
    got = trained(injected, "FasterRCNN")
    assert got[1]["roi_heads.box_predictor.cls_score.weight"][0].abs().max() == 0
    shared = {k.removeprefix("detector."): g for k, g in grads.items() if "predictor" not in k}
    assert_equal_losses(got, (values, shared))
    with torch.no_grad():
        images = batch(torch.float32, ([0, 0], [], [0]))[0]
        expected = ours.eval()(images)
        detections = injected.eval()(images)
    assert sum(len(each["labels"]) for each in expected) > 10
    for want, found in zip(expected, detections, strict=True):
        assert torch.equal(found["labels"], want["labels"] + 1)
        torch.testing.assert_close(found["boxes"], want["boxes"])
        torch.testing.assert_close(found["scores"], want["scores"])


def test_a_loss_of_quality_in_fcos_scores_by_class():
    """Losses and detections are those of our detector, which has no branch of centerness."""
    theirs = randomise_outputs(theirs_of("FCOS"), FCOS_LAYERS)
    ours = FCOS(body("p6p7"), num_classes=5, loss_cls="QualityFocalLoss", **SIZE)
    ours.detector.load_state_dict(
        {key: value for key, value in theirs.state_dict().items() if "ctrness" not in key}
    )
    injected = with_losses(theirs, loss_cls="QualityFocalLoss")
    values, grads = trained(ours, "FCOS", mode="loss")
    assert values.keys() == {"loss_cls", "loss_bbox"}
    got = trained(injected, "FCOS")
    assert got[0].keys() == values.keys()
    assert_equal_losses(got, (values, {k.removeprefix("detector."): g for k, g in grads.items()}))
    images = batch(torch.float32, ([0, 0], [], [0]))[0]
    with torch.no_grad():
        expected, detections = ours.eval()(images), injected.eval()(images)
    assert sum(len(each["labels"]) for each in expected) > 10
    for want, found in zip(expected, detections, strict=True):
        assert torch.equal(found["labels"], want["labels"])
        torch.testing.assert_close(found["scores"], want["scores"])


class TestState:
    """The state_dict is torchvision's; a loss with state adds its own."""

    def test_weights_of_torchvision_load_before_and_after(self):
        theirs = theirs_of("RetinaNet")
        weights = copy.deepcopy(theirs.state_dict())
        model = with_losses(theirs_of("RetinaNet"), loss_bbox="WIoUv3Loss")
        added = model.state_dict().keys() - weights.keys()
        assert added and all(key.startswith("losses.loss_bbox.") for key in added)
        trained(model, "RetinaNet")
        state = copy.deepcopy(model.losses.state_dict())
        wrapped = nn.ModuleDict({"module": model})  # as in DistributedDataParallel
        wrapped.load_state_dict({f"module.{key}": value for key, value in weights.items()})
        assert all(torch.equal(model.losses.state_dict()[key], state[key]) for key in state)
        weights |= {f"losses.{key}": value + 1 for key, value in state.items()}
        model.load_state_dict(weights)
        assert all(torch.equal(model.losses.state_dict()[key], state[key] + 1) for key in state)
        weights.popitem()
        with pytest.raises(RuntimeError, match=r"Missing key.*losses\.loss_bbox"):
            model.load_state_dict(weights)

    @pytest.mark.parametrize("name", PAIRS)
    def test_the_losses_are_modules_of_the_detector(self, name):
        theirs = theirs_of(name).eval()
        keys = list(theirs.state_dict())
        model = with_losses(theirs, loss_bbox="GIoULoss")
        assert list(model.state_dict()) == keys
        assert not model.training and not any(module.training for module in model.modules())
        assert all(loss.training for loss in model.train().losses.values())
        model.to("meta")
        stateful = with_losses(model, loss_bbox="WIoUv3Loss")
        assert all(buffer.is_meta for buffer in stateful.losses.buffers())

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_a_copy_trains_with_its_own_losses(self, copied):
        model = with_losses(tv.RetinaNet(body("p6p7"), 5, **SIZE), loss_bbox="WIoUv3Loss")
        other = copied(model)
        trained(other, "RetinaNet")
        before, after = (each.losses["loss_bbox"].state_dict() for each in (model, other))
        assert any(not torch.equal(before[key], after[key]) for key in before)


def masks():
    return tv.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)


class OwnHead(RetinaNetHead):
    """A head of the user's."""


class OwnTransform(GeneralizedRCNNTransform):
    """A transform of the user's."""


def with_predictor():
    model = theirs_of("FasterRCNN")
    model.roi_heads.box_predictor = nn.Identity()
    return model


def own_head():
    return tv.RetinaNet(body("p6p7"), 5, head=OwnHead(64, 9, 5), **SIZE)


def own_transform():
    model = theirs_of("RetinaNet")
    model.transform = OwnTransform(96, 128, [0.0] * 3, [1.0] * 3)
    return model


def our_detector():
    return retinanets(torch.float32)[1]


QUALITY = {"loss_cls": "VarifocalLoss", "loss_centerness": "FocalLoss"}


@pytest.mark.parametrize(
    ("build", "losses", "error", "message"),
    [
        ("RetinaNet", {"loss_box": "L1Loss"}, InputTypeError, "no slot 'loss_box'.* 'loss_bbox'?"),
        ("RetinaNet", {"loss_cls": "CrossEntropyLoss"}, InputError, "no channel of the background"),
        ("RetinaNet", {"loss_bbox": "FocalLoss"}, InputError, "takes a box loss"),
        ("FCOS", {"loss_cls": "CrossEntropyLoss"}, InputError, "scores by sigmoid"),
        ("FCOS", {"loss_dfl": "DistributionFocalLoss"}, InputError, "needs a distribution"),
        ("FCOS", QUALITY, InputError, "no centerness branch"),
        ("FasterRCNN", {"loss_rpn_cls": "CrossEntropyLoss"}, InputError, "scores by sigmoid"),
        (with_predictor, {}, InputError, "classes from 'cls_score', which Identity"),
        (masks, {}, InputError, "MaskRCNN also trains masks"),
        (own_head, {}, InputError, "RetinaNetHead, and this detector has OwnHead"),
        (own_transform, {"loss_bbox": "MPDIoULoss"}, InputError, "needs the size .* OwnTransform"),
        (our_detector, {}, InputTypeError, "give them to its constructor"),
        (lambda: nn.Linear(1, 1), {}, InputTypeError, "FCOS of torchvision, got Linear"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(build, losses, error, message):
    model = theirs_of(build) if isinstance(build, str) else build()
    modules = list(model.named_modules())
    with pytest.raises(error, match=message):
        with_losses(model, **losses)
    assert list(model.named_modules()) == modules


def test_a_transform_of_the_user_is_kept():
    model = own_transform()
    own = model.transform
    assert with_losses(model, loss_bbox="GIoULoss").transform is own
    assert trained(model, "RetinaNet")[0]["loss_bbox"] > 0


@pytest.mark.parametrize("name", PAIRS)
def test_anchors_are_float32_under_autocast(name):
    """In bfloat16 a small anchor far from the origin has no width."""
    loss = AllInputs()
    slot = "loss_rpn_bbox" if name == "FasterRCNN" else "loss_bbox"
    model = with_losses(theirs_of(name), **{slot: loss})
    with torch.autocast("cpu", torch.bfloat16):
        trained(model, name)
    assert {loss.got[key].dtype for key in ("pred", "target")} == {torch.float32}
    generator = model.rpn.anchor_generator if name == "FasterRCNN" else model.anchor_generator
    images = type("Images", (), {"tensors": torch.zeros(1, 3, 64, 64), "image_sizes": [(64, 64)]})
    levels = [torch.zeros(1, 4, 64 >> i, 64 >> i, dtype=torch.bfloat16) for i in range(1, 6)]
    assert generator(images, levels)[0].dtype == torch.float32


BUILDERS = [
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fcos_resnet50_fpn",
]


@pytest.mark.slow
@pytest.mark.parametrize("builder", BUILDERS)
def test_every_builder_trains_as_before_and_with_another_loss(builder):
    torch.manual_seed(0)
    few = {"box_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 50}
    arguments = dict(weights=None, weights_backbone=None, num_classes=6, min_size=96, max_size=128)
    if builder.startswith("fasterrcnn"):
        arguments |= few
    theirs = getattr(tv, builder)(**arguments)
    if builder.startswith("fasterrcnn"):  # as in torchvision's tutorial
        features = theirs.roi_heads.box_predictor.cls_score.in_features
        theirs.roi_heads.box_predictor = FastRCNNPredictor(features, 6)
    if builder.startswith("fcos"):
        randomise_outputs(theirs, FCOS_LAYERS)
    name = "FasterRCNN"  # labels from 1, which the others have channels for too
    expected = trained(copy.deepcopy(theirs), name)
    got = trained(with_losses(copy.deepcopy(theirs)), name)
    for slot, value in expected[0].items():
        torch.testing.assert_close(got[0][NAMES[slot]], value, rtol=1e-6, atol=0)
    total = [torch.cat([g[n].flatten() for n in sorted(g)]) for g in (expected[1], got[1])]
    assert (total[1] - total[0]).norm() / total[0].norm() < 1e-5
    assert trained(with_losses(theirs, loss_bbox="SIoULoss"), name)[0]["loss_bbox"] > 0
