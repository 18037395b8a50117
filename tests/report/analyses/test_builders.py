import json
import shutil

import numpy as np
import pytest
from svg_checks import check_figures, texts_of

from det_losses.report import analyses
from det_losses.report.analyses.ap_breakdown import (
    class_section,
    class_table_section,
    threshold_section,
)
from det_losses.report.analyses.detection_errors import confusion_section, error_section
from det_losses.report.analyses.example_images import image_section
from det_losses.report.analyses.training import training_section
from det_losses.report.study import Study

TITLES = list(analyses.BUILDERS)


def built(context):
    return [section for build in analyses.BUILDERS.values() if (section := build(context))]


def figures_of(sections):
    return [figure.svg for section in sections for figure in section.figures]


def test_all_sections_in_one_page(planted):
    sections = built(planted)

    assert [section.title for section in sections] == TITLES
    elements = check_figures(figures_of(sections))
    assert len(elements) > 1000
    for section in sections:
        assert section.text
        for table in section.tables:
            assert all(len(row) == len(table.headers) for row in table.rows)
    assert sum(map(len, figures_of(sections))) < 600_000


def test_labels_from_the_data_are_escaped(make_context):
    labels = ("<script>alert(1)</script>", "_a & $b$")
    context = make_context(images=5, seeds=(0,), noise=dict.fromkeys(labels, 0.1))

    figures = figures_of([threshold_section(context), error_section(context)])

    check_figures(figures)
    assert "<script" not in "".join(figures)
    assert set(labels) <= set(texts_of(figures[0])) and set(labels) <= set(texts_of(figures[-1]))


def test_one_variant_with_one_seed(make_context):
    context = make_context(images=5, seeds=(7,), noise={"A": 0.1})

    sections = built(context)

    # There are no two to show side by side.
    assert [section.title for section in sections] == [*TITLES[:-1], "Sample predictions"]
    captions = [figure.caption for section in sections for figure in section.figures]
    notes = [table.note for section in sections for table in section.tables]
    assert not [text for text in captions + notes if "over seeds" in text or "seeds pooled" in text]
    assert "nan" not in "".join(figures_of(sections)).lower()


def test_nothing_found(make_context):
    """Without a correct detection there are no curves, but error types and pictures."""
    context = make_context(images=5, seeds=(0, 1), noise={"A": 9.0, "B": 9.0})

    titles = [section.title for section in built(context)]

    assert titles == ["Training", "Error types", "Confusion of classes", "Sample predictions"]


def test_a_baseline_without_a_finished_run(make_context):
    context = make_context(
        images=5, seeds=(0,), noise={"A": 0.1, "B": 0.1, "C": 0.2}, unfinished={("A", 0): "failed"}
    )

    curves, sizes, table = (
        build(context) for build in (threshold_section, class_section, class_table_section)
    )

    assert curves.tables[0].headers == ["IoU", "B", "C"] and len(curves.figures) == 1
    assert sizes.figures == () and table.tables[0].headers == ["class", "boxes", "B", "C"]
    assert not any("difference" in part.tables[0].note for part in (curves, sizes, table))
    assert image_section(context).title == "Sample predictions"  # of B, without a difference
    assert training_section(context).tables[0].headers[0] == "variant"


def test_nothing_finished_yet(make_context):
    context = make_context(images=4, seeds=(0,), noise={"A": 0.1}, unfinished={("A", 0): "pending"})

    assert built(context) == []


def test_an_incomplete_line_of_a_history_is_skipped(make_context):
    context = make_context(images=5, seeds=(0,), noise={"A": 0.1})
    (run,) = context.study.runs
    whole = context.study.history(run)
    with open(f"{run['directory']}/history.jsonl", "a") as file:
        file.write('{"kind": "train", ')
    assert whole and context.study.history(run) == whole


def test_the_note_on_the_last_of_several_evaluations(make_context):
    context = make_context(images=5, seeds=(0,), noise={"A": 0.1}, evaluations=2)

    assert "Only the last evaluation of each run" in error_section(context).text


