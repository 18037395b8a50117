"""What a slot takes and refuses, and how a box loss is called there."""

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList

from det_losses import build_loss
from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.models.slots import PairCoder, box_layer_name, box_slot_loss

BACKBONE = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
LEVELS = {"sizes": [[16], [32], [64]], "aspect_ratios": [1.0]}
TWO_RATIOS = {"sizes": [[16], [32], [64]], "aspect_ratios": [0.5, 2.0]}


def retinanet(**kwargs):
    return RetinaNet(BACKBONE, num_classes=3, anchors=LEVELS, **kwargs)


def faster_rcnn(**kwargs):
    return FasterRCNN(
        BACKBONE, num_classes=3, anchors=LEVELS, representation_size=32, roi_size=3, **kwargs
    )


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
def test_a_loss_that_the_slot_cannot_take_is_refused(build, losses, message):
    with pytest.raises(ValueError, match=message):
        build(**losses)


def test_a_misspelt_loss_suggests_the_nearest_name():
    with pytest.raises(KeyError, match="GIoULoss"):
        retinanet(loss_bbox="GIouLoss")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalizer": "anchor"}, "normalizer must be 'image' or 'batch', got 'anchor'"),
        ({"num_convs": 5}, "num_convs must be 1 to 4, got 5"),
        ({"class_to_channel": [0, 1]}, "class_to_channel must be 3 different channels"),
        ({"class_to_channel": [0, 1, 3]}, r"class_to_channel must be in 0..2 \(num_channels=3\)"),
        ({"anchors": {"sizes": [[8], [16, 24]], "aspect_ratios": [1.0]}}, "same number of sizes"),
        ({"head_norm": "LN"}, "norm must be one of"),
    ],
)
def test_retinanet_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RetinaNet(BACKBONE, **{"num_classes": 3, "anchors": LEVELS, **arguments})


@pytest.mark.parametrize(
    ("build", "argument", "message"),
    [
        (retinanet, "num_convz", "RetinaNet has no argument 'num_convz'. Did you mean num_convs"),
        (retinanet, "score_tresh", "score_thresh"),
        (retinanet, "head", "RetinaNet has no argument 'head'"),
        (faster_rcnn, "box_detections_per_image", "box_detections_per_img"),
    ],
)
def test_an_unknown_argument_is_refused_where_torchvision_ignores_it(build, argument, message):
    with pytest.raises(TypeError, match=message):
        build(**{argument: 1})


def test_num_classes_without_a_number():
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


@pytest.mark.parametrize("loss_cls", ["FocalLoss", "CrossEntropyLoss"])
def test_before_training_an_anchor_holds_an_object_by_chance_of_the_prior(loss_cls):
    # 1708.02002, 3.3: one in a hundred for each class with sigmoid; with softmax, where classes
    # exclude each other, one in a hundred that it is any object.
    model = retinanet(loss_cls=loss_cls)
    logits = model.detector.head.classification_head.cls_logits.bias
    if loss_cls == "FocalLoss":
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))
    else:
        torch.testing.assert_close(logits.softmax(0)[:-1].sum(), torch.tensor(0.01))


def test_softmax_scores_of_retinanet_are_softmax_scores():
    model = retinanet(loss_cls="CrossEntropyLoss", score_thresh=0.0).eval()
    head = model.detector.head.classification_head.cls_logits
    torch.nn.init.normal_(head.weight, std=2.0)
    captured = {}
    head.register_forward_hook(lambda _m, _i, out: captured.setdefault(out.shape[-1], out))
    with torch.no_grad():
        scores = model([torch.rand(3, 64, 64)], mode="predict")[0]["scores"]
    every = torch.cat([out.flatten(2).softmax(dim=1)[:, :3].flatten() for out in captured.values()])
    # One anchor a place here, so channels are classes; the best score survives suppression.
    torch.testing.assert_close(scores.max(), every.max())
    assert all((every - score).abs().min() < 1e-5 for score in scores[:20])


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


