"""The gradient on the raw box output: closed forms, finite differences, nothing changed."""

import copy
import math
import random

import numpy as np
import pytest
import torch

from det_losses import build_loss, list_losses
from det_losses.comparison.gradient_norm import FixedBatches, gradient_norm, gradient_norms
from det_losses.losses import GIoULoss
from det_losses.models import FasterRCNN, RetinaNet

BACKBONE = {"type": "SmallResNetFPN", "out_channels": 16, "extra_levels": None}
LEVELS = {"sizes": [[16], [32], [64]], "aspect_ratios": [1.0]}


def retinanet(size=64, **kwargs):
    torch.manual_seed(0)
    return RetinaNet(BACKBONE, 3, anchors=LEVELS, min_size=size, max_size=size, **kwargs)


def faster_rcnn(**kwargs):
    torch.manual_seed(0)
    return FasterRCNN(
        BACKBONE,
        3,
        anchors=LEVELS,
        representation_size=32,
        roi_size=3,
        min_size=64,
        max_size=64,
        **kwargs,
    )


def batch(*boxes, size=64):
    """Images of noise, each with the boxes given for it; class 0."""
    generator = torch.Generator().manual_seed(1)
    targets = [
        {"boxes": torch.tensor(b).reshape(-1, 4), "labels": torch.zeros(len(b), dtype=torch.int64)}
        for b in boxes
    ]
    images = [torch.rand(3, size, size, generator=generator) for _ in boxes]
    return {"images": images, "targets": targets}


# Anchors of 32 px stand at multiples of 16, so these two are anchors themselves (IoU 1). Their
# neighbours have IoU 1/3 (shifted by half a side), anchors of 16 and 64 px have 1/4: no other
# anchor is positive.
FIRST, SECOND = [0.0, 0.0, 32.0, 32.0], [32.0, 32.0, 64.0, 64.0]


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        # |x - t| has the derivative +1 or -1 in each of an anchor's four deltas. The sum over
        # positives is divided by their number, three: sqrt(3 * 4) / 3.
        ("batch", math.sqrt(12) / 3),
        # Of two images each, by its own positives (one, two), halved:
        # sqrt(4 * (1/2)^2 + 8 * (1/4)^2).
        ("image", math.sqrt(1.5)),
    ],
)
def test_l1_in_retinanet_has_a_sign_for_each_delta_of_a_positive(normalizer, expected):
    model = retinanet(loss_bbox="L1Loss", normalizer=normalizer)
    norm = gradient_norm(model, batch([FIRST], [FIRST, SECOND]), "loss_bbox")
    assert norm == pytest.approx(expected, rel=1e-6)


def test_l1_in_faster_rcnn_is_divided_by_all_that_was_sampled():
    # RPN: the three anchors are positive, 16 anchors are sampled in each of two images.
    model = faster_rcnn(loss_rpn_bbox="L1Loss", rpn_batch_size_per_image=16)
    norm = gradient_norm(model, batch([FIRST], [FIRST, SECOND]), "loss_rpn_bbox")
    assert norm == pytest.approx(math.sqrt(12) / 32, rel=1e-6)
    # RoI head: untrained proposals are nearly the anchors, squares, which overlap with these boxes
    # of 44 x 20 by less than 0.9. So the ground truth itself, which torchvision adds to the
    # proposals, is all that is positive: three of 8 sampled in each of two images.
    wide, low = [4.0, 9.0, 48.0, 29.0], [12.0, 38.0, 56.0, 58.0]
    model = faster_rcnn(loss_bbox="L1Loss", box_batch_size_per_image=8, box_fg_iou_thresh=0.9)
    norm = gradient_norm(model, batch([wide], [wide, low]), "loss_bbox")
    assert norm == pytest.approx(math.sqrt(12) / 16, rel=1e-6)


@pytest.mark.parametrize("name", ["GIoULoss", "FocalEIoULoss", "SmoothL1Loss"])
def test_the_norm_is_that_of_finite_differences_in_the_deltas(name):
    # Central differences in each delta of the 21 anchors of a 32 px image, by the head's own loss.
    model = retinanet(32, loss_bbox=name).double().train()
    data = batch([[1.0, 2.0, 24.0, 19.0]], size=32)
    data["images"] = [image.double() for image in data["images"]]
    norm = gradient_norm(model, data, "loss_bbox")
    head, caught = model.detector.head, []
    compute_loss = head.compute_loss
    head.compute_loss = lambda *args: caught.append(args) or compute_loss(*args)
    model(**data, mode="loss")
    targets, outputs, anchors, matched = caught[0]
    deltas = outputs["bbox_regression"].detach().clone()
    assert deltas.shape == (1, 21, 4)

    def slope(index, step=1e-6):
        values = []
        for sign in (1, -1):
            moved = deltas.clone()
            moved.view(-1)[index] += sign * step
            moved = {"cls_logits": outputs["cls_logits"].detach(), "bbox_regression": moved}
            values.append(compute_loss(targets, moved, anchors, matched)["loss_bbox"].item())
        return (values[0] - values[1]) / (2 * step)

    expected = math.hypot(*(slope(index) for index in range(deltas.numel())))
    assert expected > 0
    assert norm == pytest.approx(expected, rel=1e-6)


