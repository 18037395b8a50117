"""Exact gradients, sums over chunks, and the standard error of a sample."""

import numpy as np
import pytest
import torch

from det_losses.errors import InputError
from det_losses.simulation import run
from det_losses.simulation.protocol import PROTOCOLS
from det_losses.simulation.run import Settings, descend, gradient_of, simulate, simulated_loss

LINEAR = "IoULoss(mode=linear)"


def columns(*boxes: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float64).T.contiguous()


def test_one_step_of_iou_by_hand() -> None:
    # The box is 2 x 1, the target 2 x 1 and 1 to the left: intersection 1, union 3, IoU 1/3.
    anchors, targets = columns((11, 10, 2, 1)), columns((10, 10, 2, 1))
    # x + d: I = 1 - d, U = 3 + d, so dIoU/dx = (-3 - 1) / 9 = -4/9.
    # w + d: both edges move by d/2; I = 1 + d/2, since the left edge enters the target, and
    # U = 2 + d + 2 - I = 3 + d/2, so dIoU/dw = (3/2 - 1/2) / 9 = 1/9.
    # h + d grows the box beyond the target: I stays, U = 3 + 2 d, dIoU/dh = -2/9. At equal edges
    # this is one-sided, so the height is 1.2 instead: I = 1, U = 2.4 + 2 - 1 = 3.4, IoU = 1/3.4.
    anchors[3] = 1.2
    union = 3.4
    gradient = -torch.tensor(
        [(-1 * union - 1 * 1) / union**2, 0, (0.5 * union - 0.7) / union**2, -2 / union**2]
    )
    # dU/dx = -dI/dx = 1; dU/dw = h - dI/dw = 1.2 - 0.5 = 0.7; dU/dh = w = 2
    settings = Settings(LINEAR)
    loss = simulated_loss(settings)
    moves = descend(
        gradient_of(settings, loss, anchors, targets), anchors, targets, PROTOCOLS["diou"], 1
    )
    (_, iou, _), (moved, _, _) = moves
    assert iou.item() == pytest.approx(1 / union)
    expected = anchors[:, 0] - 0.1 * (2 - 1 / union) * gradient.double()
    assert torch.allclose(moved[:, 0], expected, atol=1e-7)


def test_a_delta_loss_pulls_by_the_encoded_error() -> None:
    # anchor 2 x 1; the target is half a width away, and twice as high: dx = -0.5, dh = log 2
    anchors, targets = columns((11, 10, 2, 1)), columns((10, 10, 2, 2))
    settings = Settings("MSELoss")
    found = gradient_of(settings, simulated_loss(settings), anchors, targets)(anchors)
    # the square of the error e of each delta: 2 e times d delta / dx = 1 / 2 or d delta / dh = 1
    expected = columns((2 * 0.5 / 2, 0, 0, -2 * np.log(2)))
    assert torch.allclose(found, expected, atol=1e-6)


def test_chunks_add_up_to_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("GIoULoss", cases=686, steps=3)
    whole = simulate(settings)
    monkeypatch.setattr(run, "_CHUNK", 100)
    parts = simulate(settings)
    for name in ("error", "standard_error", "iou"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    assert whole.plane == parts.plane
    seen = [value for value in whole.plane if value is not None]
    assert min(seen) > 0 and len(whole.plane) == 5000


def test_the_standard_error_is_the_spread_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = PROTOCOLS["diou"].point_positions(0)
    monkeypatch.setattr(type(PROTOCOLS["diou"]), "point_positions", lambda self, seed: positions)
    samples = [simulate(Settings("DIoULoss", cases=686, steps=1, seed=s)) for s in range(40)]
    totals = [each.error[1] for each in samples]
    claimed = np.mean([each.standard_error[1] for each in samples])
    # the SD of 40 values has a relative standard error of 1 / sqrt(78) = 0.11
    assert np.std(totals, ddof=1) / claimed == pytest.approx(1, abs=0.35)


def test_running_statistics_start_anew_and_the_loss_is_unchanged() -> None:
    settings = Settings("WIoUv3Loss", cases=686, steps=2)
    assert simulate(settings).error == simulate(settings).error
    loss = simulated_loss(settings)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    anchors, targets = columns((11, 10, 2, 1)), columns((10, 10, 2, 1))
    gradient_of(settings, loss, anchors, targets)(anchors)
    assert all(torch.equal(loss.state_dict()[name], value) for name, value in before.items())


def test_sides_stay_positive() -> None:
    anchors, targets = columns((10, 10, 0.01, 1)), columns((10, 10, 2, 1))
    moves = list(
        descend(lambda boxes: torch.ones_like(boxes), anchors, targets, PROTOCOLS["diou"], 2)
    )
    boxes, _, clamped = moves[-1]
    assert boxes[2].item() == PROTOCOLS["diou"].smallest_side
    assert clamped.item() == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings("FocalLoss"), "not a box loss"),
        (Settings("ProductLoss(L1Loss, FocalLoss)"), "needs logits"),
        (Settings("EIoULoss", gradients="published"), "EIoULoss is another loss"),
        (Settings("IoULoss", gradients="published"), "IoULoss is another loss"),
    ],
)
def test_losses_that_cannot_be_simulated(settings: Settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulated_loss(settings)


def test_boxes_that_diverge_are_an_error() -> None:
    anchors, targets = columns((10, 10, 1, 1)), columns((10, 10, 2, 1))
    with pytest.raises(InputError, match="boxes diverge"):
        list(descend(lambda boxes: boxes * torch.nan, anchors, targets, PROTOCOLS["diou"], 1))
