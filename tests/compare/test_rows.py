import csv
import io
import json

import pytest

from det_losses.compare.rows import rows, set_status, to_csv, write_results


def test_each_run_has_a_row_with_its_status(plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    finish(runs[0], AP=0.25, **{"AP/cat": 0.25})
    set_status(runs[1], "failed", "it broke")
    set_status(runs[2], "interrupted")
    found = rows(plan, tmp_path)
    assert [row["status"] for row in found] == ["done", "failed", "interrupted", "pending"]
    assert found[0]["metrics"]["AP"] == 0.25
    assert found[0]["train_seconds"] == 61.0
    assert found[0]["work_dir"] == "runs/SmoothL1Loss/seed_0"
    assert found[0]["variant"] == "SmoothL1Loss"
    assert found[0]["proof"]["loss_bbox"]["calls"] == 7
    assert found[1]["error"] == "it broke"
    assert found[3]["metrics"]["AP"] is None


def test_a_run_that_failed_before_and_is_finished_now_is_done(plan, tmp_path, finish):
    run = plan.runs(tmp_path)[0]
    set_status(run, "failed", "it broke")
    finish(run)
    row = rows(plan, tmp_path)[0]
    assert (row["status"], row["error"]) == ("done", None)


def test_what_has_no_ground_truth_is_null_in_json(plan, tmp_path, finish):
    finish(plan.runs(tmp_path)[0], APs=None)
    write_results(tmp_path, {"x": float("nan")}, rows(plan, tmp_path))
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["runs"][0]["metrics"]["APs"] is None
    assert stored["meta"] == {"x": None}


def test_the_csv_is_sorted_by_ap_and_holds_classes(plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    finish(runs[0], AP=0.25, **{"AP/cat": 0.2})
    finish(runs[3], AP=0.35)
    lines = list(csv.DictReader(io.StringIO(to_csv(rows(plan, tmp_path)))))
    assert [(line["variant"], line["seed"], line["AP"]) for line in lines[:3]] == [
        ("GIoULoss", "1", "0.35"),
        ("SmoothL1Loss", "0", "0.25"),
        ("GIoULoss", "0", ""),
    ]
    assert lines[1]["AP/cat"] == "0.2"


def proof(**changes):
    own = {"loss": "GIoULoss(eps=1e-07)", "hash": "0", "calls": 3, "probe": {"start": 1e-9}}
    return {"proof": {"loss_bbox": {**own, **changes}}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "no proof that loss_bbox was GIoULoss"),
        (proof(loss="L1Loss()"), "loss_bbox was L1Loss(), planned was GIoULoss"),
        (proof(calls=0), "training never called GIoULoss(eps=1e-07) in loss_bbox"),
        (proof(probe={"start": 0, "end": 0.5}), "gradient of loss_bbox was not that of GIoULoss"),
        (proof(probe={"start": None}), "gradient of loss_bbox was not that of GIoULoss"),
    ],
)
def test_a_run_without_the_proof_of_its_loss_is_not_done(plan, tmp_path, finish, record, message):
    run = plan.runs(tmp_path)[1]
    finish(run)
    file = run.work_dir / "metrics.json"
    stored = json.loads(file.read_text())
    del stored["proof"]
    file.write_text(json.dumps({**stored, **record}))
    row = rows(plan, tmp_path)[1]
    assert row["status"] == "failed"
    assert message in row["error"]


@pytest.mark.parametrize("gradient", [True, False])
def test_a_record_without_a_gradient_comparison_needs_calls_only(plan, tmp_path, finish, gradient):
    run = plan.runs(tmp_path)[1]
    finish(run)
    file = run.work_dir / "metrics.json"
    proof = {"loss": "GIoULoss(eps=1e-07)", "calls": 3, "gradient": gradient}
    file.write_text(json.dumps({**json.loads(file.read_text()), "proof": {"loss_bbox": proof}}))
    assert rows(plan, tmp_path)[1]["status"] == "done"
