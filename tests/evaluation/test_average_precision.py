"""Average precision against pycocotools, and against cases derived by hand."""

import json
import pickle

import numpy as np
import pytest
from coco_cases import CATEGORIES, coco_json, part_of, random_case, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from det_losses.evaluation import matching
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match


def precision(coco, detections, max_dets=100):
    return match(GroundTruth(coco), detections, max_dets).average_precision()


def assert_as_pycocotools(coco, detections, max_dets=100):
    expected = reference(coco, detections, max_dets)
    np.testing.assert_allclose(precision(coco, detections, max_dets), expected, atol=1e-9, rtol=0)
    return expected


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "equal scores"])
@pytest.mark.parametrize("seed", range(8))
def test_random_data(seed, ties):
    expected = assert_as_pycocotools(*random_case(seed, ties=ties))
    assert np.isnan(expected[:, 2]).all()  # zebras
    assert np.nanmax(expected) > 0.3


@pytest.mark.parametrize("max_dets", [1, 3, 100])
def test_more_detections_than_count(max_dets):
    rng = np.random.default_rng(max_dets)
    coco, detections = random_case(5, images=4)
    box = coco["annotations"][0]["bbox"]
    image_id, category_id = (coco["annotations"][0][key] for key in ("image_id", "category_id"))
    # 130 detections of one image and class; those of high score lie best.
    more = [
        [image_id, *box[:2], box[2] + rank / 20, box[3], (130 - rank) / 131, category_id]
        for rank in rng.permutation(130)
    ]
    assert_as_pycocotools(coco, np.concatenate([detections, more]), max_dets)


def test_no_detections_at_all():
    coco, _ = random_case(0)
    expected = assert_as_pycocotools(coco, np.empty((0, 7)))
    assert np.nanmax(expected) == 0


def test_no_truth_at_all():
    _, detections = random_case(0)
    coco = coco_json(sorted(set(detections[:, 0].astype(int).tolist())), [])
    assert np.isnan(assert_as_pycocotools(coco, detections)).all()


def test_pairs_in_parts(monkeypatch):
    coco, detections = random_case(1)
    whole = precision(coco, detections)
    monkeypatch.setattr(matching, "_CHUNK", 3)
    np.testing.assert_array_equal(precision(coco, detections), whole)


@pytest.mark.parametrize("images", [80, pytest.param(400, marks=pytest.mark.slow)])
def test_real_boxes(coco_subset, images):
    coco = part_of(json.loads((coco_subset / "instances_val.json").read_text()), images)
    rng = np.random.default_rng(0)
    rows = []
    for annotation in coco["annotations"]:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = annotation["bbox"]
            dx, dy, dw, dh = rng.normal(0, 0.08, 4)
            box = [x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)]
            wrong = rng.random() < 0.1
            category = rng.choice(coco["categories"])["id"] if wrong else annotation["category_id"]
            rows.append([annotation["image_id"], *box, rng.random(), category])
    expected = assert_as_pycocotools(coco, np.array(rows))
    assert (np.nanmean(expected, axis=(0, 1)) > 0.1).all()  # in each area


starts, sides = st.sampled_from([0, 20, 40, 60]), st.sampled_from([20, 30, 40])
boxes = st.tuples(starts, starts, sides, sides)
truths = st.tuples(st.sampled_from([1, 2]), st.sampled_from([3, 18]), boxes, st.booleans())
founds = st.tuples(st.sampled_from([1, 2]), boxes, st.integers(0, 3), st.sampled_from([3, 18]))


@settings(max_examples=80, deadline=None)
@given(st.lists(truths, max_size=7), st.lists(founds, max_size=9), st.sampled_from([2, 100]))
def test_small_cases(entries, rows, max_dets):
    annotations = [
        dict(
            id=n, image_id=image, category_id=k, bbox=list(box), area=box[2] * box[3], iscrowd=crowd
        )
        for n, (image, k, box, crowd) in enumerate(entries, 1)
    ]
    found = np.array([[i, *box, score, k] for i, box, score, k in rows], dtype=float)
    assert_as_pycocotools(coco_json([2, 1], annotations), found.reshape(-1, 7), max_dets)


def one_class(*boxes, **fields):
    annotations = [
        dict(id=n, image_id=1, category_id=3, bbox=box, **fields) for n, box in enumerate(boxes)
    ]
    return coco_json([1], annotations, CATEGORIES[1:2])


class TestByHand:
    def test_annotation_of_id_0_and_without_area(self):
        # 40 x 30 found exactly: a hit at every threshold. 1200 pixels^2 is medium.
        # (pycocotools takes the id 0 for "no match"; ids here start at 0.)
        ap = precision(one_class([5, 5, 40, 30]), np.array([[1, 5, 5, 40, 30, 0.9, 3]]))
        assert ap.shape == (10, 1, 4)
        np.testing.assert_array_equal(ap[:, 0, [0, 2]], 1)
        assert np.isnan(ap[:, 0, [1, 3]]).all()

    @pytest.mark.parametrize(("side", "areas"), [(32, [0, 1, 2]), (96, [0, 2, 3])])
    def test_both_ends_belong_to_an_area(self, side, areas):
        # A square at the limit of two areas is found, after a false one of the same size.
        rows = [[1, 200, 0, side, side, 0.9, 3], [1, 0, 0, side, side, 0.5, 3]]
        ap = precision(one_class([0, 0, side, side]), np.array(rows))
        np.testing.assert_array_equal(ap[:, 0, areas], 0.5)
        assert np.isnan(np.delete(ap, areas, axis=2)).all()

    def test_threshold_is_not_rounded(self):
        # The IoU is 24.3 / 27 = 0.9, as computed from these corners 0.8999999999999999; so is
        # COCO's ninth threshold, linspace(.5, .95, 10)[8].
        coco, row = one_class([10.5, 0, 27, 10]), [1, 10.5, 0, 24.3, 10, 0.9, 3]
        coco["annotations"][0].update(id=1, area=270, iscrowd=0)
        expected = assert_as_pycocotools(coco, np.array([row]))
        assert expected[:, 0, 0].tolist() == pytest.approx([1] * 9 + [0])


def test_matches_can_be_pickled():
    coco, detections = random_case(2)
    found = match(GroundTruth(coco), detections)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.average_precision(), found.average_precision())
