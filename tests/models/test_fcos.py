"""FCOS: targets of the branches, GFL's distributions, and scores of detections."""

import pytest
import torch
from small_detectors import BOXES, SIZES, AllInputs, WithQuality, batch
from torch import nn
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.ops import box_iou

from det_losses.comparison.gradient_norm import gradient_norms
from det_losses.losses import ClassificationLoss, Loss, build_loss
from det_losses.models import FCOS
from det_losses.models.fcos_head import LinearCoder, centerness, expected_distance
from det_losses.models.slots import box_layer_name

BACKBONE = {"type": "SmallResNetFPN", "widths": (8, 8, 16, 16), "out_channels": 16}
GFL = {"loss_cls": "QualityFocalLoss", "loss_dfl": "DistributionFocalLoss"}


class Kept(Loss):
    """A loss that stores its arguments."""

    paper = "made up"

    def __init__(self, kind, activation=None):
        super().__init__()
        self.kind, self.activation = kind, activation

    def params(self):
        return {}

    def unreduced(self, pred, target, weight=None):
        return pred * 0

    def forward(self, pred, target, weight=None, avg_factor=None, **_):
        self.got = dict(pred=pred, target=target, weight=weight, avg_factor=avg_factor)
        return pred.sum() * 0


class LabelsOnly(ClassificationLoss):
    """A sigmoid loss without soft targets."""

    paper, activation = "made up", "sigmoid"

    def unreduced(self, pred, target, weight=None):
        if target.is_floating_point():
            raise ValueError("labels only")
        return pred * 0


def fcos(**kwargs):
    """A small model whose predicted distances are positive before training."""
    torch.manual_seed(0)
    arguments = {"anchor_sizes": (8, 16), "num_convs": 1, "min_size": 64, "max_size": 100}
    model = FCOS(BACKBONE | {"extra_levels": None}, 3, **{**arguments, **kwargs})
    nn.init.normal_(model.detector.head.regression_head.bbox_reg.weight, std=0.2)
    nn.init.constant_(model.detector.head.regression_head.bbox_reg.bias, 1.5)
    return model


def losses_of(model):
    return model(*batch(), mode="loss")


class TestGeometry:
    def test_a_distribution_at_k_is_a_distance_of_k_strides(self):
        # A box whose sides are 1, 2, 3 and 5 strides of 16 px to the left of, above, to the right
        # of and below the location (100, 60); all probability is at these integers.
        logits = torch.full((4, 9), -100.0)
        logits[range(4), [1, 2, 3, 5]] = 100.0
        distance = expected_distance(logits.flatten()[None])
        torch.testing.assert_close(distance, torch.tensor([[1.0, 2.0, 3.0, 5.0]]))
        anchor = torch.tensor([[92.0, 52.0, 108.0, 68.0]])
        box = LinearCoder().decode_single(distance, anchor)
        torch.testing.assert_close(box, torch.tensor([[84.0, 28.0, 148.0, 140.0]]))

    def test_mass_on_two_neighbours_is_a_distance_between_them(self):
        # A quarter of the mass at 4 and three quarters at 5; and a uniform one: the mean of 0..8.
        logits = torch.full((2, 4, 9), -1e4)
        logits[0, :, 4], logits[0, :, 5] = 0.25, 0.75
        logits[0, :, 4:6] = logits[0, :, 4:6].log()
        logits[1] = 3.0
        distance = expected_distance(logits.flatten(1).double())
        want = torch.tensor([[4.75] * 4, [4.0] * 4], dtype=torch.float64)
        torch.testing.assert_close(distance, want)

    def test_half_precision_is_computed_in_float32(self):
        assert expected_distance(torch.zeros(1, 68).bfloat16()).dtype == torch.float32

    def test_encoding_equals_torchvision_and_can_be_inverted(self):
        # A box 2 strides of 8 px to the left, 1 up, 3 right, half a stride down from (40, 40).
        anchor = torch.tensor([[36.0, 36.0, 44.0, 44.0]])
        box = torch.tensor([[24.0, 32.0, 64.0, 44.0]])
        deltas = LinearCoder().encode_single(box, anchor)
        torch.testing.assert_close(deltas, torch.tensor([[2.0, 1.0, 3.0, 0.5]]))
        assert torch.equal(deltas, BoxLinearCoder().encode(anchor, box))
        assert torch.equal(LinearCoder().decode_single(deltas, anchor), box)

    def test_centerness(self):
        # At the centre 1; at a quarter of the width 1/3 in x only, so its root; on a side 0.
        deltas = torch.tensor([[2.0, 3, 2, 3], [1, 4, 3, 4], [0, 1, 2, 1], [1, 1, 3, 3]])
        want = torch.tensor([1.0, 3**-0.5, 0.0, 1 / 3])
        torch.testing.assert_close(centerness(deltas), want)


