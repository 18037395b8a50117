"""Runs that differ in a loss share weights, order, augmentation and sampling."""

import hashlib
import json
import runpy
from itertools import chain
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from det_losses.engine import build_runner
from det_losses.losses import Loss
from det_losses.registry import MODELS

RUNTIME = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "runtime.py"
EPOCHS, STEPS = 2, 3  # six images, two a step
MODEL = dict(
    num_classes=None,
    backbone=dict(type="SmallResNetFPN", widths=(8, 8, 16, 16), out_channels=8, extra_levels=None),
    anchors=dict(sizes=[[12], [32]], aspect_ratios=[0.5, 1.0, 2.0]),
    min_size=64,
    max_size=96,
)
RETINANET = dict(type="RetinaNet", **MODEL)
FASTER_RCNN = dict(
    type="FasterRCNN",
    **MODEL,
    representation_size=16,
    roi_size=3,
    rpn_post_nms_top_n_train=40,
    rpn_batch_size_per_image=16,
    box_batch_size_per_image=16,
)


@pytest.fixture(autouse=True)
def drawing_loss(monkeypatch):
    """Register a loss that draws random numbers when it is built and whenever it is called."""

    class DrawingLoss(Loss):
        kind, space, paper = "box", "delta", ""

        def __init__(self, *, reduction="mean", loss_weight=1.0):
            super().__init__(reduction=reduction, loss_weight=loss_weight)
            self.register_buffer("scale", 1 + torch.rand(7).mean())

        def unreduced(self, pred, target, weight=None):
            return (pred - target).abs() * self.scale * torch.rand_like(pred)

    monkeypatch.setitem(MODELS.module_dict, "DrawingLoss", DrawingLoss)


class Witness(Hook):
    """Keep what reaches the model in each step, and what Faster R-CNN samples there."""

    def __init__(self, stop_after=None):
        self.ids, self.pixels, self.anchors, self.proposals = {}, {}, {}, {}
        self.stop_after = stop_after
        self.step = None

    def before_train(self, runner):
        model = runner.model
        model.register_forward_pre_hook(self.note_batch, with_kwargs=True)
        for part, kept in (("rpn", self.anchors), ("roi_heads", self.proposals)):
            if hasattr(model.detector, part):
                self.note_samples(getattr(model.detector, part), kept)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.step = runner.iter

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.step = None

    def after_train_epoch(self, runner):
        if self.stop_after == runner.epoch:
            raise KeyboardInterrupt

    def note_batch(self, model, args, kwargs):
        if self.step is not None:
            self.ids[self.step] = [target["image_id"] for target in kwargs["targets"]]
            self.pixels[self.step] = [
                hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in kwargs["images"]
            ]

    def note_samples(self, part, kept):
        sample = part.fg_bg_sampler

        def noted(labels):
            masks = sample(labels)
            kept[self.step] = [mask.nonzero().flatten().tolist() for mask in chain(*masks)]
            return masks

        part.fg_bg_sampler = noted


@pytest.fixture
def train(tmp_path, tiny_coco):
    """Train for two epochs; returns the witness and metrics.json."""
    data = tiny_coco()

    def run(name, model, workers=0, stop_after=None, **changes):
        cfg = {k: v for k, v in runpy.run_path(str(RUNTIME)).items() if not k.startswith("__")}
        cfg |= dict(
            work_dir=str(tmp_path / name),
            model=model,
            train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01)),
            train_dataloader=dict(
                batch_size=2,
                num_workers=workers,
                sampler=dict(type="DefaultSampler", shuffle=True),
                dataset=dict(
                    type="CocoDataset",
                    ann_file=data.ann_file,
                    image_dir=data.image_dir,
                    transforms=[
                        dict(type="RandomHorizontalFlip", p=0.5),
                        dict(type="ColorJitter", brightness=0.5, hue=0.3),
                    ],
                ),
            ),
        )
        cfg |= changes
        runner, witness = build_runner(cfg), Witness(stop_after)
        runner.register_hook(witness, priority="LOWEST")
        if stop_after is not None:
            with pytest.raises(KeyboardInterrupt):
                runner.train()
            return witness, None
        runner.train()
        return witness, json.loads((tmp_path / name / "metrics.json").read_text())

    return run


def epoch(steps, number):
    """Return what an epoch's steps gave, in one list."""
    return list(chain(*(steps[step] for step in range(number * STEPS, (number + 1) * STEPS))))


def test_two_losses_see_the_same_weights_order_and_pixels(train):
    plain, drawing = RETINANET | {"loss_bbox": "L1Loss"}, RETINANET | {"loss_bbox": "DrawingLoss"}
    first, record = train("l1", plain)
    assert sorted(first.ids) == list(range(EPOCHS * STEPS))
    others = [
        train("l1_workers", plain, workers=2),
        train("drawing", drawing),
        train("drawing_workers", drawing, workers=2),
    ]
    stopped, _ = train("stopped", drawing, workers=2, stop_after=0)
    assert sorted(stopped.ids) == list(range(STEPS))
    resumed, resumed_record = train("stopped", drawing, workers=2, resume=True)
    assert sorted(resumed.ids) == list(range(STEPS, EPOCHS * STEPS))
    resumed.ids |= stopped.ids
    resumed.pixels |= stopped.pixels
    for witness, other in [*others, (resumed, resumed_record)]:
        assert witness.ids == first.ids
        assert witness.pixels == first.pixels
        assert other["initial_weights"] == record["initial_weights"]
    # The two losses are two: they end with other weights.
    assert others[1][1]["losses"] != record["losses"]

    epochs = [
        dict(zip(epoch(first.ids, number), epoch(first.pixels, number), strict=True))
        for number in range(EPOCHS)
    ]
    assert len(epochs[0]) == len(epochs[1]) == 6
    assert list(epochs[0]) != list(epochs[1])  # shuffled anew
    assert all(epochs[0][image_id] != epochs[1][image_id] for image_id in epochs[0])

    witness, other = train("seed", plain, randomness=dict(seed=1))
    assert witness.pixels != first.pixels
    assert other["initial_weights"] != record["initial_weights"]


def test_faster_rcnn_samples_the_same_anchors_and_proposals(train):
    # The anchors that match do not depend on weights, so they are the same in every step; the
    # proposals do, so those of the first step are. A loss of the RPN draws before they are sampled.
    first, record = train("smooth_l1", FASTER_RCNN)
    slots = {"loss_rpn_bbox": "DrawingLoss", "loss_bbox": "DrawingLoss"}
    witness, other = train("drawing", FASTER_RCNN | slots, workers=2)
    assert other["initial_weights"] == record["initial_weights"]
    assert witness.pixels == first.pixels
    for step in range(EPOCHS * STEPS):
        assert witness.anchors[step] == first.anchors[step]
    assert witness.proposals[0] == first.proposals[0]
    assert sum(map(len, first.anchors[0])) == 2 * 16 == sum(map(len, first.proposals[0]))
