"""A study in Python; the numbers are those of the verdict, which other tests check."""

import math
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from det_losses.report import Study, answer, next_step, summary


@pytest.fixture
def without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)


@pytest.mark.usefixtures("without_pandas")
def test_the_table_has_the_numbers_of_the_verdict_in_points(planted):
    verdict = planted.verdict()
    table = planted.table()
    assert [row["variant"] for row in table] == [each.label for each in verdict.summaries]
    assert table[0]["AP"] == pytest.approx(100 * verdict.summaries[0].mean)
    assert table[0]["seeds"] == 3
    found = next(d for d in verdict.against_baseline if d.first == table[0]["variant"])
    numbers = [100 * found.value, 100 * found.low, 100 * found.high, found.p]
    assert [table[0][key] for key in ("difference", "low", "high", "p")] == numbers
    assert [row["may_be_best"] for row in table] == [
        each.label in verdict.regrets for each in verdict.summaries
    ]
    baseline = next(row for row in table if row["variant"] == planted.baseline)
    assert all(math.isnan(baseline[key]) for key in ("difference", "low", "p", "costs_at_most"))
    assert "AP75" in planted.table("AP75")[0]


def test_the_table_is_a_data_frame_where_pandas_is(planted, monkeypatch):
    pandas = SimpleNamespace(DataFrame=lambda rows: ("frame of", len(rows)))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert planted.table() == ("frame of", 4)


@pytest.mark.usefixtures("without_pandas")
def test_below_a_usable_ap_nothing_is_ranked(make_comparison):
    noise = {"SmoothL1Loss": 3.0, "GIoULoss": 3.0}
    study = Study.load(make_comparison(noise=noise))
    assert study.answer.startswith("This comparison does not support a ranking")
    for row in study.table():
        assert math.isnan(row["p"]) and math.isnan(row["costs_at_most"])
        assert row["may_be_best"] is None


def test_the_figure_has_each_difference_with_its_interval(planted):
    figure = planted.plot()
    (axes,) = figure.axes
    against = planted.verdict().against_baseline
    assert [label.get_text() for label in axes.get_yticklabels()] == [d.first for d in against]
    ends = [collection.get_segments()[0][:, 0].tolist() for collection in axes.collections]
    assert ends == [[100 * d.low, 100 * d.high] for d in against]
    assert axes.get_xlabel() == "AP: difference to SmoothL1Loss, 95% interval"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_the_top_of_the_report(planted):
    html = planted._repr_html_()
    page = ElementTree.fromstring(f"<div>{html}</div>")
    assert page.find("p/strong").text == planted.answer == answer.headline(planted)
    assert [cell.text for cell in page.iter("th")][:3] == ["#", "variant", "AP"]
    assert len(page.findall("table/tbody/tr")) == 4
    assert str(planted) == summary(planted)
    step = next_step.next_step(planted)
    assert planted.next_step == ("\n".join([step.text, *step.commands]) if step else "")


def test_html_of_a_notebook_is_escaped(make_comparison):
    study = Study.load(make_comparison(noise={"<script>": 0.1, "b": 0.1}))
    assert "<script>" not in study._repr_html_()


def test_the_report_is_written_into_a_folder(planted_root, tmp_path):
    study = Study.load(str(planted_root))
    assert study.report(tmp_path / "v1.2") == tmp_path / "v1.2" / "report.html"
    with pytest.raises(ValueError, match=r"x.html: expected a folder"):
        study.report(tmp_path / "x.html")
    with pytest.raises(ValueError, match="give the folder, because the study is not of one"):
        Study.load([planted_root, planted_root]).report()
