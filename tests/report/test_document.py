import logging
import shutil

from det_losses.report import analyses
from det_losses.report.document import document
from det_losses.report.section import Section, Table
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


def test_the_sections_and_their_order(planted, monkeypatch):
    monkeypatch.setattr(analyses, "BUILDERS", {"A plot": lambda context: Section("A plot", "text")})
    assert [section.title for section in document(planted).sections] == [
        *("Other metrics", "Seed variance and power", "All pairs", "A plot", "Loss weights"),
        *("Differences between the variants", "Losses that ran", "Runs", "Data", "Methods"),
        "How to reproduce",
    ]


def test_a_section_that_fails_is_named_on_the_page_and_its_traceback_logged(
    planted, monkeypatch, caplog
):
    def fail(context):
        raise KeyError("no such <thing>")

    monkeypatch.setattr(analyses, "BUILDERS", {"A plot": fail})
    with caplog.at_level(logging.ERROR):
        sections = {section.title: section for section in document(planted).sections}
    assert sections["A plot"].text.startswith("This section is missing because of an error.")
    assert "(logger det_losses.report.document) has the traceback" in sections["A plot"].text
    assert sections["A plot"].codes == ("KeyError: 'no such <thing>'",)
    (record,) = caplog.records
    assert "'A plot'" in record.getMessage() and record.name == "det_losses.report.document"
    assert record.exc_info[0] is KeyError
    assert "def fail" not in caplog.text and 'raise KeyError("no such <thing>")' in caplog.text
    assert list(sections)[-1] == "How to reproduce"  # the others are there


def test_a_broken_history_costs_no_more_than_its_section(make_comparison, caplog):
    root = make_comparison(images=5, seeds=(0,), noise=TWO)
    (root / "runs/base/seed_0/history.jsonl").write_text("[1]")  # JSON, but not an entry
    sections = document(Study.load([root])).sections
    missing = [section.title for section in sections if "is missing because" in section.text]
    assert missing == ["Training"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_long_sections_are_folded(planted, monkeypatch):
    def rows(count):
        return lambda context: Section("T", "", tables=(Table(["n"], [["1"]] * count),))

    monkeypatch.setattr(analyses, "BUILDERS", {"short": rows(20), "long": rows(21)})
    short, long = (s for s in document(planted).sections if s.title == "T")
    assert (short.folded, long.folded) == (False, True)


def test_detections_of_other_frameworks_have_no_sections_about_training(planted_root, tmp_path):
    files = {}
    for name in ("L1Loss", "EIoULoss"):
        found = planted_root / "runs" / name / "seed_0/detections.json"
        files[name] = [shutil.copy(found, tmp_path / f"{name}.json")]
    study = Study.from_detections(planted_root / "ground_truth.json", files, resamples=100)
    contents = document(study)
    assert contents.title == "Comparison of detections"
    titles = [section.title for section in contents.sections]
    assert not {"Training", "Loss weights", "Losses that ran", "How to reproduce"} & set(titles)
    assert "Methods" in titles


def test_a_forked_comparison_says_so_in_every_place(make_comparison):
    fork = {"at": 0.5, "epoch": 2, "epochs": 4, "baseline": "base"}
    noise = {"base": 0.1, "new": 0.05}
    study = Study.load([make_comparison(noise=noise, meta={"fork": fork})])
    found = document(study)
    assert found.title.endswith(", forked after epoch 2 of 4")
    assert found.headline.startswith("With the loss switched after epoch 2 of 4: ")
    assert found.cautions[0].startswith("Forked after epoch 2 of 4: up to there, only base was")
    assert "smaller than those of whole trainings" in found.cautions[0]
    sections = {section.title: section for section in found.sections}
    assert "base was trained from scratch and kept a checkpoint" in sections["Methods"].text
    assert "where the curves of the others begin" in sections["Training"].text
    # No table of the time to reach an AP, which the forked runs owe in part to the baseline.
    assert [table.headers[1] for table in sections["Training"].tables] == ["s / iteration"]
