import json
import re
from html.parser import HTMLParser

import pytest
from synthetic_comparison import write_comparison

from det_losses.report import analyses, document, words
from det_losses.report.html import html
from det_losses.report.interval_plot import Scale, axis, interval_plot
from det_losses.report.section import Figure, Section, Table
from det_losses.report.study import Study
from det_losses.statistics import Difference, answer

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
    monkeypatch.setattr(analyses, "sections", lambda study: [])


def render(root, **options):
    study = Study.load([root], **options)
    return study, html(document.document(study))


def rows(text):
    return {row[0]: row[1:] for row in Page(text).rows}


def test_the_answer_is_the_headline_and_the_parts_follow_in_order(make_comparison, monkeypatch):
    monkeypatch.setattr(analyses, "sections", lambda study: [Section("A plot", "of something")])
    study, text = render(make_comparison())
    page = Page(text)
    assert page.of("h1") == [answer(study.verdict())]
    assert [title for title in page.of("h2")] == [
        *("Other metrics", "Spread and what can be found", "All pairs", "A plot", "Loss weights"),
        *("What differs", "Proof that the loss ran", "Runs", "Data", "How it was done"),
        "How to repeat it",
    ]
    assert "<details" in text


def test_the_table_of_variants(make_comparison, no_analyses):
    root = make_comparison(unfinished={("L1Loss", 0): "failed", ("L1Loss", 2): "pending"})
    study, text = render(root)
    verdict = study.verdict()
    table = {row[0].strip(): row[1:] for row in Page(text).rows[1:5]}
    assert list(table) == [f"{n}{s.label}" for n, s in enumerate(verdict.summaries, 1)]
    aps = [run["metrics"]["AP"] for run in study.of("EIoULoss")]
    mean, difference, p, letters, runs, weight = table["1EIoULoss"]
    # The sample standard deviation of three numbers: squares over 3 - 1.
    centre = sum(aps) / 3
    sd = (sum((ap - centre) ** 2 for ap in aps) / 2) ** 0.5
    assert mean == f"{100 * centre:.1f} ± {100 * sd:.1f}"
    d = verdict.difference("EIoULoss", "SmoothL1Loss")
    assert difference == f"+{100 * d.value:.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
    assert float(p) == pytest.approx(verdict.against_baseline[0].p_holm, abs=5e-4)
    assert (letters, runs, weight) == ("a", "3/3", "1")
    assert table["4L1Loss"][4] == "1/3, 1 failed, 1 pending"
    assert table[f"3{verdict.baseline}"][1] == "baseline"


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
    return render(root)[1]


def test_text_from_the_data_is_escaped(hostile):
    assert "could not be made" not in hostile
    page = Page(hostile)
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    shown = "".join(data for _, data in page.texts)
    (note,) = HOSTILE_META["notes"]
    for text in (LABEL, QUOTED, note, HOSTILE_META["command"], HOSTILE_META["detector"]):
        assert text in shown
    assert "<script>alert(5)" in shown
    assert "<script>alert(6)" in shown


def test_the_page_stands_alone(hostile):
    page = Page(hostile)
    assert page.open == []  # every tag is closed
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    style = "".join(re.findall(r"<style>.*?</style>", hostile, re.S))
    assert "url(" not in style
    assert "@import" not in style
    # The browser is told so as well: nothing but what is in the page may be loaded.
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)


def test_a_section_that_fails_does_not_lose_the_report(make_comparison, monkeypatch):
    def fail(study):
        raise KeyError("no such <thing>")

    monkeypatch.setattr(analyses, "sections", fail)
    _, text = render(make_comparison(seeds=(0,), noise=TWO))
    page = Page(text)
    assert "Analyses" in page.of("h2")
    assert "KeyError: 'no such <thing>'" in page.of("pre")
    assert page.of("h2")[-1] == "How to repeat it"


def test_figures_and_tables_of_a_section(make_comparison, monkeypatch):
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'
    table = Table(["x", "n"], [["a", "1.5\n+0.5 [0.1, 0.9]"], ["b", "-"]], "a <note>")
    section = Section("T", "one\n\ntwo", (Figure(svg, "a <caption>"),), (table,))
    monkeypatch.setattr(analyses, "sections", lambda study: [section])
    _, text = render(make_comparison(seeds=(0,), noise=TWO))
    assert svg in text
    page = Page(text)
    assert page.of("figcaption") == ["a <caption>"]
    assert {"one", "two", "a <note>"} <= set(page.of("p"))
    assert '<td class="number">1.5<small>+0.5 [0.1, 0.9]</small></td>' in text
    assert "<th>x</th>" in text