class TestInputs:
    @pytest.mark.parametrize("more", [{}, GFL])
    def test_the_inputs_of_a_box_loss_belong_to_its_boxes(self, more):
        loss = AllInputs()
        losses_of(fcos(loss_bbox=loss, **more))
        got, truth = loss.got, torch.cat([torch.tensor(boxes) for boxes in BOXES])
        same = (got["target"][:, None] == truth).all(-1)
        assert (same.sum(1) == 1).all() and same.any(0).all()
        which = same.int().argmax(1)
        torch.testing.assert_close(got["image_size"], SIZES[torch.tensor([0, 0, 1])[which]])
        assert torch.equal(got["labels"], torch.tensor([0, 1, 0])[which])
        assert got["logits"].shape == (len(which), 3)
        # A positive's location lies inside its box; a larger delta moves a side outwards.
        assert (got["target_deltas"] > 0).all()
        shift = (got["pred_deltas"] - got["target_deltas"]) / (got["pred"] - got["target"])
        sides = torch.tensor([-1.0, -1.0, 1.0, 1.0])
        strides = 1 / (shift * sides)
        near = torch.tensor([8.0, 16.0])
        assert (strides[..., None] - near).abs().amin(-1).max() < 0.01

    def test_quality_is_the_iou_of_the_predicted_box_and_zero_for_background(self):
        quality, boxes = WithQuality(), AllInputs()
        losses_of(fcos(loss_cls=quality, loss_bbox=boxes))
        labels = quality.got["labels"]
        expected = box_iou(boxes.got["pred"].detach(), boxes.got["target"]).diagonal()
        torch.testing.assert_close(quality.got["quality"][labels < 3], expected)
        assert expected.max() > 0.1 and not quality.got["quality"].requires_grad
        assert (quality.got["quality"][labels == 3] == 0).all() and (labels == 3).any()
        assert torch.equal(boxes.got["labels"], labels[labels < 3])

    @pytest.mark.parametrize("target", ["centerness", "iou"])
    def test_the_branch_target_follows_its_argument(self, target):
        branch, boxes = Kept("classification", "sigmoid"), AllInputs()
        losses_of(fcos(loss_centerness=branch, loss_bbox=boxes, centerness_target=target))
        got = boxes.got
        left, top, right, bottom = got["target_deltas"].unbind(1)
        want = {
            "iou": box_iou(got["pred"].detach(), got["target"]).diagonal(),
            "centerness": (
                torch.minimum(left, right)
                / torch.maximum(left, right)
                * torch.minimum(top, bottom)
                / torch.maximum(top, bottom)
            ).sqrt(),
        }[target]
        torch.testing.assert_close(branch.got["target"], want[:, None])
        assert branch.got["pred"].shape == branch.got["target"].shape
        assert not branch.got["target"].requires_grad
        assert branch.got["avg_factor"] == len(want)

    @pytest.mark.parametrize("box_weight", ["uniform", "centerness", "score", "iou"])
    def test_box_weights_are_those_of_the_positives(self, box_weight):
        boxes, sides = Kept("box"), Kept("distribution")
        boxes.space, boxes.inputs = "decoded", ()
        model = fcos(loss_bbox=boxes, loss_dfl=sides, box_weight=box_weight, reg_max=8)
        logits = {}
        model.detector.head.register_forward_hook(lambda _m, _i, out: logits.update(out))
        losses_of(model)
        count, got = len(boxes.got["pred"]), boxes.got
        anchor_sides = sides.got["target"].unflatten(0, (-1, 4))
        assert sides.got["pred"].shape == (4 * count, 9)
        if box_weight == "uniform":
            assert got["weight"] is None and got["avg_factor"] == count
            assert sides.got["weight"] is None and sides.got["avg_factor"] == 4 * count
            return
        if box_weight == "centerness":
            want = centerness(anchor_sides)
        elif box_weight == "iou":
            want = box_iou(got["pred"].detach(), got["target"]).diagonal()
        else:
            seen = []
            compute = model.detector.head.compute_loss
            model.detector.head.compute_loss = lambda *a: seen.append(a[3]) or compute(*a)
            losses_of(model)
            positive = torch.stack(seen[0]) >= 0
            want = logits["cls_logits"][positive].sigmoid().max(1).values.detach()
        torch.testing.assert_close(got["weight"], want)
        torch.testing.assert_close(got["avg_factor"], want.sum())
        torch.testing.assert_close(sides.got["weight"], want[:, None].expand(-1, 4).flatten())
        torch.testing.assert_close(sides.got["avg_factor"], 4 * want.sum())
        assert not got["weight"].requires_grad

    def test_distribution_targets_are_the_distances_up_to_n(self):
        boxes, sides = AllInputs(), Kept("distribution")
        losses_of(fcos(loss_bbox=boxes, loss_dfl=sides, reg_max=2))
        truth = boxes.got["target_deltas"]
        assert truth.max() > 2
        torch.testing.assert_close(sides.got["target"].view(-1, 4), truth.clamp(max=2))
        # What each row decodes to is what the box loss sees.
        distance = sides.got["pred"].softmax(-1) @ torch.arange(3.0)
        torch.testing.assert_close(distance.view(-1, 4), boxes.got["pred_deltas"])