def test_pair_coder_keeps_ground_truth_and_anchor():
    boxes, anchors = [torch.rand(2, 4), torch.rand(0, 4)], [torch.rand(2, 4), torch.rand(0, 4)]
    pairs = PairCoder((1.0, 1.0, 1.0, 1.0)).encode(boxes, anchors)
    assert torch.equal(pairs[0], torch.cat([boxes[0], anchors[0]], dim=1))
    assert pairs[1].shape == (0, 8)


@pytest.mark.parametrize("normalizer", ["image", "batch"])
def test_normalizers_of_retinanet(normalizer):
    # Two images with one and with many positives. 'image' is the mean of what each image gives
    # alone; 'batch' is the sum of both over all positives.
    torch.manual_seed(0)
    model = retinanet(normalizer=normalizer, min_size=64, max_size=64)
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    targets = [
        {"boxes": torch.tensor([[3.0, 5.0, 19.0, 20.0]]), "labels": torch.tensor([0])},
        {
            "boxes": torch.tensor([[0.0, 0.0, 16.0, 16.0], [30.0, 28.0, 62.0, 60.0]]),
            "labels": torch.tensor([1, 2]),
        },
    ]
    both = model(images, targets, mode="loss")
    alone = [model([i], [t], mode="loss") for i, t in zip(images, targets, strict=True)]
    counts = []
    compute = model.detector.head.compute_loss
    model.detector.head.compute_loss = lambda *a: counts.append((a[3][0] >= 0).sum()) or compute(*a)
    for image, target in zip(images, targets, strict=True):
        model([image], [target], mode="loss")
    assert counts[0] != counts[1]
    for slot in both:
        first, second = alone[0][slot], alone[1][slot]
        if normalizer == "image":
            want = (first + second) / 2
        else:
            want = (first * counts[0] + second * counts[1]) / (counts[0] + counts[1])
        torch.testing.assert_close(both[slot], want)


@pytest.mark.parametrize(
    ("build", "slot", "classes"),
    [
        (retinanet, "loss_cls", 3),
        (faster_rcnn, "loss_cls", 3),
        (faster_rcnn, "loss_rpn_cls", 1),
    ],
)
def test_a_loss_that_keeps_something_of_each_class_learns_their_number(build, slot, classes):
    assert build(**{slot: "EQLv2Loss"}).losses[slot].num_classes == classes
    given = {"type": "EQLv2Loss", "num_classes": 7}
    assert build(**{slot: given}).losses[slot].num_classes == 7
    nested = build(**{slot: "SumLoss(EQLv2Loss, FocalLoss)"}).losses[slot]
    assert nested.losses[0].num_classes == classes


def test_channels_count_where_there_are_more_than_classes():
    model = retinanet(loss_cls="EQLv2Loss", class_to_channel=[1, 2, 4], num_channels=5)
    assert model.losses["loss_cls"].num_classes == 5


def test_anchors_are_exact_for_features_of_half_precision():
    # In bfloat16, 1280 and its neighbour are 8 apart: a box of 16 px about it would be rounded.
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


# The layer of a box slot outputs what torchvision calls the deltas of that head.


def run_and_catch(model, slot):
    """Return what the slot's layer put out in a training pass."""
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


def test_in_retinanet_the_layers_outputs_are_the_regression_heads():
    model = RetinaNet(BACKBONE, num_classes=3, anchors=TWO_RATIOS, min_size=64, max_size=64)
    heads = catch(model.detector.head.regression_head)
    levels = run_and_catch(model, "loss_bbox")
    # Strides 8, 16, 32 on 64 px, two anchors a place.
    assert [tuple(x.shape) for x in levels] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    assert torch.equal(per_anchor(levels), heads[0])


def test_in_faster_rcnn_the_layers_outputs_are_the_heads_deltas():
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
def test_other_slots_and_detectors_are_refused(detector, slot, message):
    with pytest.raises(ValueError, match=message):
        box_layer_name(detector, slot)