def test_below_ap_10_no_ranking_is_to_be_read(make_comparison, no_analyses, monkeypatch):
    root = make_comparison(seeds=(0,))
    study, _ = render(root)
    own, best = (
        f(study.full(study.of(x)[0])["AP"] for x in which)
        for f, which in ((max, [study.baseline]), (max, study.labels))
    )
    monkeypatch.setattr(words, "TOO_LOW", own)
    assert words.headline(study) == answer(study.verdict())
    assert words.weak_baseline(study) is None
    monkeypatch.setattr(words, "TOO_LOW", best)  # the baseline is below, the best is not
    assert words.headline(study) == answer(study.verdict())
    assert "Name another one with --baseline" in words.weak_baseline(study)
    monkeypatch.setattr(words, "TOO_LOW", best + 1e-9)
    assert words.weak_baseline(study) is None
    _, text = render(root)
    (headline,) = Page(text).of("h1")
    assert headline.startswith("No ranking should be read from this comparison: the best variant")
    table = Page(text).rows[:5]
    assert [row[0] for row in table] == ["variant", *study.labels]  # as planned, without ranks
    assert not {"p (Holm)", "groups"} & set(table[0])
    assert "All pairs" not in Page(text).of("h2")
    # A primary metric that is low by its nature forbids nothing: the rule is about AP.
    monkeypatch.undo()
    study = Study.load([root], metric="AP90")
    assert study.verdict().summaries[-1].mean < 0.1
    assert words.too_low(study) is None


def test_without_a_finished_baseline(make_comparison, no_analyses):
    unfinished = {("base", 0): "failed"}
    _, text = render(make_comparison(seeds=(0,), noise=TWO, unfinished=unfinished))
    page = Page(text)
    assert page.of("h1") == ["There is no answer yet: the baseline base has no finished run."]
    assert "1 of 2 runs are done (1 failed): the numbers are of these." in page.of("li")
    assert "base seed 0 failed:\nexit status 1\nValueError: broken" in page.of("pre")
    assert "Other metrics" not in page.of("h2")


def test_nothing_found_and_nothing_to_find(make_comparison, no_analyses):
    root = make_comparison(noise=TWO, seeds=(0,), images=8)
    (root / "runs/new/seed_0/detections.json").write_text("[]")
    study, text = render(root)
    assert study.full(study.of("new")[0])["AP"] == 0.0
    assert Page(text).of("h1")[0].startswith("new is behind base by ")
    truth = json.loads((root / "ground_truth.json").read_text())
    (root / "ground_truth.json").write_text(json.dumps({**truth, "annotations": []}))
    _, text = render(root)
    assert Page(text).of("h1") == ["AP cannot be compared on this data."]
    assert [row[:3] for row in Page(text).rows[1:3]] == [
        ["base", "n/a", "baseline"],
        ["new", "n/a", "n/a"],
    ]
    truth["images"], truth["annotations"] = truth["images"][:1], []
    (root / "ground_truth.json").write_text(json.dumps(truth))
    (root / "runs/base/seed_0/detections.json").write_text("[]")
    _, text = render(root)
    assert Page(text).of("h1") == ["There is no answer: one image says nothing about others."]


def test_cautions(make_comparison, no_analyses):
    root = make_comparison(noise=TWO, meta={"notes": ["The budget ended it."]})
    (root / "runs/new/seed_1/detections.json").unlink()
    (root / "runs/new/seed_2/history.jsonl").unlink()
    results = json.loads((root / "results.json").read_text())
    results["runs"][0]["metrics"]["AP"] = 0.5  # base seed 0: not what its detections give
    (root / "results.json").write_text(json.dumps(results))
    study, text = render(root)
    found = Page(text).of("li")
    assert "Not in the statistics, for their detections are missing: new seed 1." in found
    assert (
        "Without training curves, for history.jsonl is missing or cannot be read: new seed 2."
        in found
    )
    actual = 100 * study.full(study.of("base")[0])["AP"]
    assert (
        "The statistics are of the detections, which give another AP than was recorded: "
        f"base seed 0 ({actual:.2f}, recorded 50.00)." in found
    )
    assert found[-1] == "The budget ended it."


def test_a_variant_that_cannot_be_compared_is_named(make_comparison, no_analyses):
    unfinished = {("a", 0): "pending", ("b", 1): "pending"}
    noise = {"base": 0.1, "a": 0.05, "b": 0.05}
    study, text = render(make_comparison(noise=noise, seeds=(0, 1), unfinished=unfinished))
    assert any(
        sentence.endswith("in common with every other variant: b. Run the same seeds for all.")
        for sentence in Page(text).of("li")
    )
    # Its recorded AP is shown all the same, last and without a rank.
    recorded = 100 * study.of("b")[0]["metrics"]["AP"]
    assert Page(text).rows[3][:3] == ["b", f"{recorded:.1f}", "-"]


def test_one_seed_says_what_it_cannot_say(make_comparison, no_analyses):
    _, text = render(make_comparison(seeds=(0,), noise=TWO))
    assert any("With one seed" in sentence for sentence in Page(text).of("li"))
    assert "the variance over seeds is unknown" in text


