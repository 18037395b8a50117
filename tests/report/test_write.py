import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from synthetic_comparison import write_comparison

from det_losses.evaluation.metrics import METRICS
from det_losses.report import analyses, answer, write_report
from det_losses.report.document import document
from det_losses.report.markdown import markdown
from det_losses.report.plotting import styles
from det_losses.report.section import Figure, Section, Table
from det_losses.report.study import Study
from det_losses.report.write import differences_csv, html, statistics

TWO = {"base": 0.1, "new": 0.05}
NO_TEXT = ("style", "title", "svg")


class Page(HTMLParser):
    """Tags with attributes; visible text by its innermost tag; rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.rows = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not set(self.open) & set(NO_TEXT):
            self.texts.append((self.open[-1] if self.open else "", data))
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    def of(self, tag):
        return [data for name, data in self.texts if name == tag]


@pytest.fixture
def no_analyses(monkeypatch):
    monkeypatch.setattr(analyses, "BUILDERS", {})


def test_the_page_has_the_contents_of_the_document(planted, no_analyses):
    contents = document(planted)
    page = Page(html(contents))
    assert page.of("h1") == [contents.headline] == [answer.headline(planted)]
    assert page.of("li") == contents.cautions
    assert page.of("h2") == [section.title for section in contents.sections]
    folded = [section for section in contents.sections if section.folded]
    assert len([tag for tag, _ in page.tags if tag == "details"]) == len(folded) > 0


def test_standings_have_an_interval_and_a_colour_a_row(planted, no_analyses):
    contents = document(planted)
    page_text = html(contents)
    rows = Page(page_text).rows[1 : 1 + len(planted.labels)]
    expected = contents.standings
    assert [row[0] for row in rows] == [f"{row.rank}{row.label}" for row in expected.rows]
    assert [row[2].strip() for row in rows] == [expected.difference_text(r) for r in expected.rows]
    plots = re.findall(r'<svg [^>]*class="interval".*?</svg>', page_text)
    assert len(plots) == 1 + len(rows)  # the scale in the head of the table
    look = styles(planted.labels, planted.baseline)
    for row, plot in zip(expected.rows, plots[1:], strict=True):
        label = ElementTree.fromstring(plot).get("aria-label")
        assert label == (expected.difference_text(row) if row.difference else "no difference")
        assert (look[row.label].colour in plot) == (row.difference is not None)
    swatches = re.findall(r'class="swatch" style="background:(#\w+)"', page_text)
    assert swatches == [look[row.label].colour for row in expected.rows]


LABEL = "<script>alert(1)</script>"
QUOTED = "'\"><svg onload=alert(2)>"
HOSTILE_META = {
    "notes": ["<img src=x onerror=alert(3)>"],
    "command": "</pre><script>alert(4)</script>",
    "detector": "<b>Net</b>",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A whole page, with analyses, of a comparison whose every text is markup."""
    root = write_comparison(
        tmp_path_factory.mktemp("hostile") / "comparison",
        noise={"base": 0.1, LABEL: 0.05, QUOTED: 0.05},
        seeds=(0, 1),
        images=16,
        meta=HOSTILE_META,
        unfinished={(QUOTED, 1): "failed"},
    )
    results = json.loads((root / "results.json").read_text())
    for run in results["runs"]:
        run["error"] = run["error"] and "<script>alert(5)</script>"
    (root / "results.json").write_text(json.dumps(results))
    truth = json.loads((root / "ground_truth.json").read_text())
    truth["categories"][0]["name"] = "<script>alert(6)</script>"
    (root / "ground_truth.json").write_text(json.dumps(truth))
    return html(document(Study.load([root])))


def test_text_from_the_data_is_escaped(hostile):
    assert "is missing because" not in hostile
    page = Page(hostile)
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    shown = "".join(data for _, data in page.texts)
    (note,) = HOSTILE_META["notes"]
    for markup in (LABEL, QUOTED, note, HOSTILE_META["command"], HOSTILE_META["detector"]):
        assert markup in shown
    assert "<script>alert(5)" in shown
    assert "<script>alert(6)" in shown


def test_the_page_is_self_contained(hostile):
    page = Page(hostile)
    assert page.open == []  # every tag is closed
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    style = "".join(re.findall(r"<style>.*?</style>", hostile, re.S))
    assert style.count("url(") == style.count('url("data:image/svg+xml,')
    assert "@import" not in style
    # The browser is told so as well: nothing but what is in the page may be loaded.
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    links = [a["href"].removeprefix("#") for t, a in page.tags if t == "a"]
    assert {"methods", "section-1"} <= set(links) <= set(ids)


