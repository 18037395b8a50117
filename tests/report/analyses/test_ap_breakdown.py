import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from synthetic_comparison import CATEGORIES, NOISE

from det_losses.report.analyses import ap_breakdown
from det_losses.report.analyses.context import Context
from det_losses.report.study import Study


def pycocotools_curve(study, run):
    """AP at each IoU threshold, by pycocotools: mean over recalls and classes with boxes."""
    found = json.loads(Path(run["directory"], "detections.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = study.coco
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return [precision[t][precision[t] > -1].mean() for t in range(10)]


def test_curve_is_that_of_pycocotools(planted):
    study = planted.study
    for label, seed in (("SmoothL1Loss", 0), ("EIoULoss", 2)):
        ours = ap_breakdown.threshold_curves(study, label)[seed]

        expected = pycocotools_curve(study, study.done(label)[seed])
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_table_has_means_and_differences_with_intervals(planted):
    section = ap_breakdown.threshold_section(planted)
    (table,) = section.tables
    rows = {row[0]: row[1:] for row in table.rows}
    study = planted.study

    assert table.headers == ["IoU", *NOISE]
    assert list(rows) == [f".{percent}" for percent in range(50, 100, 5)]
    scores = study.scores("AP75")
    against = study.verdict("AP75").against_baseline
    found = next(d for d in against if d.first == "EIoULoss")
    mean = 100 * scores["EIoULoss"].full.mean()
    gain = mean - 100 * scores["SmoothL1Loss"].full.mean()
    low, high = 100 * found.low, 100 * found.high
    assert rows[".75"][2] == f"{mean:.1f}\n+{gain:.1f} [{low:.1f}, {high:.1f}]"
    assert all("[" in row[1] for row in rows.values())
    assert rows[".75"][0] == f"{100 * scores['SmoothL1Loss'].full.mean():.1f}"
    assert len(section.figures) == 2


def test_one_variant_has_a_curve_and_no_difference(make_context):
    section = ap_breakdown.threshold_section(make_context(images=6, seeds=(4,), noise={"A": 0.1}))

    assert len(section.figures) == 1 and "bands" not in section.figures[0].caption
    assert all(len(row) == 2 and "\n" not in row[1] for row in section.tables[0].rows)


def test_most_changed_are_gains_and_losses_from_the_top():
    gains = np.linspace(1, -1, 9)  # the fifth is 0
    gains[0] = np.nan

    assert ap_breakdown.most_changed(gains, per_sign=2) == [1, 2, 7, 8]
    assert ap_breakdown.most_changed(gains, per_sign=4) == [1, 2, 3, 4, 5, 6, 7, 8]
    # If nearly all lose, a small loss is still not a gain.
    assert ap_breakdown.most_changed([0.1, -0.1, -0.2, -0.3, -0.4], per_sign=2) == [0, 3, 4]


def test_class_table_by_an_independent_computation(planted):
    study = planted.study
    (table,) = ap_breakdown.class_table_section(planted).tables
    boxes = [a["category_id"] for a in study.coco["annotations"] if not a["iscrowd"]]
    scores = study.scores("AP/dog")
    gain = scores["L1Loss"].full.mean() - scores["SmoothL1Loss"].full.mean()

    assert [row[0] for row in table.rows] == [CATEGORIES[key] for key in sorted(CATEGORIES)]
    assert [int(row[1]) for row in table.rows] == [boxes.count(key) for key in sorted(CATEGORIES)]
    dog = dict(zip(table.headers, table.rows[1], strict=True))
    assert dog["SmoothL1Loss"] == f"{100 * scores['SmoothL1Loss'].full.mean():.1f}"
    assert dog["L1Loss"].startswith(f"{100 * scores['L1Loss'].full.mean():.1f}\n")
    assert f"\n{100 * gain:.1f} [" in dog["L1Loss"] and gain < 0


def test_sizes_count_their_boxes(planted):
    (table,) = ap_breakdown.class_section(planted).tables
    areas = [a["area"] for a in planted.study.coco["annotations"] if not a["iscrowd"]]
    small, large = sum(a < 32**2 for a in areas), sum(a > 96**2 for a in areas)

    assert [row[0] for row in table.rows] == ["small", "medium", "large"]
    counts = [int(row[1]) for row in table.rows]
    assert counts == [small, len(areas) - small - large, large]


def test_a_class_without_boxes_is_in_the_table_and_not_in_the_figure(make_truth, tmp_path):
    boxes = {i: [(3, [10, 10, 40, 30], 0), (7, [90, 20, 50, 50], 1)] for i in range(1, 7)}
    _, coco = make_truth(boxes)
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    files = {}
    for label, off in (("A", 4), ("B", 8)):
        found = [
            dict(image_id=i, category_id=3, bbox=[10 + off * (i % 2), 10, 40, 30], score=0.9)
            for i in boxes
        ]
        files[label] = [tmp_path / f"{label}.json"]
        files[label][0].write_text(json.dumps(found))
    context = Context(Study.from_detections(tmp_path / "truth.json", files, resamples=20))

    section = ap_breakdown.class_section(context)
    rows = ap_breakdown.class_table_section(context).tables[0].rows

    assert rows[1] == ["dog", "0", "n/a", "n/a"]
    assert "cat (6)" in section.figures[1].svg and "dog" not in section.figures[1].svg


@pytest.mark.filterwarnings("error")
def test_many_classes_without_a_difference_have_no_figure(planted, monkeypatch):
    monkeypatch.setattr(ap_breakdown, "most_changed", lambda gains: [])
    assert len(ap_breakdown.class_section(planted).figures) == 1  # the one by size
