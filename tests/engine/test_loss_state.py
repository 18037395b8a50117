"""The state of losses through a run: saved, resumed, averaged, and left out of weights."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn
from training import run

from det_losses.engine import build_runner
from det_losses.losses import build_loss
from det_losses.models import RetinaNet
from det_losses.registry import MODELS

ToyDetector = MODELS.get("ToyDetector")
EMA = [dict(type="EMAHook", momentum=0.3)]


@MODELS.register_module()
class StatefulToy(ToyDetector):
    """The toy with losses of this package; a softmax has the background as a third channel."""

    def __init__(self, num_classes=None, class_to_channel=None, loss_cls=None, loss_bbox=None):
        super().__init__(num_classes, class_to_channel)
        losses = {"loss_cls": build_loss(loss_cls), "loss_bbox": build_loss(loss_bbox)}
        self.losses = nn.ModuleDict(losses)
        if losses["loss_cls"].activation == "softmax":
            self.kind = nn.Linear(3, num_classes + 1)

    def forward(self, images, targets, mode="loss"):
        results = super().forward(images, targets, mode)
        for result in results if mode != "loss" else ():
            result["labels"] = result["labels"].clamp(max=self.num_classes - 1)
        return results


def model(loss_cls="EQLv2Loss", loss_bbox="WIoUv3Loss"):
    counted = {"num_classes": 2} if loss_cls in ("EQLv2Loss", "SeesawLoss") else {}
    return dict(
        type="StatefulToy",
        num_classes=None,
        loss_cls=dict(type=loss_cls, **counted),
        loss_bbox=dict(type=loss_bbox),
    )


def checkpoint(runner, epoch):
    return torch.load(Path(runner.work_dir) / f"epoch_{epoch}.pth", weights_only=True)


def buffers(runner):
    return {name: value.clone() for name, value in runner.model.losses.named_buffers()}


def same(first, second):
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Interrupt(Hook):
    """Stands for Ctrl-C in the second step of epoch 3."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 2 and batch_idx == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "losses", [("EQLv2Loss", "WIoUv3Loss"), ("SeesawLoss", "WIoUv2Loss")], ids="-".join
)
def test_interrupted_and_resumed_state_equals_uninterrupted(toy_cfg, losses):
    whole = run(toy_cfg("whole", model=model(*losses)))
    with pytest.raises(KeyboardInterrupt):
        run(toy_cfg("parts", model=model(*losses)), Interrupt())
    resumed = run(toy_cfg("parts", model=model(*losses), resume=True))
    same(buffers(resumed), buffers(whole))
    same(checkpoint(resumed, 4)["state_dict"], checkpoint(whole, 4)["state_dict"])
    # 4 epochs of 3 batches; evaluation has not counted.
    assert buffers(whole)["loss_bbox.iou_loss.batches"] == 12
    if "SeesawLoss" in losses:
        assert buffers(whole)["loss_cls.class_counts"].tolist() == [12, 12]


def test_averaged_weights_include_the_state_of_the_losses(toy_cfg):
    runner = run(toy_cfg(model=model(), custom_hooks=EMA, epochs=2))
    saved = checkpoint(runner, 2)
    for name, value in buffers(runner).items():
        # mmengine averages parameters, and copies buffers.
        assert torch.equal(saved["state_dict"][f"losses.{name}"], value)
        assert torch.equal(saved["ema_state_dict"][f"module.losses.{name}"], value)


def test_weights_load_under_another_loss(toy_cfg, record):
    trained = run(toy_cfg("trained", model=model()))
    weights = str(Path(trained.work_dir) / "epoch_4.pth")
    expected = record(trained)["metrics"]["AP"]
    other = model("BinaryCrossEntropyLoss", "GIoULoss")
    tester = build_runner(toy_cfg("other", model=other, load_from=weights), train=False)
    assert tester.test()["AP"] == pytest.approx(expected)
    # The other way the state starts from nothing.
    plain = run(toy_cfg("plain", model=other, epochs=1))
    start = str(Path(plain.work_dir) / "epoch_1.pth")
    tuned = run(toy_cfg("tuned", model=model(), load_from=start, epochs=1))
    assert buffers(tuned)["loss_bbox.iou_loss.batches"] == 3


def test_torchvisions_keys_are_the_same_whatever_the_losses():
    def retinanet(**losses):
        backbone = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
        anchors = {"sizes": [[16], [32], [64]], "aspect_ratios": [1.0]}
        return RetinaNet(backbone, num_classes=3, anchors=anchors, **losses)

    eql = dict(type="EQLv2Loss", num_classes=3)
    stateful, plain = retinanet(loss_cls=eql, loss_bbox="WIoUv3Loss"), retinanet()
    theirs = plain.detector.state_dict()
    assert stateful.detector.state_dict().keys() == theirs.keys()
    stateful.detector.load_state_dict(theirs)
    beside = stateful.state_dict().keys() - plain.state_dict().keys()
    assert beside == {
        "losses.loss_cls.positive_gradient",
        "losses.loss_cls.negative_gradient",
        "losses.loss_bbox.iou_loss.mean",
        "losses.loss_bbox.iou_loss.batches",
    }


def test_a_step_of_the_detector_moves_the_state_once():
    backbone = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
    detector = RetinaNet(
        backbone,
        num_classes=3,
        anchors={"sizes": [[16], [32], [64]], "aspect_ratios": [1.0]},
        loss_cls=dict(type="SeesawLoss", num_classes=3),
        loss_bbox="WIoUv3Loss",
        min_size=64,
        max_size=64,
    )
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
    images = [torch.rand(3, 64, 64)] * 2
    losses = detector.train()(images, [target] * 2, mode="loss")
    assert all(value.isfinite() for value in losses.values())
    counts = detector.losses["loss_cls"].class_counts
    assert counts[1] > 0 and counts[[0, 2]].sum() == 0
    assert detector.losses["loss_bbox"].iou_loss.batches == 1
    before = [value.clone() for value in detector.losses.buffers()]
    detector.eval()(images, mode="predict")
    assert all(torch.equal(a, b) for a, b in zip(before, detector.losses.buffers(), strict=True))
