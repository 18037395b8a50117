"""Faults of boxes, and signs of another format; derivations in words."""

import numpy as np
import pytest

from det_losses.data.box_faults import (
    clipped_corners,
    describe_faults,
    find_faults,
    find_repeated,
    turned_images,
    without_area,
    wrong_format,
)

SIZE = [100, 50]  # width, height


def arrays(*boxes):
    return np.array(boxes, float), np.tile(np.array(SIZE, float), (len(boxes), 1))


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([10, 10, 20, 20], None),
        ([0, 0, 100, 50], None),
        ([90, 40, 10.5, 10.9], None),  # rounding: less than a pixel beyond
        ([90, 40, 12, 5], "clipped"),
        ([-2, 0, 12, 5], "clipped"),
        ([10, 45, 12, 7], "clipped"),
        ([100, 10, 20, 20], "outside"),  # begins where the image ends
        ([-20, 10, 20, 20], "outside"),
        ([10, 50, 5, 5], "outside"),
        ([10, 10, 0, 20], "degenerate"),
        ([10, 10, 5, -3], "degenerate"),
        ([50, 10, 1e-7, 20], "degenerate"),  # 50 + 1e-7 is 50 in float32
        ([200, 10, 0, 20], "degenerate"),
        ([10, 10, 0.5, 20], "thin"),
    ],
)
def test_fault_of_a_box(box, fault):
    boxes, sizes = arrays(box)
    faults = find_faults(boxes, sizes)
    assert [name for name, found in faults.items() if found[0]] == ([fault] if fault else [])
    void = without_area(clipped_corners(boxes, sizes))[0]
    assert void == (fault in ("degenerate", "outside"))


def test_part_inside_the_image():
    corners = clipped_corners(*arrays([-5, 40, 20, 30], [90, 10, 20, 5]))
    assert corners.dtype == np.float32
    assert corners.tolist() == [[0, 40, 15, 50], [90, 10, 100, 15]]


def test_repeated_boxes():
    boxes = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 5.0]])
    images, labels = np.array([0, 0, 1, 0, 0]), np.array([5, 5, 5, 6, 5])
    assert find_repeated(images, labels, boxes).tolist() == [False, True, False, False, False]


def random_boxes(seed=0, count=40):
    """Boxes x, y, w, h inside an image of SIZE, at least 4 px large."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, [96, 46], (count, 2))
    return np.column_stack([low, rng.uniform(4, np.array(SIZE) - low)])


def test_good_boxes_raise_no_suspicion():
    boxes = random_boxes()
    assert wrong_format(*arrays(*boxes)) == []
    boxes[0] = [90, 40, 30, 30]  # one that overshoots
    assert wrong_format(*arrays(*boxes)) == []
    assert wrong_format(*arrays([90, 40, 95, 45])) == []  # too few to tell
    # near the corner, widths are larger than x like the second corner of a box would be
    assert wrong_format(*arrays(*[[i, i, 30 + i, 20 + i] for i in range(9)])) == []


def test_normalised_boxes_are_suspected():
    boxes = random_boxes() / [100, 50, 100, 50]
    [text] = wrong_format(*arrays(*boxes))
    assert text.startswith("WRONG BOXES? 40 of 40 boxes have only values from 0 to 1, such as [")
    assert "Multiply them by width and height" in text


def test_corners_are_suspected():
    boxes = random_boxes()
    boxes[:, 2:] += boxes[:, :2]
    boxes[0] = [3, 3, 3, 20]  # an empty box among them
    beyond = int(((boxes[:, :2] + boxes[:, 2:]) > np.array(SIZE) + 1).any(1).sum())
    [text] = wrong_format(*arrays(*boxes))
    assert text.startswith(f"WRONG BOXES? {beyond} of 40 boxes reach beyond")
    assert "x1, y1, x2, y2?" in text
    # without sizes nothing can reach beyond
    assert wrong_format(boxes, np.full((40, 2), np.inf)) == []


def test_centres_are_suspected():
    boxes = random_boxes(count=200)
    boxes[:, :2] += boxes[:, 2:] / 2
    [text] = wrong_format(*arrays(*boxes))
    assert "200 fit as centre and size: are they centre x, centre y, width, height?" in text


def test_boxes_of_larger_images_are_suspected_but_not_those_that_go_on_beyond_the_border():
    boxes = random_boxes()
    boxes[:20, 2:] += 60  # annotated beyond the border, as in data sets of streets
    assert wrong_format(*arrays(*boxes)) == []
    [text] = wrong_format(*arrays(*(2 * random_boxes())))  # of images twice as large
    assert "boxes begin beyond their image" in text and "images of another size?" in text


def test_turned_images():
    # image 0: fits only turned; image 1: one box fits in neither way; image 2: fits as it is
    boxes, sizes = arrays([10, 10, 30, 70], [5, 5, 9, 9], [0, 0, 20, 70], [0, 0, 120, 70], [1] * 4)
    assert turned_images(boxes, sizes, np.array([0, 0, 1, 1, 2])).tolist() == [0]


def test_sentences_have_counts_and_up_to_three_examples():
    faults = {"clipped": np.array([1, 1, 1, 1, 1], bool), "crowd": np.array([0, 1, 0, 0, 0], bool)}
    files = ["a.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert describe_faults(faults, files, evaluation=False) == [
        "5 of 5 boxes reach beyond their image and are clipped (a.jpg, b.jpg, c.jpg, ...)",
        "1 of 5 boxes is a crowd and is left out (a.jpg)",
    ]
    evaluated = describe_faults(faults, files, evaluation=True)
    assert "evaluated as annotated" in evaluated[0] and "ignored" in evaluated[1]