class TestBranches:
    def test_the_default_head_has_torchvisions_losses(self):
        assert set(losses_of(fcos())) == {"loss_cls", "loss_bbox", "loss_centerness"}

    def test_gfl_has_a_distribution_for_each_side_and_no_centerness(self):
        model = fcos(**GFL)
        head = model.detector.head.regression_head
        assert head.bbox_reg.out_channels == 4 * 17
        assert not [name for name in model.detector.state_dict() if "ctrness" in name]
        losses = losses_of(model)
        assert set(losses) == {"loss_cls", "loss_bbox", "loss_dfl"} == set(model.losses)
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    def test_logits_of_a_distribution_are_not_clamped(self):
        # There is no ReLU: logits may be negative.
        model = fcos(loss_dfl="DistributionFocalLoss", reg_max=4)
        layer = model.detector.head.regression_head.bbox_reg
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, -5.0)
        out = model.detector.head.regression_head([torch.rand(1, 16, 2, 3)])
        torch.testing.assert_close(out["bbox_regression"], torch.full((1, 6, 4), 2.0))

    def test_losses_change_no_initial_weight(self):
        plain = fcos().detector.state_dict()
        for losses in (GFL, {"loss_cls": "VarifocalLoss"}, {"loss_dfl": "DistributionFocalLoss"}):
            other = fcos(**losses).detector.state_dict()
            shared = {n for n in other if "bbox_reg" not in n}
            assert set(plain) - shared <= {n for n in plain if "bbox_" in n}
            assert all(torch.equal(plain[name], other[name]) for name in shared)

    def test_a_distribution_does_not_change_later_random_numbers(self):
        drawn = []
        for losses in ({}, GFL):
            torch.manual_seed(0)
            FCOS(BACKBONE | {"extra_levels": None}, 3, anchor_sizes=(8, 16), **losses)
            drawn.append(torch.rand(3))
        assert torch.equal(*drawn)

    def test_an_image_without_boxes_trains(self):
        for losses in ({}, GFL | {"box_weight": "score"}):
            model = fcos(**losses)
            images, targets = batch()
            empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
            alone = model(images[:1], [empty], mode="loss")
            assert all(value.isfinite() for value in alone.values())
            assert alone["loss_bbox"] == 0 and alone["loss_cls"] > 0
            sum(alone.values()).backward()
            assert all(p.grad is not None for p in model.detector.head.parameters())
            sum(model(images, [empty, targets[1]], mode="loss").values()).backward()

    def test_under_autocast_losses_stay_in_float32(self):
        with torch.autocast("cpu", torch.bfloat16):
            losses = losses_of(fcos(**GFL, box_weight="score"))
        assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())

    @pytest.mark.parametrize("losses", [{}, GFL])
    def test_under_autocast_boxes_and_anchors_are_exact(self, losses):
        # bfloat16 has steps of 8 at 1280: anchors of 8 px would have no width there.
        model = fcos(**losses, max_size=1400)
        image = torch.rand(3, 64, 1400)
        target = {"boxes": torch.tensor([[1283.3, 10, 1331.7, 50]]), "labels": torch.tensor([1])}
        seen = []
        model.detector.anchor_generator.register_forward_hook(lambda _m, _i, o: seen.append(o[0]))
        model.detector.head.register_forward_hook(lambda _m, _i, o: seen.append(o))
        with torch.autocast("cpu", torch.bfloat16):
            found = model([image], [target], mode="loss")
        outputs, anchors = seen
        assert outputs["cls_logits"].dtype == torch.bfloat16
        assert outputs["bbox_regression"].dtype == anchors.dtype == torch.float32
        sides = anchors[:, 2:] - anchors[:, :2]
        assert torch.equal(sides.unique(), torch.tensor([8.0, 16.0]))
        assert all(value.isfinite() and value > 0 for value in found.values())


