"""Pairs against pycocotools' own matches, and detections that cannot be matched."""

import math

import numpy as np
import pytest
from coco_cases import coco_json, random_case, reference_pairs

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match, match_pairs
from det_losses.evaluation.metrics import THRESHOLDS


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "equal scores"])
@pytest.mark.parametrize("max_dets", [2, 100])
def test_pairs(max_dets, ties):
    coco, detections = random_case(0, ties=ties)
    pairs = match_pairs(GroundTruth(coco), detections, max_dets)
    pair, threshold = np.nonzero(pairs.at)
    key = zip(threshold.tolist(), pairs.detection[pair].tolist(), strict=True)
    ours = dict(zip(key, pairs.truth[pair].tolist(), strict=True))
    assert ours == reference_pairs(coco, detections, max_dets)
    assert len(ours) == len(pair)  # at a threshold, a detection is in one pair
    assert (pairs.iou[pair] >= THRESHOLDS[threshold]).all()
    assert {0, 9} <= set(threshold.tolist())
    crowds = np.array([entry["iscrowd"] for entry in coco["annotations"]])
    assert crowds[pairs.truth].any() and not crowds[pairs.truth].all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2, 3, 4, 5, 0.5]], r"detections must be \[N, 7\] .* got \[1, 6\]"),
        ([[1, 2, math.nan, 4, 5, 0.5, 3]], r"detections\[0\]: all values must be finite"),
        ([[1, 2, 3, 4, 5, 0.5, 3.5]], r"detections\[0\]: category_id 3\.5 is not in the ground"),
        ([[1, 2, 3, 4, 5, 0.5, 99]], r"detections\[0\]: category_id 99 is not in the ground"),
        (
            [[1, 2, 3, 4, 5, 0.5, 3], [-1, 2, 3, 4, 5, 0.5, 3]],
            r"detections\[1\]: image_id -1 is not in the ground truth\. Use the",
        ),
    ],
)
def test_broken_detections(rows, message):
    with pytest.raises(ValueError, match=message):
        match(GroundTruth(coco_json([1], [])), np.array(rows))


def test_max_dets_below_1():
    with pytest.raises(ValueError, match="max_dets must be at least 1, got 0"):
        match(GroundTruth(coco_json([1], [])), np.empty((0, 7)), 0)
