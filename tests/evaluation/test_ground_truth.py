"""The ground truth as arrays, and the errors for a broken one."""

import json
import math

import numpy as np
import pytest
from coco_cases import coco_json, random_case

from det_losses.evaluation.ground_truth import GroundTruth, read_truth
from det_losses.evaluation.matching import match


def test_ground_truth():
    truth = GroundTruth(
        coco_json(
            [7, 2],
            [
                dict(id=1, image_id=7, category_id=24, bbox=[1, 2, 3, 4], area=9, iscrowd=1),
                dict(id=2, image_id=2, category_id=3, bbox=[5, 6, 7, 8]),
            ],
        )
    )
    assert truth.image_ids.tolist() == [2, 7]
    assert truth.category_ids.tolist() == [3, 18, 24]
    assert truth.names == ("car", "dog", "zebra")
    assert truth.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert truth.areas.tolist() == [9, 56]
    assert truth.crowds.tolist() == [True, False]
    assert truth.image_index.tolist() == [1, 0]
    assert truth.category_index.tolist() == [2, 0]


def test_ground_truth_of_a_file(tmp_path):
    coco, detections = random_case(3)
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(coco))
    found = match(GroundTruth(file), detections).average_precision()
    np.testing.assert_array_equal(found, match(GroundTruth(coco), detections).average_precision())


def test_boxes_without_area_inside_their_image_are_left_out_of_a_file(tmp_path):
    # images of 300 x 300: outside, without height, reaching beyond, whole
    boxes = [[300, 5, 9, 9], [5, 5, 9, 0], [290, 5, 50, 9], [5, 5, 9, 9]]
    entries = [dict(image_id=1, category_id=3, bbox=box) for box in boxes]
    coco = coco_json([1], entries)
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(coco))
    assert GroundTruth(file).boxes.tolist() == boxes[2:]
    assert [note.partition(" (")[0] for note in read_truth(file)[1]] == [
        "4 annotations without an id that is a number: numbered",
        "1 of 4 boxes has no width or height and is left out",
        "1 of 4 boxes is outside its image and is left out",
        "1 of 4 boxes reaches beyond its image and is evaluated as annotated",
    ]
    for image in coco["images"]:  # without a size, nothing is known to be outside
        del image["width"], image["height"], image["file_name"]
    file.write_text(json.dumps(coco))
    assert GroundTruth(file).boxes.tolist() == [boxes[0], *boxes[2:]]
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file; give the COCO json"):
        GroundTruth(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(image_id=9),
            r"ground truth: annotations\[0\] \(id 1\): 'image_id' is 9, which is not",
        ),
        (dict(category_id=9), r"annotations\[0\] \(id 1\): 'category_id' is 9, which is not an id"),
        (dict(bbox=[1, 2, 3]), r"'bbox' must be 4 finite numbers"),
        (dict(bbox=[1, 2, 3, math.nan]), r"'bbox' must be 4 finite numbers"),
    ],
)
def test_broken_ground_truth(change, message):
    entry = dict(id=1, image_id=1, category_id=3, bbox=[1, 2, 3, 4]) | change
    with pytest.raises(ValueError, match=message):
        GroundTruth(coco_json([1], [entry]))


def test_ground_truth_of_huge_ids():
    with pytest.raises(
        ValueError, match=r"ground truth: images\[1\]: 'id' must be an integer from 0 to 2\^53 - 1"
    ):
        GroundTruth(coco_json([1, 2**53 + 1], []))


def test_ground_truth_without_images():
    truth = GroundTruth(coco_json([], []))
    assert np.isnan(match(truth, np.empty((0, 7))).average_precision()).all()
    with pytest.raises(ValueError, match="image_id -1 is not in the ground truth"):
        match(truth, np.array([[-1, 2, 3, 4, 5, 0.5, 3]]))