def test_figures_and_tables_of_a_section(planted, monkeypatch):
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'
    table = Table(["x", "n"], [["a", "1.5\n+0.5 [0.1, 0.9]"], ["b", "-"]], "a <note>")
    section = Section("T", "one\n\ntwo", (Figure(svg, "a <caption>"),), (table,), ("a <code>",))
    monkeypatch.setattr(analyses, "BUILDERS", {"T": lambda context: section})
    page_text = html(document(planted))
    assert svg in page_text
    page = Page(page_text)
    assert page.of("figcaption") == ["a <caption>"]
    assert {"one", "two", "a <note>"} <= set(page.of("p")) and "a <code>" in page.of("pre")
    assert '<td class="number">1.5<small>+0.5 [0.1, 0.9]</small></td>' in page_text
    assert "<th>x</th>" in page_text


def test_without_any_difference_there_is_no_scale(make_comparison, no_analyses):
    unfinished = {("base", 0): "failed"}
    root = make_comparison(seeds=(0,), noise=TWO, images=4, unfinished=unfinished)
    page_text = html(document(Study.load([root])))
    assert "<svg" not in page_text
    assert "base seed 0 failed:\nexit status 1\nValueError: broken" in Page(page_text).of("pre")


def test_all_files_are_written(planted, no_analyses, tmp_path):
    out = tmp_path / "new" / "folder"
    assert write_report(planted, out) == out / "report.html"
    assert {path.name for path in out.iterdir()} == {"report.html", "report.md", "differences.csv"}
    assert (out / "report.md").read_text() == markdown(document(planted))
    first = (out / "report.html").read_text()
    write_report(planted, out)
    assert (out / "report.html").read_text() == first  # the same study gives the same bytes


def test_differences_csv_holds_the_statistics(make_comparison):
    study = Study.load([make_comparison(noise=TWO, seeds=(0, 1))])
    rows = list(csv.DictReader(io.StringIO(differences_csv(study))))
    names = [*METRICS, "AP/cat", "AP/dog", "AP/bird"]
    assert [(row["metric"], row["variant"]) for row in rows[:2]] == [("AP", "new"), ("AP", "base")]
    assert {row["metric"] for row in rows} == set(names)
    assert len(rows) == 2 * len(names)
    verdict = study.verdict("AP75")
    new = next(r for r in rows if (r["metric"], r["variant"]) == ("AP75", "new"))
    d = verdict.against_baseline[0]
    for column, value in {
        **{name: getattr(d, name) for name in ("low", "high", "se", "df", "p", "critical")},
        "difference": d.value,
        "detectable": d.detectable,
        "mean": verdict.summaries[0].mean,
        "sd": verdict.summaries[0].sd,
    }.items():
        assert float(new[column]) == value
    assert (new["seeds"], new["baseline"]) == ("2", "base")
    base = next(r for r in rows if (r["metric"], r["variant"]) == ("AP75", "base"))
    assert (base["difference"], base["p"]) == ("", "")
    assert base["letters"]
    for row in (r for r in rows if r["metric"] == "AP75"):
        assert row["may_be_best"] == ("yes" if row["variant"] in verdict.candidates else "no")
        cost = verdict.regrets.get(row["variant"])
        assert row["costs_at_most"] == ("" if cost is None else str(cost))
    same = statistics(study)["differences"]  # in results.json: numbers instead of texts
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in same] == rows


def test_equal_scores_have_no_interval(make_comparison, no_analyses):
    """With an AP of 0 nothing varies, so [0.0, 0.0] would claim what nobody knows."""
    root = make_comparison(noise=dict.fromkeys("AB", 9.0), seeds=(0, 1), images=4)
    study = Study.load([root])

    page_text, found = html(document(study)), statistics(study)

    assert "Check that" not in page_text  # that the losses or the seeds differ
    assert "[0.0" not in page_text and "Difference n/a: the scores are equal" in page_text
    row = next(row for row in found["differences"] if row["variant"] == "B")
    assert (row["difference"], row["low"], row["high"], row["se"]) == (0, None, None, None)
    assert not found["ranked"]


def test_the_page_shows_the_next_step_below_the_answer(make_comparison, no_analyses):
    command = "det-losses compare x --losses base new --seeds 0"
    root = make_comparison(noise=TWO, seeds=(0,), meta={"command": command})
    contents = document(Study.load([root]))
    page_text = html(contents)
    page = Page(page_text)
    assert contents.next_step.text in page.of("p")
    assert contents.next_step.commands[0] in page.of("pre")
    assert page_text.index("</h1>") < page_text.index(contents.next_step.text)
    assert page_text.index(contents.next_step.commands[0]) < page_text.index('class="subtitle"')
