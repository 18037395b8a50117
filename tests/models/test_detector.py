"""Common behaviour of all detectors: arguments, modes, channels, precision, anchors."""

import pytest
import torch
from small_detectors import BACKBONE, faster_rcnn, retinanet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from det_losses.errors import UserError
from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.detector import (
    FullPrecisionAnchors,
    check_torchvision_arguments,
    match_anchors,
)
from det_losses.models.slots import PairCoder


@pytest.mark.parametrize(
    ("build", "argument", "message"),
    [
        (retinanet, "num_convz", "RetinaNet has no argument 'num_convz'. Did you mean 'num_convs'"),
        (retinanet, "score_tresh", "score_thresh"),
        (retinanet, "head", "RetinaNet has no argument 'head'"),
        (faster_rcnn, "box_detections_per_image", "box_detections_per_img"),
    ],
)
def test_an_unknown_argument_is_refused_where_torchvision_ignores_it(build, argument, message):
    with pytest.raises(TypeError, match=message):
        build(**{argument: 1})


NEVER = (float("nan"), float("inf"), "x", {}, [], [[1]], ["x"], [float("nan")], -1, True)


@pytest.mark.parametrize("detector", [RetinaNet, FasterRCNN, FCOS])
def test_values_that_torchvision_notices_in_an_evaluation_only_are_refused(detector):
    """Counts and sizes are whole and at least 1, thresholds and fractions are in 0..1."""
    for name in detector.further_parameters().keys() - {"backbone", "num_classes"}:
        share = name.endswith(("_thresh", "_fraction"))
        values = (1.5, -0.1) if share else () if name == "center_sampling_radius" else (2.5, 0)
        for value in (*NEVER, *values):
            with pytest.raises(UserError, match=rf"^{name}: must be "):
                check_torchvision_arguments(detector, {name: value})


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (retinanet, dict(bg_iou_thresh=0.6), "bg_iou_thresh: 0.6 is above fg_iou_thresh, which is"),
        (faster_rcnn, dict(rpn_fg_iou_thresh=0.1), "rpn_bg_iou_thresh: 0.3 is above rpn_fg_iou"),
        (retinanet, dict(class_to_channel=3), "class_to_channel must be a list of whole numbers"),
        (retinanet, dict(num_channels=0), "num_channels=0"),
        (retinanet, dict(anchors=dict(sizes=[[8]], aspect_ratios=[1])), "of the backbone's"),
        (faster_rcnn, dict(anchors=dict(sizes=[[8]], aspect_ratios=[0])), "ratios above 0"),
        (faster_rcnn, dict(roi_size=0), "roi_size: must be at least 1"),
        (faster_rcnn, dict(roi_levels=["p9"]), "roi_levels must be names of the backbone's levels"),
    ],
)
def test_arguments_that_contradict_each_other_or_the_backbone_are_refused(
    build, arguments, message
):
    with pytest.raises(UserError, match=message):
        build(**arguments)


def test_num_classes_must_be_given():
    with pytest.raises(ValueError, match="num_classes must be the number of classes"):
        RetinaNet(BACKBONE, num_classes=None)


@pytest.mark.parametrize("build", [retinanet, faster_rcnn])
def test_mode_and_state_must_agree(build):
    model = build()
    image = [torch.zeros(3, 64, 64)]
    with pytest.raises(ValueError, match=r"mode='predict'.*call eval\(\)"):
        model(image, mode="predict")
    with pytest.raises(ValueError, match=r"mode='loss'.*call train\(\)"):
        model.eval()(image, mode="loss")
    with pytest.raises(ValueError, match="mode must be"):
        model(image, mode="train")
    with pytest.raises(ValueError, match="needs targets"):
        model.train()(image, mode="loss")


def test_a_sigmoid_loss_gives_k_channels_and_a_softmax_loss_k_plus_one():
    sigmoid, softmax = retinanet(), retinanet(loss_cls="CrossEntropyLoss")
    assert sigmoid.detector.head.classification_head.cls_logits.out_channels == 3
    assert softmax.detector.head.classification_head.cls_logits.out_channels == 4
    sigmoid, softmax = faster_rcnn(loss_cls="FocalLoss"), faster_rcnn()
    assert sigmoid.detector.roi_heads.box_predictor.cls_score.out_features == 3
    assert softmax.detector.roi_heads.box_predictor.cls_score.out_features == 4