def test_detections_from_elsewhere_have_no_training(make_comparison, tmp_path):
    root = make_comparison(images=6, seeds=(0,), noise={"A": 0.1, "B": 0.2})
    for name in "AB":
        shutil.copy(root / f"runs/{name}/seed_0/detections.json", tmp_path / f"{name}.json")
    files = {name: [tmp_path / f"{name}.json"] for name in "AB"}
    context = analyses.Context(Study.from_detections(root / "ground_truth.json", files))

    assert training_section(context) is None
    assert "The image folder is unknown" in image_section(context).text


@pytest.mark.parametrize("build", [threshold_section, error_section])
def test_ten_variants_fit(make_context, build):
    labels = {f"FocalL1Loss:alpha=0.{n},gamma=1.5,beta=2.0": 0.1 for n in range(10)}
    context = make_context(images=4, seeds=(0,), noise=labels)

    section = build(context)

    check_figures(figure.svg for figure in section.figures)
    (names, *_) = [figure.svg for figure in section.figures]
    width, height = (float(n) for n in names.partition('viewBox="0 0 ')[2].split('"')[0].split())
    assert width == 460 and height < 900
    shown = [text for text in texts_of(names) if text.startswith("FocalL1Loss")]
    assert len(set(shown)) == len(shown) >= 9  # the baseline is not among the differences


def test_eighty_classes_and_few_boxes(make_truth, rows, tmp_path):
    rng = np.random.default_rng(0)
    names = [(key, f"class {key}") for key in range(1, 81)]
    boxes = {
        image: [(int(key), [10, 10, 60, 40], 0) for key in rng.integers(1, 60, 4)]
        for image in range(1, 31)
    }
    _, coco = make_truth(boxes, names)
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    files = {}
    for label, spread in (("A", 6), ("B", 12)):
        found = [
            dict(
                image_id=image,
                category_id=key,
                bbox=[x + rng.normal(0, spread), y, w, h],
                score=0.9,
            )
            for image, own in boxes.items()
            for key, (x, y, w, h), _ in own
        ]
        files[label] = [tmp_path / f"{label}.json"]
        files[label][0].write_text(json.dumps(found))
    study = Study.from_detections(tmp_path / "truth.json", files, resamples=10)
    context = analyses.Context(study)

    sizes, shown = class_section(context).figures

    assert "the 10 classes with the largest gains and losses" in shown.caption
    assert len([text for text in texts_of(shown.svg) if text.startswith("class ")]) <= 20
    assert len(class_table_section(context).tables[0].rows) == 80
    check_figures([sizes.svg, shown.svg])
    matrices = confusion_section(context)
    labels = texts_of(matrices.figures[0].svg)
    assert len([text for text in labels if text.startswith("class ")]) == 20  # rows and columns
    assert len([text for text in labels if text.startswith("others")]) == 2
    assert "70 classes with the fewest objects" in matrices.figures[0].caption
    check_figures([figure.svg for figure in matrices.figures])


def test_runs_that_are_evaluated_on_folds(make_context):
    """Each run has scores, errors and IoUs of the images of its fold only; sections are complete.

    A class that is missing in some folds has the mean over the others.
    """
    context = make_context(folds=3, seeds=(0, 1, 2, 3), noise={"A": 0.1, "B": 0.05}, images=24)
    for runs in context.detection_stats.values():
        seen = np.array([~np.isnan(run.image_scores) for run in runs])
        assert (seen[0] == seen[3]).all()  # the same fold
        assert (seen[:3].sum(axis=0) <= 1).all() and seen[:3].sum() == 23  # one has no object
        assert sum(run.objects for run in runs[:3]) == context.boxes.sum()
    sections = built(context)
    assert [section.title for section in sections] == TITLES
    check_figures(figures_of(sections))
    (pictures,) = [s for s in sections if s.title == "Images that differ most"]
    assert "(seed 1)" in pictures.figures[0].svg  # the only one on fold 1
