"""The gradient of each reported loss is exactly that of the loss named in the config.

The reference is the named loss, built separately. It is called with the tensors, buffers and random
numbers of the model's call, and differentiated with respect to the parameters of the head.
"""

import copy

import pytest
import torch
from slot_losses import losses_of_slot
from torch import nn

from det_losses.engine.loss_record import matches_config
from det_losses.generators import generator_states, generators_kept, set_generator_states
from det_losses.losses import build_loss
from det_losses.models import FCOS, FasterRCNN, RetinaNet

BACKBONE = {"type": "SmallResNetFPN", "widths": (8, 8, 16), "out_channels": 8, "norm": "BN"}
COMMON = dict(
    num_classes=3,
    backbone=BACKBONE | {"extra_levels": None},
    min_size=64,
    max_size=64,
)
ANCHORS = {"sizes": [[16, 32]], "aspect_ratios": [1.0]}
OWN = {
    RetinaNet: dict(anchors=ANCHORS, num_convs=1),
    FasterRCNN: dict(
        anchors=ANCHORS, representation_size=8, roi_size=2, rpn_pre_nms_top_n_train=20
    ),
    FCOS: dict(anchor_sizes=(8,), num_convs=1),
}


def batch():
    """Two images; only the first has boxes."""
    generator = torch.Generator().manual_seed(2)
    box = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 24.0, 62.0, 60.0]])
    targets = [
        {"boxes": box, "labels": torch.tensor([0, 1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return [torch.rand(3, 64, 64, generator=generator) for _ in "ab"], targets


def build(detector, **losses):
    torch.manual_seed(0)
    return detector(**COMMON, **OWN[detector], **losses).train()


def relative_difference(model, slot, named):
    """Return ``|g - g'| / |g'|`` for the gradients of the reported and the named loss."""
    calls = []

    def keep(loss, args, kwargs):
        repeated = copy.deepcopy(named)
        repeated.load_state_dict(loss.state_dict())
        calls.append((repeated, args, kwargs, generator_states()))

    handle = model.losses[slot].register_forward_pre_hook(keep, with_kwargs=True)
    reported = model(*batch(), mode="loss")[slot]
    handle.remove()
    expected = []
    for loss, args, kwargs, states in calls:
        with generators_kept():
            set_generator_states(states)
            expected.append(loss(*args, **kwargs))
    head = [p for name, p in model.named_parameters() if "backbone" not in name and p.requires_grad]
    ours, theirs = (gradient(value, head) for value in (reported, sum(expected)))
    assert theirs.norm() > 0
    return ((ours - theirs).norm() / theirs.norm()).item()


def gradient(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([each.flatten().double() for each in found])


SLOTS = [(detector, slot) for detector in OWN for slot in detector.slots]


@pytest.mark.parametrize(("detector", "slot"), SLOTS, ids=lambda x: getattr(x, "__name__", x))
def test_the_named_loss_trains_in_every_slot(detector, slot):
    for info in losses_of_slot(detector, slot):
        model = build(detector, **{slot: info.config})
        assert matches_config(info.config, model.losses[slot])
        # The parameters are those of the built loss, including published settings.
        named = build_loss({**model.losses[slot].params(), "type": info.name})
        assert relative_difference(model, slot, copy.deepcopy(named)) < 1e-6, info.name


def smooth_l1(outputs):
    deltas = outputs["bbox_regression"]
    return nn.functional.smooth_l1_loss(deltas, torch.full_like(deltas, 0.5))


FAULTS = {
    "an additional term": lambda losses, outputs: losses["loss_bbox"] + smooth_l1(outputs),
    "a different loss": lambda losses, outputs: smooth_l1(outputs),
    "a different weight": lambda losses, outputs: 1.001 * losses["loss_bbox"],
    "no graph": lambda losses, outputs: losses["loss_bbox"].detach().requires_grad_(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_gradient_is_detected(fault):
    model = build(RetinaNet, loss_bbox="GIoULoss")
    head = model.detector.head
    compute = head.compute_loss

    def compute_loss(targets, outputs, *rest):
        losses = compute(targets, outputs, *rest)
        return losses | {"loss_bbox": FAULTS[fault](losses, outputs)}

    head.compute_loss = compute_loss
    named = build_loss(model.losses["loss_bbox"].params() | {"type": "GIoULoss"})
    assert relative_difference(model, "loss_bbox", named) > 1e-4