BOX_LOSSES = {info.name: info.config for info in list_losses() if info.kind == "box"}


def test_norms_are_proportional_to_the_loss_weight():
    model, data = retinanet(), batch([[3.0, 5.0, 40.0, 44.0]])
    one, three = (
        gradient_norms(
            model,
            data,
            "loss_bbox",
            {name: build_loss(config, loss_weight=w) for name, config in BOX_LOSSES.items()},
        )
        for w in (1.0, 3.0)
    )
    assert list(one) == list(BOX_LOSSES) and min(one.values()) > 0
    assert three == pytest.approx({name: 3 * norm for name, norm in one.items()}, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "slot"),
    [(retinanet, "loss_bbox"), (faster_rcnn, "loss_rpn_bbox"), (faster_rcnn, "loss_bbox")],
)
def test_norms_of_several_losses_equal_the_norms_of_single_ones(build, slot):
    data = batch([[3.0, 5.0, 40.0, 44.0]])
    names = ["GIoULoss", "L1Loss", "EIoULoss", "MSELoss"]
    losses = {name: build_loss(name) for name in names}
    torch.manual_seed(3)
    norms = gradient_norms(build(**{slot: "L1Loss"}), data, slot, losses)
    for name in names:
        model = build(**{slot: build_loss(name)})
        torch.manual_seed(3)
        assert norms[name] == pytest.approx(gradient_norm(model, data, slot), rel=1e-6)
    assert len({round(norm, 6) for norm in norms.values()}) == 4


def test_without_objects_there_is_no_gradient():
    assert gradient_norm(retinanet(), batch([]), "loss_bbox") == 0.0


class Running(GIoULoss):
    """Weighs by a running mean, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("mean", torch.ones(()))

    def unreduced(self, pred, target, weight=None):
        loss = super().unreduced(pred, target, weight)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * loss.detach().mean()
        return loss / self.mean


def test_nothing_is_changed():
    model = retinanet(head_norm="BN", loss_bbox=Running()).eval()
    before = copy.deepcopy(model.state_dict())
    generators = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    data, other = batch([[3.0, 5.0, 40.0, 44.0]]), Running()
    with torch.no_grad():
        norm = gradient_norm(model, data, "loss_bbox")
    assert norm == gradient_norm(model, data, "loss_bbox")
    gradient_norms(model, data, "loss_bbox", {"other": other})
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())
    for loss in (model.losses["loss_bbox"], other):
        assert loss.calls == 0 and loss.mean == 1
    assert not model.get_submodule("detector.head.regression_head.bbox_reg")._forward_hooks
    assert random.getstate() == generators[0]
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert torch.equal(torch.get_rng_state(), generators[2])


class Numbers(torch.utils.data.Dataset):
    """Sample i is i and a random number."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, torch.rand(()).item()


class Epochs(Numbers):
    def set_epoch(self, epoch, seed):
        self.now = seed, epoch

    def __getitem__(self, index):
        return index, self.now


@pytest.mark.parametrize("dataset", [Numbers, Epochs])
def test_batches_are_fixed_and_share_no_image_in_an_epoch(dataset):
    batches = FixedBatches(dataset(), list, batch_size=3, seed=4)
    first = [batches[number] for number in range(6)]
    torch.rand(5)
    assert [batches[number] for number in (5, 4, 3, 2, 1, 0)] == first[::-1]
    for epoch in (first[:3], first[3:]):
        indices = [index for rows in epoch for index, _ in rows]
        assert len(set(indices)) == 9
    assert [[i for i, _ in rows] for rows in first[:3]] != [[i for i, _ in r] for r in first[3:]]
    assert FixedBatches(dataset(), list, 3, seed=5)[0] != first[0]
    if dataset is Epochs:
        assert [rows[0][1] for rows in first] == [(4, 0)] * 3 + [(4, 1)] * 3
    else:
        assert len({number for rows in first for _, number in rows}) == 18


def test_a_dataset_smaller_than_a_batch_is_a_single_batch():
    batches = FixedBatches(Numbers(), list, batch_size=16)
    assert all(sorted(i for i, _ in batches[n]) == list(range(10)) for n in range(3))
