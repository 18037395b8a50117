"""The base class of all losses: weights, repr, and the error without an implementation."""

import pytest
import torch
from torch import nn

from det_losses import build_loss, list_losses
from det_losses.conformance import case_of
from det_losses.conformance.case import box_pairs, example_inputs
from det_losses.errors import InputError, InputTypeError, UserError
from det_losses.losses import FocalEIoULoss, GIoULoss, Loss


def test_repr_shows_nested_losses_on_one_line():
    assert repr(GIoULoss(loss_weight=2.5)) == (
        "GIoULoss(eps=1e-07, reduction='mean', loss_weight=2.5)"
    )
    text = repr(nn.ModuleDict({"loss_bbox": FocalEIoULoss()}))
    assert "(loss_bbox): FocalEIoULoss(gamma=0.5, eps=1e-07," in text


def test_four_weights_of_a_box_are_averaged():
    pred, target = box_pairs(3)
    weight = torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 2]], dtype=torch.float64)
    none = GIoULoss(reduction="none")
    mean = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    assert torch.equal(none(pred, target, weight), none(pred, target, mean))


def test_weights_may_be_a_mask():
    pred, target = box_pairs(3)
    mask = torch.tensor([True, False, True])
    total = GIoULoss(reduction="sum")
    kept = total(pred[mask], target[mask])
    torch.testing.assert_close(total(pred, target, mask), kept)
    torch.testing.assert_close(total(pred, target, mask[:, None].expand(3, 4)), kept)


def test_a_loss_must_implement_unreduced():
    with pytest.raises(NotImplementedError):
        Loss()(torch.zeros(1), torch.zeros(1))


CLASSIFICATION = [info.name for info in list_losses() if info.kind == "classification"]


def classification_call(name, label, weight=1.0):
    """Call a loss with one label or weight out of range; the others are right."""
    loss = case_of(name, {}).build()
    inputs = example_inputs(loss, 6)
    target = inputs.target.clone()
    target[2] = label(inputs.pred.shape[-1] - int(loss.activation == "softmax"))
    weights = torch.ones(6, dtype=torch.float64)
    weights[3] = weight
    return loss(inputs.pred, target, weights, **inputs.extra)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_label_that_is_no_class_is_refused(name):
    for label in (lambda k: k, lambda k: k - 1, lambda k: -1):
        classification_call(name, label)
    for label in (lambda k: k + 1, lambda k: 99, lambda k: -2):
        with pytest.raises(InputError, match=rf"^{name}: labels must be in 0\.\..* or -1"):
            classification_call(name, label)


def test_a_label_to_ignore_may_be_any():
    loss = build_loss("CrossEntropyLoss", ignore_index=255)
    loss(torch.zeros(2, 3), torch.tensor([0, 255]))
    with pytest.raises(InputError, match="got 254"):
        loss(torch.zeros(2, 3), torch.tensor([0, 254]))


def test_the_labels_of_a_classification_loss_among_box_losses_are_checked():
    loss = build_loss("ProductLoss(GIoULoss, FocalLoss)")
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    loss(boxes, boxes, logits=torch.zeros(1, 2), labels=torch.tensor([1]))
    with pytest.raises(InputError, match="FocalLoss: labels must be in"):
        loss(boxes, boxes, logits=torch.zeros(1, 2), labels=torch.tensor([3]))


@pytest.mark.parametrize("name", ["L1Loss", "CIoULoss", "FocalLoss", "DistributionFocalLoss"])
def test_negative_weights_are_refused(name):
    loss = case_of(name, {}).build()
    inputs = example_inputs(loss, 3)
    loss(inputs.pred, inputs.target, torch.tensor([1.0, 0.0, 2.0]))
    with pytest.raises(InputError, match=f"{name}: weights must be at least 0, got -1"):
        loss(inputs.pred, inputs.target, torch.tensor([1.0, 0.0, -1.0]))
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="loss_weight must be"):
            build_loss(case_of(name, {}).config(loss_weight=value))


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_negative_class_weights_are_refused(value):
    with pytest.raises(InputError, match="class_weight must be a list of numbers of at least 0"):
        build_loss("CrossEntropyLoss", class_weight=[1.0, value])


def test_values_are_not_read_where_they_are_not_known():
    """A read waits for a GPU, and fails under vmap, in a compiled loss and without values."""
    loss = build_loss("FocalLoss")
    pred, wrong = torch.zeros(2, 3, 4), torch.full((2, 3), 99)
    assert torch.func.vmap(loss)(pred, wrong).shape == (2,)
    assert loss(pred.to("meta"), wrong.to("meta")).device.type == "meta"
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    compiled(pred[0], wrong[0])
    torch.compiler.reset()


class StoresNothing(Loss):
    """A user's loss with a parameter that it does not keep."""

    kind, paper = "box", "none"

    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)


class Forwards(StoresNothing):
    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain


def test_the_parameters_of_a_loss_with_kwargs():
    loss = build_loss(dict(type=Forwards, gain=2.0, loss_weight=3.0))
    assert loss.params() == dict(gain=2.0, reduction="mean", loss_weight=3.0)
    with pytest.raises(InputTypeError, match=r"StoresNothing must store each .* not store gain"):
        build_loss(dict(type=StoresNothing))
