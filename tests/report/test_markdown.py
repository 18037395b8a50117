import csv
import io

import pytest

from det_losses.evaluation.metrics import METRICS
from det_losses.report import analyses, details, summary, write_report
from det_losses.report.document import document
from det_losses.report.html import html
from det_losses.report.markdown import markdown, table
from det_losses.report.section import Figure, Section
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


@pytest.fixture
def study(make_comparison, monkeypatch):
    monkeypatch.setattr(analyses, "sections", lambda study: [Section("A plot", "of something")])
    return Study.load([make_comparison(noise=TWO, seeds=(0, 1))])


def test_a_table_is_aligned_and_its_numbers_stand_right():
    text = table(["a", "number", "p"], [["x|y", "1.5", "<0.001"], ["<b>\nz", "-10 [-12, -8]", "-"]])
    assert text.splitlines() == [
        "| a       |        number |      p |",
        "| ------- | ------------: | -----: |",
        "| x\\|y    |           1.5 | <0.001 |",
        "| \\<b> z  | -10 [-12, -8] |      - |",
    ] or text.splitlines() == [
        "| a      |        number |      p |",
        "| ------ | ------------: | -----: |",
        "| x\\|y   |           1.5 | <0.001 |",
        "| \\<b> z | -10 [-12, -8] |      - |",
    ]


def test_markdown_says_what_the_page_says(study):
    contents = document(study)
    page, text = html(contents), markdown(contents)
    assert text.startswith(f"# {contents.title}\n\n**{contents.headline}**\n")
    for part in contents.parts:
        assert f"## {part.section.title}\n" in text
        assert part.section.title in page
        for block in [*part.section.text.split("\n\n"), *part.codes]:
            assert block.strip() in text
        for content in part.section.tables:
            for row in content.rows:
                assert any(
                    all(" ".join(cell.split()) in line for cell in row)
                    for line in text.splitlines()
                )
    assert "| 1 | new " in text.replace("|   1 |", "| 1 |")
    assert "```\npython -m det_losses compare x --losses base new\n```" in text


def test_markdown_has_no_pictures_and_no_html(make_comparison, monkeypatch):
    figure = Figure("<svg></svg>", "a caption")
    monkeypatch.setattr(analyses, "sections", lambda study: [Section("T", "text", (figure,))])
    noise = {"base": 0.1, "<script>x</script>": 0.05}
    meta = {"command": "a ``` fence"}
    text = markdown(document(Study.load([make_comparison(seeds=(0,), noise=noise, meta=meta)])))
    assert "<svg" not in text
    assert "\\<script>" in text
    assert "<script>" not in text.replace("\\<script>", "").replace("--losses base <script>", "")
    assert "````\na ``` fence\n````" in text


def test_all_files_are_written(study, tmp_path):
    out = tmp_path / "new" / "folder"
    assert write_report(study, out) == out / "report.html"
    assert {path.name for path in out.iterdir()} == {"report.html", "report.md", "differences.csv"}
    assert (out / "report.md").read_text() == markdown(document(study))


def test_differences_csv_holds_the_statistics(study, tmp_path):
    write_report(study, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/differences.csv").read_text())))
    names = [*METRICS, "AP/cat", "AP/dog", "AP/bird"]
    assert [(row["metric"], row["variant"]) for row in rows[:2]] == [("AP", "new"), ("AP", "base")]
    assert {row["metric"] for row in rows} == set(names)
    assert len(rows) == 2 * len(names)
    verdict = study.verdict("AP75")
    new = next(r for r in rows if (r["metric"], r["variant"]) == ("AP75", "new"))
    d = verdict.against_baseline[0]
    for column, value in {
        **{name: getattr(d, name) for name in ("low", "high", "se", "df", "p", "p_holm")},
        "difference": d.value,
        "detectable": d.detectable,
        "mean": verdict.summaries[0].mean,
        "sd": verdict.summaries[0].sd,
    }.items():
        assert float(new[column]) == value
    assert (new["seeds"], new["baseline"]) == ("2", "base")
    base = next(r for r in rows if (r["metric"], r["variant"]) == ("AP75", "base"))
    assert (base["difference"], base["p_holm"]) == ("", "")
    assert base["letters"]


def test_what_a_terminal_shows(study):
    text = summary(study)
    assert text.startswith("new ")
    assert "| # | variant" in text.replace("|   # |", "| # |")
    assert "AP75" not in text
    assert all(title in details(study) for title in ("## Other metrics", "AP75", "## All pairs"))
