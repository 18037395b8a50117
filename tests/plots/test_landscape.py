import numpy as np
import pytest

from det_losses import build_loss
from det_losses.errors import InputError
from det_losses.losses import L1Loss
from det_losses.plots.landscape import landscape


class Distance(L1Loss):
    """The distance of the offsets times a factor; a factor below 0 rewards distance."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def unreduced(self, pred, target, weight=None):
        return self.factor * (pred - target).abs()


@pytest.mark.parametrize("name", ["IoULoss", "FocalEIoULoss"])
def test_the_gradient_is_zero_exactly_where_boxes_are_disjoint(name):
    found = landscape(build_loss(name), "position")
    x, y = np.meshgrid(found.axis, found.axis)
    disjoint = (abs(x) > 1) | (abs(y) > 1)  # equal boxes: more than one side apart
    assert (found.zero == disjoint).all()
    assert "the gradient is zero in 1200, and descent moves away from the target in 0" in (
        found.counts()
    )


@pytest.mark.parametrize("plane", ["position", "size"])
def test_giou_leads_to_the_target_from_everywhere(plane):
    found = landscape(build_loss("GIoULoss"), plane)
    assert not found.zero.any() and not found.away.any()


def test_columns_are_the_first_offset():
    found = landscape(build_loss("L1Loss"), "position")
    assert (found.gradient[..., 0] == np.sign(found.axis)).all()
    assert (found.gradient[..., 1] == np.sign(found.axis)[:, None]).all()


def test_a_loss_that_falls_with_distance_points_away():
    found = landscape(Distance(-1.0), "position")
    assert found.away.all() and "from the target in 1600" in found.counts()


def test_gradients_that_are_not_finite_are_counted():
    found = landscape(Distance(float("nan")), "position")
    assert "not finite in 1600" in found.counts()


def test_a_classification_loss_has_no_landscape():
    with pytest.raises(InputError, match="FocalLoss is not a box loss"):
        landscape(build_loss("FocalLoss"), "position")