class TestScores:
    def predictions(self, model):
        outputs = {}
        model.detector.head.register_forward_hook(lambda _m, _i, out: outputs.update(out))
        nn.init.normal_(model.detector.head.classification_head.cls_logits.weight, std=2.0)
        with torch.no_grad():
            found = model.eval()([torch.rand(3, 64, 64)], mode="predict")[0]["scores"]
        return found, outputs

    def test_without_the_branch_the_class_score_is_the_score(self):
        found, outputs = self.predictions(fcos(loss_cls="QualityFocalLoss", score_thresh=0.05))
        scores = outputs["cls_logits"].sigmoid().flatten()
        assert len(found) and found.max() == scores.max()
        assert torch.isin(found, scores).all()

    def test_with_the_branch_the_score_is_the_root_of_the_product(self):
        found, outputs = self.predictions(fcos(score_thresh=0.05))
        scores = (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()
        assert len(found) and torch.isin(found, scores.flatten()).all()


class TestRawOutput:
    def test_the_layer_outputs_distances_or_logits(self):
        for losses, channels in (({}, 4), (GFL, 68)):
            model = fcos(**losses)
            outputs = []
            layer = model.get_submodule(box_layer_name(FCOS, "loss_bbox"))
            layer.register_forward_hook(lambda _m, _i, out, kept=outputs: kept.append(out))
            out = model.detector.head.regression_head([torch.rand(1, 16, 4, 6)])
            assert outputs[0].shape == (1, channels, 4, 6)
            # Row-major order: location (1, 2) of 4 x 6 has index 8.
            raw = outputs[0][:, :, 1, 2]
            want = expected_distance(raw) if losses else raw.relu()
            torch.testing.assert_close(out["bbox_regression"][:, 8], want)

    @pytest.mark.parametrize("more", [{}, GFL | {"box_weight": "score"}])
    def test_gradient_norms_scale_with_the_weight(self, more):
        model = fcos(**more)
        images, targets = batch()
        losses = {w: build_loss("GIoULoss", loss_weight=w) for w in (1.0, 3.0)}
        losses["L1"] = build_loss("L1Loss")
        found = gradient_norms(model, {"images": images, "targets": targets}, "loss_bbox", losses)
        assert found[1.0] > 0 and found["L1"] > 0
        assert found[3.0] == pytest.approx(3 * found[1.0], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_cls": "CrossEntropyLoss"}, "FCOS.loss_cls scores by sigmoid, and CrossEntropyLoss"),
        ({"loss_bbox": "FocalLoss"}, "FCOS.loss_bbox takes a box loss"),
        (
            {"loss_dfl": "GIoULoss"},
            "FCOS.loss_dfl takes a distribution loss, and GIoULoss is a box",
        ),
        ({"loss_cls": "DistributionFocalLoss"}, "takes a classification loss"),
        (
            {"loss_cls": "VarifocalLoss", "loss_centerness": "BinaryCrossEntropyLoss"},
            "FCOS.loss_centerness: VarifocalLoss scores by the quality itself.*remove",
        ),
        ({"loss_centerness": LabelsOnly()}, "targets between 0 and 1, and LabelsOnly accepts"),
        ({"centerness_target": "giou"}, "must be 'centerness' or 'iou', got 'giou'"),
        (
            {"loss_cls": "QualityFocalLoss", "centerness_target": "iou"},
            "centerness_target has no effect",
        ),
        ({"box_weight": "area"}, "box_weight must be one of .*'score'.* got 'area'"),
        ({"reg_max": 8}, "reg_max has no effect without loss_dfl"),
        ({"reg_max": 0, **GFL}, "reg_max must be at least 1, got 0"),
        ({"num_convs": 0}, "num_convs must be at least 1, got 0"),
        (
            {"anchor_sizes": (8, 16, 32)},
            r"needs one size for each of the backbone's 2 levels \(0, 1\), got \(8, 16, 32",
        ),
        ({"head_norm": "LN"}, "norm must be one of"),
        ({"class_to_channel": [0, 1]}, "class_to_channel must be 3 different channels"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fcos(**arguments)


def test_an_unknown_argument_is_refused_where_torchvision_ignores_it():
    with pytest.raises(TypeError, match=r"FCOS has no argument 'score_tresh'.*score_thresh"):
        fcos(score_tresh=0.1)


def test_the_heads_norm_is_chosen_by_name():
    kinds = {"GN": nn.GroupNorm, "BN": nn.BatchNorm2d, None: nn.Identity}
    for name, kind in kinds.items():
        head = fcos(head_norm=name).detector.head
        for branch in (head.classification_head, head.regression_head):
            assert isinstance(branch.conv[1], kind)
