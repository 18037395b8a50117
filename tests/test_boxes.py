"""The geometry of box pairs, against derived numbers and torchvision."""

import math

import pytest
import torch
from torchvision.ops import box_area, box_iou

from det_losses.boxes import box_pair
from det_losses.tensors import upcast


def pair_of(pred, target, **kwargs):
    return box_pair(torch.tensor([pred]).double(), torch.tensor([target]).double(), **kwargs)


def test_quantities_of_two_overlapping_boxes():
    """12 x 6 at (0, 0) and 8 x 10 at (4, 2): they share x 4..12 and y 2..6."""
    pair = pair_of([0, 0, 12, 6], [4, 2, 12, 12])
    expected = dict(
        w=12,
        h=6,
        wg=8,
        hg=10,
        dx=6 - 8,
        dy=3 - 7,
        center_distance2=2**2 + 4**2,
        hull_w=12,
        hull_h=12,
        hull_w2=144,
        hull_h2=144,
        hull_diagonal2=288,
        hull_area=144,
        intersection=8 * 4,
        union=12 * 6 + 8 * 10 - 8 * 4,
        hull_empty=144 - 120,
        iou=32 / 120,
        dw2=4**2,
        dh2=4**2,
        angle_gap=math.atan(8 / 10) - math.atan(12 / 6),
        extended_iou=32 / 120,
    )
    for name, value in expected.items():
        assert getattr(pair, name).item() == pytest.approx(value, rel=1e-12), name


def test_offsets_of_edges_and_relative_differences_of_sizes():
    """12 x 6 at (0, 0) and 8 x 10 at (4, 2) end at (12, 6) and (12, 12)."""
    pair = pair_of([0, 0, 12, 6], [4, 2, 12, 12])
    assert [x.item() for x in pair.edge_offsets] == [-4, -2, 0, -6]
    assert [x.item() for x in pair.size_gaps] == pytest.approx([4 / 12, 4 / 10])


def test_relative_differences_of_sizes_are_0_for_points_and_exceed_1_for_inverted_boxes():
    """Points: 0. Sides (-3, 0) and (3, 4): 6 / 3 and 4 / 4. Sides (3, 4) and (-3, 0): each 1."""
    assert [x.item() for x in pair_of([5, 5, 5, 5], [5, 5, 5, 5]).size_gaps] == [0, 0]
    assert [x.item() for x in pair_of([3, 1, 0, 1], [0, 0, 3, 4]).size_gaps] == [2, 1]
    assert [x.item() for x in pair_of([0, 0, 3, 4], [3, 1, 0, 1]).size_gaps] == [1, 1]


@pytest.mark.parametrize(
    ("pred", "target", "intersection", "union"),
    [
        # one beside the other with a gap of 5: 5 x 10 is missing, of 100 + 200
        ([0, 0, 10, 10], [15, 0, 35, 10], -50, 350),
        # touching along an edge
        ([0, 0, 10, 10], [10, 0, 30, 10], 0, 300),
        # a gap of 5, and 6 of the height shared after a lead of 4: 5 (2 * 4 + 6) is missing
        ([0, 0, 10, 10], [15, 4, 35, 14], -70, 370),
        # gaps of 5 and 2, both after a lead of 10: 2 (5 * 10 + 2 * 10 + 5 * 2) is missing
        ([0, 0, 10, 10], [15, 12, 35, 22], -160, 460),
        # inverted in both, with the target's corners: gaps 3 and 4, no area of its own
        ([3, 4, 0, 0], [0, 0, 3, 4], -24, 36),
    ],
)
def test_extended_iou_of_disjoint_boxes_is_negative_or_zero(pred, target, intersection, union):
    for pair in (pair_of(pred, target), pair_of(*([x * 7 for x in b] for b in (pred, target)))):
        assert pair.extended_iou.item() == pytest.approx(intersection / union, rel=1e-12)


def test_interpolated_moves_the_prediction_towards_the_target():
    """Three quarters of the way from (8, 0, 16, 4) to (0, 0, 4, 4), with one alpha or its own."""
    pair = pair_of([8, 0, 16, 4], [0, 0, 4, 4], inputs={"image_size": torch.ones(1, 2)})
    for alpha in (0.75, torch.tensor([0.75])):
        between = pair.interpolated(alpha)
        assert between.pred.tolist() == [[2, 0, 7, 4]] and torch.equal(between.target, pair.target)
        assert between.inputs is pair.inputs and between.eps == pair.eps
    assert torch.equal(pair.interpolated(1.0).pred, pair.target)


