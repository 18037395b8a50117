"""The start of Wise-IoU's running mean, and its effect on the gain."""

import numpy as np
import pytest
import torch

from det_losses import build_loss


@pytest.mark.parametrize(
    ("start", "gains"), [(1.0, [0.243, 0.708]), (None, [0.385, 0.994])], ids=["authors", "none"]
)
def test_gain_after_3000_batches_whose_loss_falls_from_070_to_035(start, gains):
    """With momentum 1e-4 the authors' mean has fallen from 1 to 0.86; the mean of all is 0.52."""
    loss = build_loss("WIoUv3Loss", start=start).double()
    present = torch.tensor(True)
    for value in torch.linspace(0.7, 0.35, 3000, dtype=torch.float64):
        mean = loss.iou_loss(value, present)
    values = np.linspace(0.7, 0.35, 3000)
    # Closed form of the recursion: old values decay by 1 - m per batch.
    decay = (1 - 1e-4) ** np.arange(2999, -1, -1)
    known = (1 - 1e-4) ** 3000 + 1e-4 * (decay * values).sum() if start else values.mean()
    assert mean.item() == pytest.approx(known, rel=1e-6)
    got = loss.gain(torch.tensor([0.1, 0.35]) / mean)
    np.testing.assert_allclose(got, gains, atol=6e-4)


def test_without_training_the_gain_is_relative_to_the_start():
    """Two boxes of IoU loss 3/4 and 0; the distance attention of the first is exp(225 / 2000)."""
    pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 20, 40]])
    attention = np.exp(225 / 2000) * 0.75
    for start, beta in ((1.0, 0.75), (0.5, 1.5), (None, 1.0)):
        loss = build_loss("WIoUv2Loss", gamma=1.0, start=start).eval()
        assert loss(pred, target).item() == pytest.approx(beta * attention, rel=1e-6)
        assert loss.iou_loss.batches == 0


@pytest.mark.parametrize("start", [0.0, 1.5, -1.0])
def test_a_start_outside_the_range_of_iou_loss_is_refused(start):
    with pytest.raises(ValueError, match=r"start must be in \(0, 1\] or None, got"):
        build_loss("WIoUv3Loss", start=start)
