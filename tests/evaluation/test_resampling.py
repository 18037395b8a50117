"""The fast bootstrap against a slow one, which copies images and asks pycocotools."""

import json
import warnings

import numpy as np
import pytest
from coco_cases import coco_json, copied, part_of, random_case, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from det_losses.evaluation import average_precision, resampling
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.metrics import METRICS
from det_losses.evaluation.resampling import draw_counts, resample


def slow(coco, detections, counts):
    """Return the metrics of a resample by pycocotools on copied images."""
    ap = reference(*copied(coco, detections, counts))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing is NaN
        found = {f"AP/{names[k]}": np.nanmean(ap[:, i, 0]) for i, k in enumerate(sorted(names))}
        found |= {f"AP{50 + 5 * t}": np.nanmean(ap[t, :, 0]) for t in range(10)}
        found |= {"AP": np.nanmean(ap[:, :, 0]), "APs": np.nanmean(ap[:, :, 1])}
        return found | {"APm": np.nanmean(ap[:, :, 2]), "APl": np.nanmean(ap[:, :, 3])}


def assert_as_slow(cases, counts, **options):
    """Compare ``resample`` with the slow bootstrap; ``cases`` share their ground truth."""
    truth = GroundTruth(cases[0][0])
    fast = resample([match(truth, found) for _, found in cases], counts, **options)
    for number, row in enumerate(counts):
        for column, (coco, found) in enumerate(cases):
            got = {name: values[number, column] for name, values in fast.items()}
            assert got == pytest.approx(slow(coco, found, row), abs=1e-9, nan_ok=True)
    return fast


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_copied_images(seed):
    coco, first = random_case(seed)
    second = first[::2].copy()
    second[:, 1] += 2
    fast = assert_as_slow([(coco, first), (coco, second)], draw_counts(20, 5, seed), workers=1)
    assert set(fast) == {*METRICS, "AP/car", "AP/dog", "AP/zebra"}
    assert all(values.shape == (5, 2) for values in fast.values())
    assert np.isnan(fast["AP/zebra"]).all()


def test_equals_pycocotools_on_real_boxes(coco_subset):
    coco = part_of(json.loads((coco_subset / "instances_val.json").read_text()), 30)
    rng = np.random.default_rng(1)
    rows = []
    for entry in coco["annotations"] * 2:
        box = np.array(entry["bbox"]) * rng.normal(1, 0.05, 4)
        rows.append([entry["image_id"], *box, rng.random(), entry["category_id"]])
    assert_as_slow([(coco, np.array(rows))], draw_counts(30, 2))


def test_class_without_instances_in_a_draw():
    # The only dog is on image 9, which the second resample leaves out.
    boxes = [(4, 3, [0, 0, 40, 30]), (9, 18, [0, 0, 50, 20]), (9, 3, [90, 0, 20, 60])]
    annotations = [
        dict(id=n, image_id=image, category_id=k, bbox=box, area=box[2] * box[3], iscrowd=0)
        for n, (image, k, box) in enumerate(boxes, 1)
    ]
    coco = coco_json([9, 4], annotations)
    # Two of three are found; the dog with an IoU of 0.8, at 7 of 10 thresholds.
    found = np.array([[4, 0, 0, 40, 30, 0.9, 3], [9, 0, 0, 50, 16, 0.8, 18]], dtype=float)
    fast = assert_as_slow([(coco, found), (coco, found[:0])], np.array([[1, 1], [2, 0]]))
    # Recall of cars is 1/2, of which 51 of the 101 recalls are reached; without image 9 it is 1.
    np.testing.assert_allclose(fast["AP/car"], [[51 / 101, 0], [1, 0]])
    np.testing.assert_allclose(fast["AP/dog"], [[0.7, 0], [np.nan, np.nan]])
    np.testing.assert_allclose(fast["AP"], [[(51 / 101 + 0.7) / 2, 0], [1, 0]])


def test_scores_that_are_equal_across_images():
    # Copies lie side by side, so images of equal scores keep their order.
    coco, found = random_case(6)
    images = np.unique(found[:, 0])
    for image_id in images:
        own = found[:, 0] == image_id
        found[own, 5] = np.arange(own.sum()) / 50
    assert_as_slow([(coco, found)], draw_counts(20, 3))


