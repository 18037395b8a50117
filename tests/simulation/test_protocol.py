"""The cases are those of the papers, and boxes follow the stated rule."""

import numpy as np
import pytest
import torch

from det_losses.errors import InputError
from det_losses.simulation.protocol import PROTOCOLS

DIOU = PROTOCOLS["diou"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_cases_are_every_combination_once(name: str) -> None:
    protocol = PROTOCOLS[name]
    cases = protocol.draw(None, seed=0)
    assert protocol.cases == len(cases) == 1_715_000  # 5,000 points, 7 x 7 anchors, 7 targets
    assert np.array_equal(np.sort(cases), np.arange(1_715_000))
    anchors, targets = protocol.boxes(np.arange(343), protocol.point_positions(0))
    assert len(np.unique(np.concatenate([anchors, targets]).T.round(12), axis=0)) == 343
    areas = anchors[2] * anchors[3]
    assert np.allclose(np.unique(areas.round(9)), np.round(protocol.anchor_areas, 9))
    assert np.allclose(targets[2] * targets[3], protocol.target_area)
    assert np.allclose(np.unique((targets[2] / targets[3]).round(9)), np.round(protocol.ratios, 9))


def test_points_are_uniform_in_the_disc() -> None:
    offsets = DIOU.point_positions(0) - 10
    radius = np.hypot(*offsets.T)
    assert radius.max() < 3
    # a quarter of the area is within half the radius; SD of a fraction of 5,000 points is 0.006
    assert np.mean(radius < 1.5) == pytest.approx(0.25, abs=0.025)
    assert np.abs(offsets.mean(0)).max() < 0.1  # SD of a coordinate 1.5, of the mean 0.02


def test_a_sample_has_equally_many_points_in_each_stratum() -> None:
    cases = DIOU.draw(1000, seed=0)
    assert len(set(cases.tolist())) == len(cases) == 3 * 343
    assert (np.bincount(cases % 343, minlength=343) == 3).all()


@pytest.mark.parametrize("cases", [685, 1_715_001])
def test_an_impossible_number_of_cases_is_an_error(cases: int) -> None:
    with pytest.raises(InputError, match=r"from 686 .* to 1715000, got"):
        DIOU.draw(cases, seed=0)


def test_the_step_size_depends_on_iou_and_falls_twice() -> None:
    update = DIOU.new_update()
    boxes, iou = torch.zeros(4, 1), torch.tensor([0.5])
    for step, eta in ((1, 0.1), (160, 0.1), (161, 0.01), (181, 0.001)):
        moved = update(boxes, torch.ones(4, 1), iou, step, 1)
        assert torch.allclose(moved, torch.full((4, 1), -eta * 1.5))


def test_adam_moves_corners_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    weight = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    update, moved = PROTOCOLS["wise-iou"].new_update(), boxes
    first, second = boxes[:2] - boxes[2:] / 2, boxes[:2] + boxes[2:] / 2
    corners = torch.cat([first, second]).requires_grad_()
    optimizer = torch.optim.Adam([corners], lr=0.01)
    for step in (1, 2, 3):
        first, second = corners.split(2)
        loss = (weight * torch.cat([(first + second) / 2, second - first]) ** 2).sum() / 100
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved = update(moved, 2 * weight * moved, torch.zeros(5), step, 100)
    first, second = corners.detach().split(2)
    assert torch.allclose(moved, torch.cat([(first + second) / 2, second - first]), rtol=1e-9)
