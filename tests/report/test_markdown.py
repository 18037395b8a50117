import subprocess
import sys

import pytest

from det_losses.report import analyses, details, summary
from det_losses.report.document import document
from det_losses.report.markdown import escape, markdown, table
from det_losses.report.section import Figure, Section
from det_losses.report.study import Study


def test_a_table_is_aligned_and_its_numbers_are_on_the_right():
    text = table(["a", "number", "p"], [["x|y", "1.5", "<0.001"], ["<b>\nz", "-10 [-12, -8]", "-"]])
    assert text.splitlines() == [
        "| a      |        number |      p |",
        "| ------ | ------------: | -----: |",
        "| x\\|y   |           1.5 | <0.001 |",
        "| \\<b> z | -10 [-12, -8] |      - |",
    ]


def test_markdown_has_the_contents_of_the_document(planted, monkeypatch):
    monkeypatch.setattr(analyses, "BUILDERS", {"A plot": lambda context: Section("A plot", "text")})
    contents = document(planted)
    text = markdown(contents)
    assert text.startswith(f"# {contents.title}\n\n**{contents.headline}**\n")
    for section in contents.sections:
        assert f"## {section.title}\n" in text
        for block in [*section.text.split("\n\n"), *section.codes]:
            assert block.strip() in text
        for content in section.tables:
            for row in content.rows:
                assert any(
                    all(" ".join(cell.split()) in line for cell in row)
                    for line in text.splitlines()
                )
    assert "| 1 | EIoULoss " in text.replace("|   1 |", "| 1 |")
    assert f"```\n{planted.meta['command']}\n```" in text


def test_markdown_has_no_pictures_and_no_html(make_comparison, monkeypatch):
    section = Section("T", "text", (Figure("<svg></svg>", "a caption"),))
    monkeypatch.setattr(analyses, "BUILDERS", {"T": lambda context: section})
    noise = {"base": 0.1, "<script>x</script>": 0.05}
    meta = {"command": "a ``` fence"}
    root = make_comparison(seeds=(0,), noise=noise, meta=meta, images=8)
    text = markdown(document(Study.load([root])))
    assert "<svg" not in text
    assert "\\<script>" in text
    assert "<script>" not in text.replace("\\<script>", "")
    assert "````\na ``` fence\n````" in text


def test_messages_shown_on_a_terminal(planted):
    text = summary(planted)
    assert text.startswith("Use EIoULoss. ")
    assert "| # | variant" in text.replace("|   # |", "| # |")
    assert "AP75" not in text
    assert all(title in details(planted) for title in ("## Other metrics", "AP75", "## All pairs"))


@pytest.mark.slow
def test_importing_the_report_loads_no_plotting_and_no_templates():
    code = "import sys, det_losses.report as r; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# CommonMark: a backslash before punctuation makes it text. An even number of them are pairs, and
# what follows is markup.
@pytest.mark.parametrize("text", ["<b>", r"\<b>", r"\\<b>", "<!-- x", "</p>", "<?php"])
def test_no_text_becomes_html(text):
    before = escape(text).partition("<")[0]
    assert len(before) - len(before.rstrip("\\")) == len(text.partition("<")[0]) * 2 + 1


def test_names_do_not_control_the_terminal(make_comparison, monkeypatch):
    noise = {"base": 0.1, "\x1b]0;title\x07new\x9b2J": 0.05}
    study = Study.load([make_comparison(seeds=(0,), noise=noise, images=8)])
    text = summary(study) + details(study)
    assert "\\x1b]0;title\\x07new\\x9b2J" in text
    monkeypatch.setattr(analyses, "BUILDERS", {})
    text += markdown(document(study))  # report.md may be shown there too
    assert not set(text) & {"\x1b", "\x07", "\x9b"}
