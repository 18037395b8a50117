"""The gradient probe finds a wrong loss, passes every right one, and leaves no trace."""

import copy
import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from slot_losses import losses_of_slot
from torch import nn

from det_losses.engine import LossProofError, probe_losses
from det_losses.engine.proof import named_losses
from det_losses.losses import Loss, build_loss
from det_losses.models import FCOS, FasterRCNN, RetinaNet
from det_losses.registry import MODELS

BACKBONE = {"type": "SmallResNetFPN", "widths": (8, 8, 16), "out_channels": 8, "norm": "BN"}
COMMON = dict(
    num_classes=3,
    backbone=BACKBONE | {"extra_levels": None},
    min_size=64,
    max_size=64,
)
ANCHORS = {"sizes": [[16, 32]], "aspect_ratios": [1.0]}
OWN = {
    RetinaNet: dict(anchors=ANCHORS),
    FasterRCNN: dict(
        anchors=ANCHORS, representation_size=8, roi_size=2, rpn_pre_nms_top_n_train=20
    ),
    FCOS: dict(anchor_sizes=(8,), num_convs=1),
}


def batch(boxes=2):
    """Two images, the first with boxes."""
    generator = torch.Generator().manual_seed(2)
    box = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 24.0, 62.0, 60.0]])[:boxes]
    targets = [
        {"boxes": box, "labels": torch.tensor([0, 1])[:boxes]},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return {
        "images": [torch.rand(3, 64, 64, generator=generator) for _ in "ab"],
        "targets": targets,
    }


def build(detector=RetinaNet, **losses):
    torch.manual_seed(0)
    own = next(OWN[cls] for cls in detector.__mro__ if cls in OWN)
    return detector(**COMMON, **own, **losses)


def probe(model, config, *batches):
    return probe_losses(model, named_losses(model, config), batches or [batch()])


def every_slot():
    for detector in (RetinaNet, FasterRCNN, FCOS):
        for slot in detector.slots:
            for info in losses_of_slot(detector, slot):
                name = f"{detector.__name__}-{slot}-{info.name}"
                yield pytest.param(detector, slot, info.config, id=name)


@pytest.mark.parametrize(("detector", "slot", "loss"), list(every_slot()))
def test_every_loss_in_every_slot_is_proved(detector, slot, loss):
    model = build(detector, **{slot: loss})
    found = probe(model, {slot: loss})
    assert found.keys() == model.losses.keys() and slot in found
    assert all(0 <= difference < 1e-6 for difference in found.values()), found


class TestFaults:
    """Each in RetinaNet's box loss, whose config names GIoU with weight 2."""

    config: ClassVar = {"loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0}}

    def refused(self, model, message):
        with pytest.raises(LossProofError, match=message) as error:
            probe(model, self.config)
        assert str(error.value).startswith("loss_bbox: the config names GIoULoss(eps=1e-07, reduct")

    def changed(self, change, **losses):
        """Return a model whose head changes the dict of losses that it has computed."""
        model = build(**(losses or self.config))
        head = model.detector.head
        compute = head.compute_loss

        def compute_loss(targets, outputs, *rest):
            return change(compute(targets, outputs, *rest), outputs)

        head.compute_loss = compute_loss
        return model

    @staticmethod
    def smooth_l1(outputs):
        deltas = outputs["bbox_regression"]
        return nn.functional.smooth_l1_loss(deltas, torch.full_like(deltas, 0.5))

    def test_the_right_model_passes(self):
        assert probe(self.changed(lambda losses, _: losses), self.config)["loss_bbox"] < 1e-6

    def test_a_head_that_computes_its_own_loss(self):
        class Ignoring(RetinaNet):
            def forward(self, images, targets=None, mode="tensor"):
                inside = self.detector.head.losses["loss_bbox"]
                self.detector.head.losses["loss_bbox"] = build_loss("SmoothL1Loss")
                try:
                    return super().forward(images, targets, mode)
                finally:
                    self.detector.head.losses["loss_bbox"] = inside

        model = build(Ignoring, **self.config)
        self.refused(model, r"computes it without calling model.losses\['loss_bbox'\]")

    def test_a_head_that_calls_the_loss_and_drops_the_result(self):
        own = lambda losses, outputs: losses | {"loss_bbox": self.smooth_l1(outputs)}  # noqa: E731
        self.refused(self.changed(own), r"not that loss's: the two differ by .* 1 time\(s\)")

    def test_a_head_that_adds_a_term_of_its_own(self):
        def more(losses, outputs):
            return losses | {"loss_bbox": losses["loss_bbox"] + self.smooth_l1(outputs)}

        self.refused(self.changed(more), "the two differ by")

    def test_a_head_that_reports_no_such_loss(self):
        only = lambda losses, _: {"loss_cls": losses["loss_cls"]}  # noqa: E731
        self.refused(self.changed(only), "reports no loss_bbox, only loss_cls")

    def test_a_head_that_reports_the_loss_without_its_graph(self):
        cut = lambda losses, _: losses | {"loss_bbox": losses["loss_bbox"].detach()}  # noqa: E731
        self.refused(self.changed(cut), "the two differ by 1 of its norm")

    @pytest.mark.parametrize("everywhere", [True, False])
    def test_a_loss_swapped_after_the_build(self, everywhere):
        model = build(**self.config)
        model.losses["loss_bbox"] = build_loss("GIoULoss", eps=1e-3, loss_weight=2.0)
        if everywhere:
            model.detector.head.losses["loss_bbox"] = model.losses["loss_bbox"]
        self.refused(model, r"the model holds GIoULoss\(eps=0.001")

    def test_a_loss_swapped_in_the_head_alone(self):
        model = build(**self.config)
        model.detector.head.losses["loss_bbox"] = build_loss(self.config["loss_bbox"])
        self.refused(model, "without calling")

    def test_a_loss_changed_behind_its_parameters(self):
        model = build(**self.config)
        loss = model.losses["loss_bbox"]
        loss.unreduced = lambda pred, target, weight=None: (pred - target).square().sum(-1)
        self.refused(model, "the two differ by")

    def test_another_weight(self):
        message = "the model holds GIoULoss.eps=1e-07, reduction='mean', loss_weight=2.5"
        self.refused(build(loss_bbox="GIoULoss"), message)

    @pytest.mark.parametrize(("factor", "passes"), [(1 + 2e-5, True), (1 + 1e-3, False)])
    def test_the_difference_is_relative_to_the_named_losss_gradient(self, factor, passes):
        # A gradient times 1 + d differs by d of its norm.
        scale = lambda losses, _: losses | {"loss_bbox": factor * losses["loss_bbox"]}  # noqa: E731
        model = self.changed(scale)
        if passes:
            found = probe(model, self.config)
            assert found["loss_bbox"] == pytest.approx(2e-5, rel=0.05)
        else:
            self.refused(model, r"differ by 0\.001 of its norm \(at most 0.0001\)")


class TestNamed:
    def test_a_slot_without_config_has_the_detectors_default(self):
        model = build()
        assert probe(model, {"loss_bbox": None}).keys() == {"loss_cls", "loss_bbox"}
        with pytest.raises(LossProofError, match=r"names L1Loss.*holds SmoothL1Loss"):
            probe(build(loss_bbox="SmoothL1Loss"), {})

    def test_a_loss_given_by_its_name(self):
        assert probe(build(loss_bbox="EIoULoss"), {"loss_bbox": "EIoULoss"})["loss_bbox"] < 1e-6

    def test_a_model_without_a_config_is_held_to_what_it_holds(self):
        assert probe(build(loss_bbox="EIoULoss"), None)["loss_bbox"] < 1e-6

    def test_it_is_another_object(self):
        model = build()
        named = named_losses(model, {})
        assert named["loss_bbox"] is not model.losses["loss_bbox"]


class TestBatches:
    def test_a_batch_without_positives_is_passed_over(self):
        model = build(loss_bbox="GIoULoss")
        config = {"loss_bbox": "GIoULoss"}
        assert probe(model, config, batch(boxes=0))["loss_bbox"] is None
        assert probe(model, config, batch(boxes=0), batch())["loss_bbox"] < 1e-6

    def test_no_more_batches_are_taken_than_needed(self):
        taken = iter([batch(), None])
        assert probe(build(), {}, *[]) and probe_losses(build(), named_losses(build(), {}), taken)
        assert next(taken) is None

    def test_a_weight_of_zero_is_the_named_losss_gradient(self):
        config = {"loss_bbox": {"type": "GIoULoss", "loss_weight": 0.0}}
        assert probe(build(**config), config)["loss_bbox"] == 0


class Moody(Loss):
    """Draws, counts and averages: every kind of state that a loss may have."""

    kind, space, paper = "box", "delta", ""

    def __init__(self, *, reduction="mean", loss_weight=1.0):
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.register_buffer("mean", torch.rand(()))
        self.register_buffer("last", None)
        self.register_buffer("steps", torch.zeros(()), persistent=False)
        self.count, self.seen, self.own = 0, [], np.random.default_rng(3)

    def unreduced(self, pred, target, weight=None):
        error = (pred - target).abs()
        self.count += 1
        self.steps += 1
        self.seen.append(self.own.random())
        self.last = error.mean().detach()
        self.graph = error.sum()
        self.mean.mul_(0.5).add_(self.last, alpha=0.5)
        noise = torch.rand(1) + random.random() + np.random.rand()
        return error * self.mean * noise * self.steps


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, "Moody", Moody)


def states():
    python, (_, keys, *rest) = random.getstate(), np.random.get_state()
    return python, keys.tolist(), rest, torch.get_rng_state().tolist()


def snapshot(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {name: (id(value), value.detach().clone()) for name, value in tensors.items()},
        {name: module.training for name, module in model.named_modules()},
        {name: value.clone() for name, value in model.state_dict().items()},
    )


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class TestUntouched:
    @pytest.mark.parametrize("detector", [RetinaNet, FasterRCNN])
    def test_model_generators_and_loss_are_what_they_were(self, detector, moody):
        model = build(detector, loss_bbox="Moody")
        model.eval()
        model.detector.backbone.train()
        loss = model.losses["loss_bbox"]
        # A state other than the first; with a result and its graph, which cannot be copied.
        loss(torch.zeros(1, 4, requires_grad=True), torch.ones(1, 4))
        kept = ("count", "seen", "last")
        before = snapshot(model), states(), [copy.copy(getattr(loss, key)) for key in kept]
        own, graph = loss.own.bit_generator.state, loss.graph
        found = probe(model, {"loss_bbox": "Moody"}, batch(), batch())
        # A loss that draws and averages is proved too: same numbers drawn, same buffers.
        assert found["loss_bbox"] < 1e-6
        assert same(before[0], snapshot(model))
        assert before[1] == states()
        assert [getattr(loss, key) for key in kept] == before[2]
        assert loss.own.bit_generator.state == own
        assert loss.graph is graph
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not loss._forward_pre_hooks

    def test_after_an_error_too(self):
        model = build(loss_bbox="GIoULoss")
        before = snapshot(model), states()
        model.detector.head.losses["loss_bbox"] = build_loss("GIoULoss")
        with pytest.raises(LossProofError):
            probe(model, {"loss_bbox": "GIoULoss"})
        assert same(before[0], snapshot(model))
        assert before[1] == states()

    def test_statistics_over_processes_are_left_out(self):
        # One process probes; others would be waited for.
        class Noting(nn.SyncBatchNorm):
            def forward(self, x):
                modes.append(self.training)
                return super().forward(x)

        modes, model = [], build()
        stem = model.detector.backbone.body.stem
        stem[1] = Noting(stem[1].num_features)
        assert probe(model, {})["loss_bbox"] < 1e-6
        assert modes == [False]
        assert stem[1].training
