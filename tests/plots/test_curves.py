import numpy as np
import pytest

from det_losses import list_losses
from det_losses.plots import curves, probe

OWN = [info.name for info in list_losses()]


@pytest.mark.parametrize("name", OWN)
def test_every_registered_loss_has_finite_curves(name):
    losses = probe.named_losses([name])
    (loss,) = losses.values()
    for question in curves.questions(probe.kind_of(loss)):
        (curve,) = curves.curves(question, losses).values()
        assert curve.value.shape == curve.gradient.shape == question.x.shape
        assert np.isfinite(curve.value).all() and np.isfinite(curve.gradient).all()
        low, high = sorted(question.limits)
        assert low <= question.x.min() and question.x.max() <= high


def curves_of(kind, name):
    (label,) = losses = probe.named_losses([name])
    for question in curves.questions(kind):
        yield question, curves.curves(question, losses)[label]


def test_the_classic_figure():
    ((question, mse),) = curves_of("delta", "MSELoss")
    ((_, l1),) = curves_of("delta", "L1Loss")
    error = question.x.numpy()
    assert mse.value == pytest.approx(error**2) and mse.gradient == pytest.approx(2 * error)
    assert l1.value == pytest.approx(abs(error)) and l1.gradient == pytest.approx(np.sign(error))


def test_the_gradient_of_iou_ends_where_boxes_are_disjoint():
    (by_iou, iou), (by_offset, shifted), (_, scaled), (_, other_aspect) = curves_of(
        "decoded", "IoULoss(mode=linear)"
    )
    assert iou.value == pytest.approx(1 - by_iou.x.numpy())
    offset = by_offset.x.numpy()
    # Equal boxes t widths apart: IoU = (1 - t) / (1 + t) for t < 1.
    expected = np.where(offset < 1, 1 - (1 - offset) / (1 + offset), 1)
    assert shifted.value == pytest.approx(expected)
    assert ((shifted.gradient == 0) == (offset > by_offset.disjoint_from)).all()
    # At a ratio r of all sides, IoU is r^2 or its inverse; at an aspect ratio r, of one area,
    # the intersection is a / sqrt(r) and the union 2 a - a / sqrt(r).
    ratio = np.exp2((np.arange(curves.POINTS) + 0.5) / curves.POINTS * 4 - 2)
    assert scaled.value == pytest.approx(1 - np.minimum(ratio, 1 / ratio) ** 2)
    part = np.minimum(ratio, 1 / ratio) ** 0.5
    assert other_aspect.value == pytest.approx(1 - part / (2 - part))


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("decoded", "GIoULoss", []),
        ("decoded", "WIoUv3Loss", ["Running statistics"]),
        ("decoded", "FocalIoU(GIoULoss)", ["depend on the batch"]),
        ("delta", "GHMRLoss", ["Running statistics", "depend on the batch"]),
        ("sigmoid", "GHMCLoss(momentum=0.0)", ["depend on the batch"]),
    ],
)
def test_a_curve_that_depends_on_more_than_its_axis_is_named(kind, name, words):
    remarks = curves.remarks(kind, probe.named_losses([name]))
    assert len(remarks) == len(words)
    for remark, word in zip(remarks, words, strict=True):
        assert word in remark and name in remark
