"""results.json, results.csv and the ground truth."""

import csv
import io
import json

import pytest

from det_losses.comparison.results import Results, to_csv


def test_metrics_without_ground_truth_are_null_in_json(plan, tmp_path, finish):
    finish(plan.runs(tmp_path)[0], APs=None)
    Results(plan, tmp_path, {"x": float("nan")}).write()
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["runs"][0]["metrics"]["APs"] is None
    assert stored["meta"]["x"] is None


def test_results_keep_commands_and_notes_of_earlier_commands(plan, tmp_path):
    first = Results(plan, tmp_path, {"command": "one"})
    first.note("dropped A")
    first.note("dropped A")
    first.write()
    meta = Results(plan, tmp_path, {"command": "two"}).meta()
    assert (meta["commands"], meta["notes"]) == (["one", "two"], ["dropped A"])


def test_other_validation_data_in_the_same_directory_are_refused(plan, tmp_path):
    facts = {"ground_truth": {"annotations": [{"area": 4.0}]}, "val_boxes": {"all": 1}}
    Results(plan, tmp_path, facts).write()
    Results(plan, tmp_path, facts)
    other = {"ground_truth": {"annotations": []}, "val_boxes": {"all": 0}}
    with pytest.raises(ValueError, match="the validation data has changed"):
        Results(plan, tmp_path, other)
    # A damaged file is written again, if the stored numbers of boxes are those of the data.
    file = tmp_path / "ground_truth.json"
    whole = file.read_text()
    file.write_text(whole[:9])
    with pytest.raises(ValueError, match="the validation data has changed"):
        Results(plan, tmp_path, other)
    Results(plan, tmp_path, facts)
    assert file.read_text() == whole


def test_the_csv_is_sorted_by_ap_and_holds_classes(plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    finish(runs[0], AP=0.25, **{"AP/cat": 0.2})
    finish(runs[3], AP=0.35)
    lines = list(
        csv.DictReader(io.StringIO(to_csv([run.row(tmp_path) for run in plan.runs(tmp_path)])))
    )
    assert [(line["variant"], line["seed"], line["AP"]) for line in lines[:3]] == [
        ("GIoULoss", "1", "0.35"),
        ("SmoothL1Loss", "0", "0.25"),
        ("GIoULoss", "0", ""),
    ]
    assert lines[1]["AP/cat"] == "0.2"
