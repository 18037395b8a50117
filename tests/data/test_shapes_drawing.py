import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from det_losses.data.shapes_drawing import (
    LEVELS,
    MIN_VISIBLE,
    OUTLINES,
    SCALE,
    _cover,
    area,
    box_and_area,
    draw,
    place,
)


@pytest.fixture(scope="module")
def drawings():
    return [draw(np.random.default_rng([7, number]), 128) for number in range(150)]


def mask_of(name, center, width, height, angle, size=64):
    outline = place(OUTLINES[name], np.array(center), width, height, angle)
    return _cover(np.zeros((SCALE * size, SCALE * size), np.uint8), outline, 1) == 1


def test_boxes_equal_torchvisions_of_the_masks(drawings):
    for drawing in drawings[:20]:
        if not drawing.classes:
            continue
        # torchvision's right and lower edges are the last pixel's index, ours the edge after it
        expected = masks_to_boxes(torch.from_numpy(drawing.masks))
        expected[:, 2:] += 1
        boxes = torch.tensor([box_and_area(mask)[0] for mask in drawing.masks])
        boxes[:, 2:] += boxes[:, :2]
        assert torch.equal(boxes, expected / SCALE)


# Each edge may be one point of the mask off: OpenCV includes the points that an edge touches.
EDGE = 1 / SCALE


@pytest.mark.parametrize(
    ("name", "center", "sides", "angle", "box", "area"),
    [
        # upright: the box is the shape's own width and height round the centre
        ("rectangle", (32, 30), (20, 8), 0, (22, 26, 20, 8), 160),
        # a quarter turn swaps width and height
        ("rectangle", (32, 30), (20, 8), np.pi / 2, (28, 20, 8, 20), 160),
        # 45 degrees: both extents are (20 + 8) / sqrt 2 = 19.8
        ("rectangle", (32, 30), (20, 8), np.pi / 4, (22.1, 20.1, 19.8, 19.8), 160),
        # an ellipse's area is pi / 4 * 24 * 12 = 226.2
        ("ellipse", (32, 30), (24, 12), 0, (20, 24, 24, 12), 226.2),
        # turned by 30 degrees its half extents are sqrt((12 cos 30)^2 + (6 sin 30)^2) = 10.82
        # and sqrt((12 sin 30)^2 + (6 cos 30)^2) = 7.94
        ("ellipse", (32, 30), (24, 12), np.pi / 6, (21.18, 22.06, 21.63, 15.87), 226.2),
        # a triangle is half of its box
        ("triangle", (32, 30), (20, 30), 0, (22, 15, 20, 30), 300),
        # the hole has 0.29 / 0.5 of the diameter: pi / 4 * 900 * (1 - 0.58^2) = 469.1
        ("ring", (32, 30), (30, 30), 0, (17, 15, 30, 30), 469.1),
        # two bars of 30 x 9.6 that share 9.6 x 9.6: 576 - 92.2 = 483.8
        ("cross", (32, 30), (30, 30), 0, (17, 15, 30, 30), 483.8),
    ],
)
def test_box_and_area_of_one_shape_by_geometry(name, center, sides, angle, box, area):
    found_box, found_area = box_and_area(mask_of(name, center, *sides, angle))
    corners = [(x, y, x + w, y + h) for x, y, w, h in (found_box, box)]
    assert corners[0] == pytest.approx(corners[1], abs=EDGE)
    assert found_area == pytest.approx(area, rel=0.05)


def test_polygon_area_is_opencvs():
    for name, outline in OUTLINES.items():
        placed = place(outline, np.array([40.0, 50.0]), 30, 12, 0.7)
        contours = [cv2.contourArea(c.astype(np.float32)) for c in placed]
        assert area(placed) == pytest.approx(contours[0] - sum(contours[1:]), rel=1e-4), name


def test_pixels_of_a_shape_are_where_its_box_says():
    # Outside its box nothing of a shape is visible, and the box touches its mask on four sides.
    drawing = draw(np.random.default_rng([7, 3]), 128)
    for mask in drawing.masks:
        (x, y, w, h), _ = box_and_area(mask)
        left, top, right, bottom = (round(v * SCALE) for v in (x, y, x + w, y + h))
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_each_point_belongs_to_one_shape(drawings):
    for drawing in drawings:
        assert len(drawing.masks) == len(drawing.classes) <= 6
        assert drawing.masks.sum(0).max(initial=0) <= 1


def test_set_is_varied(drawings):
    names = [name for drawing in drawings for name in drawing.classes]
    # about 520 shapes of six classes: 87 of each, standard deviation 8.5; within five of them
    assert {n for n in OUTLINES if 44 < names.count(n) < 130} == set(OUTLINES)
    boxes = np.array([box_and_area(m)[0] for drawing in drawings for m in drawing.masks])
    longest = boxes[:, 2:].max(1)
    # lengths are 8 * 12.5^b px, b ~ Beta(3, 2): one in 37 has b above 0.93 (84 px)
    assert longest.min() < 12 and longest.max() > 80
    aspects = boxes[:, 2] / boxes[:, 3]
    assert aspects.min() < 0.35 and aspects.max() > 3
    counts = [len(drawing.classes) for drawing in drawings]
    assert set(counts) == set(range(7))


def test_the_easy_level_has_few_large_shapes():
    easy = [draw(np.random.default_rng([7, number]), 64, "easy") for number in range(60)]
    assert {len(drawing.classes) for drawing in easy} == {1, 2, 3}
    assert {name for drawing in easy for name in drawing.classes} == set(LEVELS["easy"].classes)
    longest = [max(box_and_area(mask)[0][2:]) for drawing in easy for mask in drawing.masks]
    # A shape of length 0.2 * 64 px, turned by 45 degrees and half covered, is still 4.5 px long.
    assert min(longest) > 0.2 * 64 / np.sqrt(2) / 2


def test_hidden_shapes_do_not_occur(drawings):
    # The visible part is at least half of the whole, so with the shortest side of 6 px and the
    # thinnest class (a star fills 28% of its square) no mask is below 0.5 * 0.28 * 6 * 8 px
    smallest = min(box_and_area(m)[1] for drawing in drawings for m in drawing.masks)
    assert smallest > MIN_VISIBLE * 0.28 * 6 * 8
