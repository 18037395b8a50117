"""Reading COCO result files, and the errors for broken ones."""

import json

import pytest
from coco_cases import coco_json

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.result_file import read_detections

ENTRY = {"image_id": 4, "category_id": 18, "bbox": [1.5, 2, 3, 4.25], "score": 0.75}


def write(folder, content):
    file = folder / "found.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_rows_in_the_order_of_the_file(tmp_path):
    other = ENTRY | {"image_id": 2, "score": 1, "segmentation": {"counts": "x"}}
    rows = read_detections(write(tmp_path, [ENTRY, other]))
    assert rows.tolist() == [[4, 1.5, 2, 3, 4.25, 0.75, 18], [2, 1.5, 2, 3, 4.25, 1, 18]]


def test_empty_list(tmp_path):
    assert read_detections(write(tmp_path, [])).shape == (0, 7)


def test_ids_as_text_or_float_are_read(tmp_path):
    file = write(tmp_path, [ENTRY | {"image_id": "4", "category_id": 18.0}])
    file.write_bytes(file.read_text().encode("utf-16"))
    assert read_detections(file).tolist() == [[4, 1.5, 2, 3, 4.25, 0.75, 18]]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found\.json: no such result file\. Give a COCO"):
        read_detections(tmp_path / "found.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 4', r"not a JSON file \(.*\)\. Is it complete\?"),
        ({"annotations": []}, r"is a list of detections, found a dict"),
        ([ENTRY, [1]], r"\[1\]: a detection must be an object, got \[1\]"),
        ([{k: v for k, v in ENTRY.items() if k != "score"}], r"\[0\]: 'score' is missing"),
        ([{k: v for k, v in ENTRY.items() if k != "bbox"}], r"\[0\]: 'bbox' is missing"),
        ([ENTRY | {"image_id": "a4"}], r"\[0\]: 'image_id' must be an integer id .*, got 'a4'"),
        ([ENTRY, 3, ENTRY, 4], r"\[1\]: a detection must .* 1 more of the 4 detections has err"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"score": 1, "score": 2}]', "'score' occurs twice in one object"),
        ([ENTRY | {"image_id": 2**53 + 1}], r"'image_id' must be an integer id below 2\^53"),
        ([ENTRY | {"category_id": 1.5}], r"'category_id' must be an integer id .*, got 1\.5"),
        ([ENTRY | {"bbox": [1, 2, 3]}], r"'bbox' must be 4 finite numbers .*, got \[1, 2, 3\]"),
        ([ENTRY | {"bbox": [1, 2, 3, None]}], r"'bbox' must be 4 finite numbers"),
        ([ENTRY | {"bbox": [1, 2, 3, float("nan")]}], r"'bbox' must be 4 finite numbers"),
        ([ENTRY | {"bbox": [1, 2, 3, 10**400]}], r"'bbox' must be 4 finite numbers"),
        ([ENTRY, ENTRY | {"score": float("nan")}], r"\[1\]: 'score' must be a finite .*, got nan"),
        ([ENTRY | {"score": True}], r"'score' must be a finite number, got True"),
    ],
)
def test_broken_file(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"found\.json: .*{message}"):
        read_detections(write(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, r"found\.json: \[1\]: image_id 5 is not in the ground truth\. Use"),
        ({"category_id": 5}, r"found\.json: \[1\]: category_id 5 is not in the ground truth"),
    ],
)
def test_ids_that_the_ground_truth_lacks(tmp_path, change, message):
    truth = GroundTruth(coco_json([4], []))
    file = write(tmp_path, [ENTRY, ENTRY | change])
    assert len(read_detections(file)) == 2
    with pytest.raises(ValueError, match=message):
        read_detections(file, truth)
