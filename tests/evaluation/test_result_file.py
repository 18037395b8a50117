"""Reading COCO result files, and the errors for broken ones."""

import json

import numpy as np
import pytest
from coco_cases import coco_json

from det_losses.evaluation import result_file
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.result_file import read_detections, write_detections

ENTRY = {"image_id": 4, "category_id": 18, "bbox": [1.5, 2, 3, 4.25], "score": 0.75}


def write(folder, content):
    file = folder / "found.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_rows_in_the_order_of_the_file(tmp_path):
    other = ENTRY | {"image_id": 2, "score": 1, "segmentation": {"counts": "x"}}
    rows = read_detections(write(tmp_path, [ENTRY, other]))
    assert rows.tolist() == [[4, 1.5, 2, 3, 4.25, 0.75, 18], [2, 1.5, 2, 3, 4.25, 1, 18]]


def random_rows(count=50):
    """Return detections with numbers that float32 has, as those of a model."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 10.0 ** rng.integers(-12, 6, (count, 7))).astype(np.float32)
    ids = rng.integers(0, 2**40, (count, 2))
    return np.column_stack([ids[:, 0], rows[:, 1:6], ids[:, 1]]).astype(float)


def entries_of(rows):
    return [
        dict(image_id=int(row[0]), category_id=int(row[6]), bbox=row[1:5], score=row[5])
        for row in rows.tolist()
    ]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_written_as_json_writes_it(tmp_path, count):
    rows, file = random_rows(count), tmp_path / "new" / "found.json"
    write_detections(file, rows)
    assert json.loads(file.read_text()) == entries_of(rows)
    np.testing.assert_array_equal(read_detections(file), rows)


ORDERS = [
    ("image_id", "category_id", "bbox", "score"),
    ("score", "bbox", "category_id", "image_id"),
]


@pytest.mark.parametrize("order", ORDERS, ids=["as written", "reversed"])
@pytest.mark.parametrize("options", [{}, dict(separators=(",", ":")), dict(indent=1)])
@pytest.mark.parametrize("count", [1, 50])
def test_fields_and_spaces_in_any_order(tmp_path, monkeypatch, order, options, count):
    rows = random_rows(count)
    entries = [{name: entry[name] for name in order} for entry in entries_of(rows)]
    file = write(tmp_path, json.dumps(entries, **options))
    if "indent" not in options:  # the form that is parsed without a JSON parser
        monkeypatch.setattr(result_file, "parse_json", None)
    np.testing.assert_array_equal(read_detections(file), rows)


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
        # Nearly the form that is parsed without a JSON parser.
        ('[{"image_id": 4, "category_id": 1, "bbox": [1-2, , 3, 4], "score": 1}]', "not a JSON"),
        ('[{"image_id": 4 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": }]', "not a JSON"),
        ('[{"image_id"5: 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "not a JSON"),
        ('[{"image_id": 4, "image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "occurs twice"),
        ('[{"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1e}]', "not a JSON"),
        ('[{"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1e999}]', "finite"),
        ('[{"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}, ]', "not a JSON"),
        ('[{"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}', "not a JSON"),
        ("[{\1: 4, \4: 1, \2: [1, 2, 3, 4], \3: 1}]", "not a JSON"),
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
