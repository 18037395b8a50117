import pytest

from det_losses.compare.report import report, warning
from det_losses.compare.rows import rows, set_status
from det_losses.compare.tables import loss_table, table, weight_table


@pytest.fixture
def results(plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    for run, ap in zip(runs, (0.30, 0.40, 0.20, 0.50), strict=True):
        finish(run, AP=ap, APs=None)
    return rows(plan, tmp_path)


def test_losses_are_sorted_by_their_mean(meta, results):
    lines = loss_table(meta, results).splitlines()
    # GIoU: (0.40 + 0.50) / 2; Smooth L1: (0.30 + 0.20) / 2.
    assert lines[2].startswith("| GIoULoss     | 2/2  | 0.450 |")
    assert lines[3].startswith("| SmoothL1Loss | 2/2  | 0.250 |")


def test_a_size_without_boxes_is_na_with_its_count(meta, results):
    assert "n/a (0 boxes)" in loss_table(meta, results)
    assert "-1" not in loss_table(meta, results)


def test_a_mean_is_over_finished_runs_and_says_what_is_missing(meta, plan, tmp_path, finish):
    finish(plan.runs(tmp_path)[0], AP=0.3)
    set_status(plan.runs(tmp_path)[2], "failed", "it broke")
    lines = loss_table(meta, rows(plan, tmp_path)).splitlines()
    assert "| SmoothL1Loss | 1/2  | 0.300 |" in lines[2]
    assert "1 failed" in lines[2]
    assert "2 pending" in lines[3]


def test_below_ap_010_no_ranking_is_to_be_read(meta, plan, tmp_path, finish):
    runs = plan.runs(tmp_path)
    finish(runs[0], AP=0.0999)
    finish(runs[1], AP=0.4)
    text = warning(meta, rows(plan, tmp_path))
    assert "No ranking should be read" in text
    assert "SmoothL1Loss reaches AP 0.100, below 0.10" in text or "0.0999" in text
    assert text in report(meta, rows(plan, tmp_path))
    finish(runs[0], AP=0.10)
    assert warning(meta, rows(plan, tmp_path)) is None


def test_without_a_finished_baseline_nothing_is_warned_of(meta, plan, tmp_path):
    assert warning(meta, rows(plan, tmp_path)) is None


def test_the_weights_come_with_their_source(meta):
    lines = weight_table(meta).splitlines()
    assert lines[2].split("|")[1:5] == [
        " SmoothL1Loss ",
        " 1.0         ",
        " beta=0.11        ",
        " source of SmoothL1Loss ",
    ]


def test_the_report_holds_all_that_is_needed_to_repeat_it(meta, results):
    text = report(meta, results)
    for part in (
        "# Comparison of loss_bbox in RetinaNet",
        "compare x --losses A B",
        "10 images to train on, 5 to evaluate on",
        "7 boxes (0 small, 3 medium, 4 large; crowds not counted)",
        "- dog: 0",
        "torch 2.15",
        "some CPU, threads: 2",
        "runs/GIoULoss/seed_1",
    ):
        assert part in text


def test_the_report_shows_a_failed_runs_error(meta, plan, tmp_path):
    set_status(plan.runs(tmp_path)[1], "failed", "exit status 1\nValueError: broken")
    text = report(meta, rows(plan, tmp_path))
    assert "GIoULoss seed 0 failed:\n\n```\nexit status 1\nValueError: broken\n```" in text


def test_one_seed_is_not_taken_for_more_than_it_is(meta, results):
    assert "One run a loss" in report({**meta, "seeds": [0]}, results)
    assert "seeds 0, 1" in report(meta, results)


def test_a_pipe_in_a_cell_does_not_break_the_table():
    assert table(["a"], [["x|y"]]).splitlines()[2] == "| x\\|y |"