def test_iou_and_areas_equal_torchvisions():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 200, 2, generator=generator, dtype=torch.float64) * 50
    pred = torch.cat([corner, corner + size + 1], 1)
    target = pred.roll(1, 0) * 0.7
    pair = box_pair(pred, target)
    torch.testing.assert_close(pair.iou, box_iou(pred, target).diagonal(), rtol=1e-12, atol=0)
    union = box_area(pred) + box_area(target) - pair.intersection
    torch.testing.assert_close(pair.union, union, rtol=1e-12, atol=0)


def test_an_inverted_box_has_no_area_and_overlaps_nothing():
    """(3, 4, 0, 0) has the corners of the target in the wrong order."""
    pair = pair_of([3, 4, 0, 0], [0, 0, 3, 4])
    assert (pair.w, pair.h) == (-3, -4)
    assert pair.intersection == 0 and pair.union == 12 and pair.iou == 0


def test_the_hull_covers_all_corners_of_an_inverted_box():
    """x from 9 back to -2, so the hull reaches from -2 to 9; the widths are -11 and 3."""
    pair = pair_of([9, 0, -2, 4], [0, 0, 3, 4])
    assert pair.hull_w == 11 and pair.dw2 == 14**2
    assert pair.center_distance2 / pair.hull_diagonal2 < 1


def test_ratios_of_points_are_finite():
    pair = pair_of([5, 5, 5, 5], [5, 5, 5, 5])
    assert pair.iou == 0 and pair.hull_empty / pair.hull_area == 0
    assert pair.center_distance2 / pair.hull_diagonal2 == 0 and pair.angle_gap == 0


def test_eps_leaves_small_boxes_of_normalised_coordinates_exact():
    """Sides of 0.001 and 0.002, above sqrt(1e-7): a quarter of the larger box is covered."""
    pair = pair_of([0, 0, 0.001, 0.001], [0, 0, 0.002, 0.002])
    assert pair.iou.item() == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("eps", [1e-7, 1e-4])
def test_a_side_below_the_root_of_eps_counts_as_the_root(eps):
    """Both boxes 100 high and a tenth of the root wide: IoU's slope in the width stays bounded."""
    root = eps**0.5
    pred = torch.tensor([[0, 0, root / 10, 100]], dtype=torch.float64, requires_grad=True)
    pair = box_pair(pred, pred.detach(), eps=eps)
    assert pair.iou.item() == pytest.approx(0.1)
    pair.iou.sum().backward()
    assert 0 < pred.grad.abs().max() <= 1 / root * (1 + 1e-9)


def test_the_gradient_widens_a_box_without_width():
    """Inside a 3 x 4 target; a right edge moved by d adds d * 2 of 12 square pixels."""
    pred = torch.tensor([[1.0, 1, 1, 3]], requires_grad=True)
    box_pair(pred, torch.tensor([[0.0, 0, 3, 4]])).iou.sum().backward()
    assert pred.grad[0, 2].item() == pytest.approx(2 / 12)


def test_any_leading_axes_are_accepted():
    pred = torch.tensor([[[0.0, 0, 2, 2]], [[0, 0, 4, 4]]])
    assert box_pair(pred, pred).iou.shape == (2, 1)
    vmapped = torch.func.vmap(lambda box: box_pair(box, box).iou)(pred[:, 0])
    assert vmapped.tolist() == [1.0, 1.0]


def test_the_pair_keeps_the_inputs_of_the_loss():
    size = torch.tensor([480.0])
    assert pair_of([0, 0, 1, 1], [0, 0, 1, 1], inputs={"image_size": size}).inputs == {
        "image_size": size
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_upcast_raises_to_float32(dtype):
    assert upcast(torch.ones(2, dtype=dtype)).dtype == torch.float32
    assert box_pair(torch.ones(1, 4, dtype=dtype), torch.ones(1, 4, dtype=dtype)).iou.dtype == (
        torch.float32
    )


def test_upcast_keeps_float32_and_float64():
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, dtype=dtype)
        assert upcast(x) is x


def test_boxes_of_a_wrong_shape_raise_an_error():
    with pytest.raises(ValueError, match=r"4 values \(x1, y1, x2, y2\), got shape \[3\]"):
        box_pair(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"same shape, got \[2, 4\] and \[4\]"):
        box_pair(torch.zeros(2, 4), torch.zeros(4))
