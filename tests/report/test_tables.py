import re

import pytest

from det_losses.report import answer, tables
from det_losses.report.study import Study


def test_standings_by_an_independent_computation(make_comparison):
    root = make_comparison(unfinished={("L1Loss", 0): "failed", ("L1Loss", 2): "pending"})
    study = Study.load([root])
    verdict = study.verdict()
    found = tables.standings(study)
    rows = {row.label: row for row in found.rows}
    assert list(rows) == [summary.label for summary in verdict.summaries]
    aps = [run["metrics"]["AP"] for run in study.runs_of("EIoULoss")]
    # The sample standard deviation of three numbers: squares over 3 - 1.
    centre = sum(aps) / 3
    sd = (sum((ap - centre) ** 2 for ap in aps) / 2) ** 0.5
    row = rows["EIoULoss"]
    assert row.mean == f"{100 * centre:.1f} ± {100 * sd:.1f}"
    d = verdict.against_baseline[0]
    expected = f"+{100 * d.value:.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
    assert found.difference_text(row) == expected
    assert float(row.p) == pytest.approx(verdict.against_baseline[0].p, abs=5e-4)
    assert (row.rank, row.runs, row.weight) == ("1", "3/3", "1")
    assert rows["L1Loss"].runs == "1/3, 1 failed, 1 pending"
    assert found.difference_text(rows[verdict.baseline]) == "baseline"


def test_without_a_ranking_variants_are_in_the_planned_order(planted, monkeypatch):
    assert tables.standings(planted).tested and tables.pairs(planted)
    monkeypatch.setattr(answer, "TOO_LOW", 1.0)
    found = tables.standings(planted)
    assert [row.label for row in found.rows] == planted.labels
    assert not {"#", "p", "may be best"} & set(found.table.headers)
    assert tables.pairs(planted) is None


def test_a_variant_that_is_not_compared_shows_its_recorded_score(make_comparison):
    unfinished = {("a", 0): "pending", ("b", 1): "pending"}
    noise = {"base": 0.1, "a": 0.05, "b": 0.05}
    study = Study.load([make_comparison(noise=noise, seeds=(0, 1), unfinished=unfinished)])
    last = tables.standings(study).rows[-1]
    recorded = 100 * study.runs_of("b")[0]["metrics"]["AP"]
    assert (last.label, last.rank, last.mean) == ("b", "", f"{recorded:.1f}")
    assert last.difference is None


def test_other_metrics_and_pairs_are_those_of_the_statistics(planted):
    (others,), (groups, pairs) = tables.other_metrics(planted).tables, tables.pairs(planted).tables
    at_75 = planted.verdict("AP75")
    best = at_75.against_baseline[0]
    cells = dict(
        zip(others.headers, next(r for r in others.rows if r[0] == best.first), strict=True)
    )
    mean, difference = cells["AP75"].split("\n")
    assert mean == f"{100 * at_75.summaries[0].mean:.1f}"
    assert difference.startswith(f"+{100 * best.value:.1f} [")
    assert [row[:2] for row in pairs.rows] == [[d.first, d.second] for d in planted.verdict().pairs]
    assert dict(groups.rows) == planted.verdict().letters


def test_a_grid_of_two_losses(make_comparison, planted):
    noise = {"A1": 0.1, "A2": 0.08, "B1": 0.05}
    factors = {label: {"loss_bbox": label[0], "loss_cls": label[1]} for label in noise}
    study = Study.load([make_comparison(seeds=(0,), noise=noise, factors=factors)])
    (grid,) = tables.factor_grid(study).tables
    assert grid.headers == ["loss_bbox \\ loss_cls", "1", "2"]
    means = {s.label: f"{100 * s.mean:.1f}" for s in study.verdict().summaries}
    (first, one, two), (second, three, four) = grid.rows
    assert (first, one, second) == ("A", means["A1"], "B")
    assert re.match(rf"{means['A2']}\n[-+]\d+\.\d \[", two)
    assert three.startswith(means["B1"])
    assert four == ""  # was not trained
    assert tables.factor_grid(planted) is None


def test_whether_a_variant_may_be_the_best(make_comparison):
    """Costs are rounded up: at most 4.31 points is at most 4.4."""
    study = Study.load([make_comparison(noise={"a": 0.10, "b": 0.098, "c": 0.3})])
    verdict = study.verdict()
    assert verdict.candidates and "c" not in verdict.candidates
    for row in tables.standings(study).rows:
        if row.label == "c":
            assert row.candidate == "no"
        else:
            cost = float(row.candidate.removeprefix("yes, costs ≤ "))
            assert 0 <= cost - 100 * verdict.regrets[row.label] < 0.1 + 1e-9


def test_one_seed_has_no_ranks_and_no_tests(make_comparison):
    study = Study.load([make_comparison(seeds=(0,), noise={"a": 0.10, "b": 0.05})])
    found = tables.standings(study)
    assert not {"#", "p", "may be best"} & set(found.table.headers)
    assert [row.label for row in found.rows] == ["b", "a"]
    assert len(tables.pairs(study).tables) == 1


def test_the_intervals_of_a_look_have_its_level(make_comparison):
    meta = {"looks": [{"seeds": 3}]}
    study = Study.load([make_comparison(noise={"a": 0.10, "b": 0.05}, meta=meta)])
    assert "difference [99% interval]" in tables.standings(study).table.headers
    assert study.verdict("AP75").error == pytest.approx(0.05)  # exploratory