places, sides = st.sampled_from([0, 20, 40]), st.sampled_from([20, 40])
boxes = st.tuples(places, places, sides, sides)
truths = st.tuples(st.integers(1, 3), st.sampled_from([3, 18]), boxes, st.booleans())
founds = st.tuples(st.integers(1, 3), boxes, st.sampled_from([3, 18]))
multiplicities = st.lists(st.integers(0, 3), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(truths, max_size=6), st.lists(founds, max_size=8), multiplicities)
def test_small_cases(entries, rows, counts):
    annotations = [
        dict(id=n, image_id=image, category_id=k, bbox=list(box), area=800, iscrowd=int(crowd))
        for n, (image, k, box, crowd) in enumerate(entries, 1)
    ]
    found = [[image, *box, score / 10, k] for score, (image, box, k) in enumerate(rows)]
    case = (coco_json([3, 1, 2], annotations), np.array(found, dtype=float).reshape(-1, 7))
    assert_as_slow([case], np.array([counts]), workers=1)


@pytest.fixture(scope="module")
def found():
    coco, first = random_case(3)
    truth = GroundTruth(coco)
    return [match(truth, rows) for rows in (first, first[::3], first[:0])]


def test_each_image_once_is_the_whole(found):
    once = np.ones(20, np.int64)
    for matches in found:
        np.testing.assert_array_equal(matches.average_precision(once), matches.average_precision())


def test_doubling_all_images_does_not_change_ap(found):
    counts = draw_counts(20, 4)
    once, twice = resample(found, counts), resample(found, 2 * counts)
    for name, values in once.items():
        np.testing.assert_allclose(twice[name], values, atol=1e-12)


def test_parts_and_groups_do_not_matter(monkeypatch):
    # Matches of three classes, sizes and ten thresholds have more segments than a group.
    coco, rows = random_case(3)
    matches, counts = match(GroundTruth(coco), rows), draw_counts(20, 5)
    whole = resample([matches], counts)
    monkeypatch.setattr(resampling, "_AT_ONCE", 2)
    monkeypatch.setattr(average_precision, "_GROUP", 7)
    parts = resample([matches], counts)
    assert len(matches.start) > 7
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)


def test_the_number_of_workers_does_not_matter(found):
    counts = draw_counts(20, 8)
    alone, many, default = (resample(found, counts, workers) for workers in (1, 3, None))
    for name, values in alone.items():
        np.testing.assert_array_equal(many[name], values)
        np.testing.assert_array_equal(default[name], values)


def test_draw_counts():
    counts = draw_counts(30, 2000, seed=4)
    assert counts.shape == (2000, 30)
    assert (counts.sum(axis=1) == 30).all()
    # The share of images that a resample leaves out is (1 - 1/30)^30 = 0.362, with a standard
    # error over 2,000 resamples of less than 0.002.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 30) ** 30, abs=0.006)
    np.testing.assert_array_equal(draw_counts(30, 5, seed=4), counts[:5])
    assert (draw_counts(30, 5, seed=5) != counts[:5]).any()


@pytest.mark.parametrize(("images", "resamples"), [(0, 5), (5, 0)])
def test_draws_of_nothing(images, resamples):
    with pytest.raises(ValueError, match=f"got {images} images and {resamples} resamples"):
        draw_counts(images, resamples)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones((2, 19), int), r"each of the 20 images, got int64 of shape \(2, 19\)\. Draw them"),
        (np.ones((2, 20)), "counts must be integers of at least 0, .* got float64"),
        (-np.ones((2, 20), int), "counts must be integers of at least 0"),
        (np.ones(20, int), r"counts must be \[B, I\], got shape \[20\]"),
    ],
)
def test_bad_counts(found, counts, message):
    with pytest.raises(ValueError, match=message):
        resample(found, counts)
    with pytest.raises(ValueError, match="integers of at least 0"):
        found[0].average_precision(np.full(20, 0.5))


def test_other_bad_arguments(found):
    counts = draw_counts(20, 1)
    with pytest.raises(ValueError, match="matches is empty"):
        resample([], counts)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        resample(found, counts, 0)
    other = match(GroundTruth(random_case(4)[0]), np.empty((0, 7)))
    with pytest.raises(ValueError, match=r"matches\[3\] and matches\[0\] have different"):
        resample([*found, other], counts)


def test_ground_truth_read_twice_is_the_same(found):
    coco, rows = random_case(3)
    values = resample([found[0], match(GroundTruth(coco), rows)], draw_counts(20, 2))["AP"]
    np.testing.assert_array_equal(values[:, 0], values[:, 1])