def test_a_grid_of_two_losses(make_comparison, no_analyses):
    noise = {"A1": 0.1, "A2": 0.08, "B1": 0.05}
    factors = {label: {"loss_bbox": label[0], "loss_cls": label[1]} for label in noise}
    study, text = render(make_comparison(seeds=(0,), noise=noise, factors=factors))
    grid = next(row for row in Page(text).rows if row[0].startswith("loss_bbox"))
    assert grid == ["loss_bbox \\ loss_cls", "1", "2"]
    means = {s.label: f"{100 * s.mean:.1f}" for s in study.verdict().summaries}
    found = rows(text)
    assert found["A"][0] == means["A1"]
    assert re.match(rf"{means['A2']}[-+]\d+\.\d \[", found["A"][1])
    assert found["B"][0].startswith(means["B1"])
    assert found["B"][1] == ""  # was not trained
    assert "Grid of two losses" not in render(make_comparison("plain", seeds=(0,)))[1]


def test_what_differs_between_variants(make_comparison, no_analyses):
    root = make_comparison(seeds=(0,), noise=TWO)
    results = json.loads((root / "results.json").read_text())
    variants = results["meta"]["variants"]
    variants["base"]["changes"] = {"model.loss_bbox": {"type": "L1Loss", "loss_weight": 2.5}}
    variants["new"]["changes"] = {
        "model.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.5, "eps": 1e-6},
        "train_cfg.max_epochs": 24,
    }
    variants["new"]["weight"] = {"how": "matched", "multiple": 1.0, "gradient_norm": 0.12345}
    results["runs"][1]["initial_weights"] = "f" * 64
    (root / "results.json").write_text(json.dumps(results))
    _, text = render(root)
    header = next(row for row in Page(text).rows if "model.loss_bbox.type" in row)
    # The loss weight is the same for both, so it is not among the differences.
    assert header == [
        "variant",
        "model.loss_bbox.type",
        "model.loss_bbox.eps",
        "train_cfg.max_epochs",
    ]
    found = [row[1:] for row in Page(text).rows if row[0] in TWO and len(row) == 4]
    assert found == [["L1Loss", "-", "-"], ["GIoULoss", "1e-06", "24"]]
    assert ["0", "f" * 12, "new"] in Page(text).rows
    assert "softmax loss has one more channel" in text
    weights = next(row for row in Page(text).rows if "gradient matched to the baseline's" in row)
    # What is known of no variant has no column: multiples and norms at the start.
    assert weights[:4] == ["new", "2.5", "gradient matched to the baseline's", "0.123"]
    assert len(weights) == 6


def difference(value, low, high):
    return Difference("a", "b", value, 0.01, 5.0, low, high, 0.1, 0.1, 0.01, 0.01, 3, 0.03)


def test_intervals_are_drawn_to_scale():
    scale = Scale.of([difference(0.02, -0.01, 0.05), difference(0.0, -0.02, 0.02)])
    # From -2 to 5 points over 7% to 93% of the width: zero at 7 + 86 * 2 / 7.
    assert [scale.x(value) for value in (-2, 0, 5)] == ["7.00%", "31.57%", "93.00%"]
    assert scale.ticks == (-2.0, 0.0, 2.0, 4.0)
    drawn = interval_plot(scale, difference(0.02, -0.01, 0.05), "#123456", True)
    assert 'cx="56.14%"' in drawn  # 7 + 86 * (2 + 2) / 7
    assert 'fill="#123456"' in drawn
    assert re.findall(r'<line x1="([^"]+)" x2="([^"]+)"', drawn)[:2] == [
        ("31.57%", "31.57%"),
        ("19.29%", "93.00%"),
    ]
    assert 'aria-label="+2.0 [-1.0, 5.0]"' in drawn
    open_dot = interval_plot(scale, difference(0.02, -0.01, 0.05), "#123456", False)
    assert 'fill="var(--paper)"' in open_dot
    assert re.findall(r">([-+\d.]+)<", axis(scale)) == ["-2", "0", "+2", "+4"]


@pytest.mark.parametrize("end", [1e-5, 3e-4, 0.0139, 0.087, 0.9])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_every_scale_has_its_zero_and_few_round_ticks(end, part):
    scale = Scale.of([difference(0.0, -part * end, end)])
    assert 0.0 in scale.ticks
    assert 3 <= len(scale.ticks) <= 9
    assert scale.low - 1e-9 <= scale.ticks[0] < scale.ticks[-1] <= scale.high + 1e-9


def test_a_scale_without_differences():
    nothing = difference(float("nan"), float("nan"), float("nan"))
    scale = Scale.of([nothing])
    assert (scale.low, scale.high) == (-1.0, 1.0)
    assert "circle" not in interval_plot(scale, nothing, "#000000", False)