@pytest.mark.parametrize("build", [retinanet, faster_rcnn])
def test_under_autocast_losses_and_ground_truth_stay_in_float32(build):
    model = build(min_size=64, max_size=64).train()
    seen = []
    loss = model.losses["loss_bbox"]
    encode = PairCoder.encode_single
    box = torch.tensor([[3.3, 5.7, 40.1, 44.9]])
    targets = [{"boxes": box, "labels": torch.tensor([1])}]

    def note(self, boxes, anchors):
        seen.append(boxes)
        return encode(self, boxes, anchors)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(BoxCoder, "encode_single", note)
        losses = model([torch.rand(3, 64, 64)], targets, mode="loss")
    assert loss.space == "delta" and seen
    for boxes in seen:
        assert boxes.dtype == torch.float32
        assert torch.equal(boxes, box.expand_as(boxes))  # not rounded to half
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


def test_anchors_are_exact_for_features_of_half_precision():
    # In bfloat16, numbers near 1280 are 8 apart, so a box of 16 px there would be rounded.
    for generator in (
        retinanet().detector.anchor_generator,
        RetinaNet(BACKBONE | {"extra_levels": "p6p7"}, num_classes=3).detector.anchor_generator,
        faster_rcnn().detector.rpn.anchor_generator,
    ):
        images = ImageList(torch.zeros(1, 3, 32, 1312), [(32, 1312)])
        levels = [torch.zeros(1, 1, 2, 82)] * len(generator.sizes)
        exact = generator(images, levels)[0]
        half = generator(images, [level.bfloat16() for level in levels])[0]
        assert half.dtype == torch.float32 and torch.equal(half, exact)
        assert generator(images, [level.double() for level in levels])[0].dtype == torch.float64


def test_anchors_equal_torchvisions_for_changing_image_sizes():
    sizes, ratios = ((16, 24), (40, 64)), ((0.5, 1.0),) * 2
    ours, theirs = FullPrecisionAnchors(sizes, ratios), AnchorGenerator(sizes, ratios)
    for side in [*range(32, 32 * 20, 32), 64, 32, 64]:  # more sizes than are kept
        images = ImageList(torch.zeros(2, 3, side, 96), [(side, 90)] * 2)
        levels = [torch.zeros(2, 4, side // stride, 96 // stride) for stride in (8, 16)]
        for found, expected in zip(ours(images, levels), theirs(images, levels), strict=True):
            assert torch.equal(found, expected)
    assert ours(images, levels)[0] is ours(images, levels)[1]


@pytest.mark.parametrize("most", [0, 2_000_000])  # image by image, and together
@pytest.mark.parametrize("low_quality", [True, False])
def test_anchors_are_matched_as_by_torchvision(low_quality, most, monkeypatch):
    monkeypatch.setattr("det_losses.models.detector.MOST_PAIRS", most)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 60, (400, 2), generator=generator)  # whole numbers: many ties
    sides = torch.randint(4, 30, (400, 2), generator=generator)
    anchors = torch.cat([corners, corners + sides], dim=1).float()
    boxes = [
        anchors[:7] + 1,
        torch.zeros(0, 4),
        torch.cat([anchors[9:11], anchors[9:10]]),  # a box twice
        torch.tensor([[200.0, 200, 220, 230]]),  # touches no anchor: the best IoU is 0
        anchors[20:60],
    ]
    found = match_anchors(matcher, boxes, anchors)
    for row, own in zip(found, boxes, strict=True):
        expected = matcher(box_iou(own, anchors)) if len(own) else torch.full((400,), -1)
        assert torch.equal(row, expected)
    assert (found == -2).any() and (found > 30).any()


def test_losses_get_the_number_of_channels_if_it_exceeds_the_classes():
    model = retinanet(loss_cls="EQLv2Loss", class_to_channel=[1, 2, 4], num_channels=5)
    assert model.losses["loss_cls"].num_classes == 5


@pytest.mark.parametrize(
    ("build", "slot", "classes"),
    [
        (retinanet, "loss_cls", 3),
        (faster_rcnn, "loss_cls", 3),
        (faster_rcnn, "loss_rpn_cls", 1),
    ],
)
def test_a_loss_with_state_per_class_gets_the_number_of_classes(build, slot, classes):
    assert build(**{slot: "EQLv2Loss"}).losses[slot].num_classes == classes
    given = {"type": "EQLv2Loss", "num_classes": 7}
    assert build(**{slot: given}).losses[slot].num_classes == 7
    nested = build(**{slot: "SumLoss(EQLv2Loss, FocalLoss)"}).losses[slot]
    assert nested.losses[0].num_classes == classes


@pytest.mark.parametrize("label", [-1, 3, 99])
def test_a_label_outside_of_the_classes_is_refused(label):
    # -1 would be the last class, and 99 an error of an index.
    model = retinanet().train()
    target = dict(boxes=torch.tensor([[0.0, 0, 20, 20]]), labels=torch.tensor([label]))
    with pytest.raises(ValueError, match=rf"labels of a target must be in 0\.\.2, got {label}"):
        model([torch.zeros(3, 64, 64)], [target], mode="loss")
