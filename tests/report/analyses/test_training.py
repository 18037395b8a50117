import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic_comparison import NOISE

from det_losses.report.analyses.training import (
    ap_curve,
    cost_table,
    levels,
    loss_curve,
    loss_names,
    mean_curve,
    time_text,
    time_to_level,
    training_section,
)


def val(step, ap, seconds=None):
    return {"kind": "val", "step": step, "seconds": seconds, "metrics": {"AP": ap}}


HISTORY = [
    {"kind": "train", "step": 10, "seconds": 1.0, "losses": {"loss_cls": 0.5, "loss": 2.0}},
    val(100, 0.10, 20.0),
    {"kind": "train", "step": 110, "seconds": 22.0, "losses": {"loss_cls": None, "loss": 1.0}},
    val(200, 0.30, 50.0),
    val(300, None, 70.0),
    val(400, 0.20, 90.0),
    val(500, 0.40, 110.0),
]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.05, (50, 10)),  # half of the way from 0 at step 0 to 0.10 at step 100
        (0.10, (100, 20)),
        (0.15, (125, 27.5)),  # a quarter of the way from 0.10 to 0.30
        (0.30, (200, 50)),  # the first time, although it falls again
        (0.35, (475, 105)),  # three quarters of the way from 0.20 at 400 to 0.40 at 500
        (0.41, None),
        (0.0, None),
    ],
)
def test_time_to_a_level_by_hand(level, expected):
    found = time_to_level(ap_curve(HISTORY, "AP"), level)

    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_seconds_may_be_unknown():
    steps, seconds = time_to_level(ap_curve([val(100, 0.5)], "AP"), 0.25)

    assert steps == 50 and math.isnan(seconds)
    assert time_text([(steps, seconds)]) == "50 steps"


def test_non_finite_values_are_left_out():
    assert ap_curve(HISTORY, "AP").step.tolist() == [100, 200, 400, 500]
    assert loss_curve(HISTORY, "loss_cls").step.tolist() == [10]
    assert loss_curve(HISTORY, "loss_bbox").value.tolist() == []
    infinite = {"kind": "train", "step": 1, "losses": {"loss": math.inf}}
    assert loss_curve([infinite], "loss").step.tolist() == []


def test_the_last_line_of_a_repeated_step_is_used():
    curve = ap_curve([val(100, 0.1), val(100, 0.2)], "AP")

    assert (curve.step.tolist(), curve.value.tolist()) == ([100], [0.2])


def test_the_total_loss_comes_first():
    assert loss_names([HISTORY, [], [val(1, 0.1)]]) == ["loss", "loss_cls"]


def test_mean_is_over_the_steps_that_all_runs_have():
    first = ap_curve([val(1, 0.1), val(2, 0.2), val(3, 0.5)], "AP")
    second = ap_curve([val(2, 0.4), val(3, 0.1), val(4, 0.9)], "AP")

    mean = mean_curve([first, second])

    assert mean.step.tolist() == [2, 3]
    np.testing.assert_allclose(mean.value, [0.3, 0.3], rtol=1e-12)


def test_levels_are_parts_of_the_baselines_final_mean(planted):
    study = planted.study
    final = np.mean([run["metrics"]["AP"] for run in study.done("SmoothL1Loss")])

    assert levels(planted) == pytest.approx(
        {0.5: 0.5 * final, 0.75: 0.75 * final, 0.9: 0.9 * final}
    )


def test_the_section_shows_when_each_variant_reaches_a_level(planted):
    section = training_section(planted)
    reached, cost = section.tables

    assert [row[0] for row in reached.rows] == list(NOISE)
    # EIoULoss ends far above 90% of the baseline's AP, L1Loss far below.
    assert {row[0]: row[3] for row in reached.rows}["L1Loss"] == "not reached"
    assert "steps" in {row[0]: row[3] for row in reached.rows}["EIoULoss"]
    # Seconds per iteration are 0.5 + noise: 0.6 for the baseline, 0.66 for L1Loss.
    assert cost.rows[0][1:3] == ["0.6", "1.00"]
    assert cost.rows[3][1:3] == ["0.66", "1.10"]
    assert len(section.figures) == 4  # AP, loss, loss_cls, loss_bbox


def test_runs_without_history_are_named(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1, "B": 0.1})
    (run,) = context.study.runs_of("B")
    folder = context.study.done("B")[0]["directory"]
    with open(f"{folder}/{run['history']}", "w"):
        pass

    section = training_section(context)

    assert "No history was stored for B." in section.text
    assert [row[0] for row in section.tables[0].rows] == ["A"]


def test_one_evaluation_is_not_a_curve(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1})
    (run,) = context.study.runs
    file = Path(context.study.done("A")[0]["directory"], run["history"])
    lines = file.read_text().splitlines()
    last = [line for line in lines if '"val"' in line][-1]
    kept = [line for line in lines if '"val"' not in line]
    file.write_text("\n".join([*kept, last]) + "\n")

    section = training_section(context)

    assert len(section.figures) == 3  # loss, loss_cls, loss_bbox
    assert len(section.tables) == 1  # the cost


def test_no_section_without_records_of_training(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1})
    (run,) = context.study.runs
    run.update(history="none.jsonl", seconds_per_iteration=None, peak_memory_mb=None)

    assert training_section(context) is None
    assert cost_table(context) is None


def test_unfinished_lines_of_a_run_that_never_evaluated(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1})
    (run,) = context.study.runs
    lines = [{"kind": "train", "step": 10, "losses": {"loss": None, "loss_bbox": 0.5}}]
    with open(f"{run['directory']}/history.jsonl", "w") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))

    section = training_section(context)

    assert len(section.figures) == 1 and "loss_bbox" in section.figures[0].caption
    assert len(section.tables) == 1  # the cost


def test_long_histories_give_small_figures(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1})
    (run,) = context.study.runs
    values = np.random.default_rng(0).uniform(size=9000)
    lines = [
        {"kind": "train", "step": step, "losses": {"loss": value}}
        for step, value in enumerate(values.tolist(), 1)
    ]
    with open(f"{run['directory']}/history.jsonl", "w") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))

    (figure,) = training_section(context).figures

    assert len(figure.svg) < 20_000
    assert "Each point is the mean of about 60 stored values." in figure.caption  # 9000 / 150
