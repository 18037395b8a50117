import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from synthetic_comparison import NOISE

from det_losses.report.analyses import thresholds


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
        ours = thresholds.threshold_curves(study, label)[seed]

        expected = pycocotools_curve(study, study.done(label)[seed])
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_table_has_means_and_differences_with_intervals(planted):
    section = thresholds.section(planted)
    (table,) = section.tables
    rows = {row[0]: row[1:] for row in table.rows}
    study = planted.study

    assert table.headers == ["IoU", *NOISE]
    assert list(rows) == [f".{percent}" for percent in range(50, 100, 5)]
    scores = study.scores("AP75")
    found = study.verdict("AP75").difference("EIoULoss", "SmoothL1Loss")
    mean = 100 * scores["EIoULoss"].full.mean()
    gain = mean - 100 * scores["SmoothL1Loss"].full.mean()
    low, high = 100 * found.low, 100 * found.high
    assert rows[".75"][2] == f"{mean:.1f}\n+{gain:.1f} [{low:.1f}, {high:.1f}]"
    assert all("[" in row[1] for row in rows.values())
    assert rows[".75"][0] == f"{100 * scores['SmoothL1Loss'].full.mean():.1f}"
    assert len(section.figures) == 2


def test_one_variant_has_a_curve_and_no_difference(make_context):
    section = thresholds.section(make_context(images=6, seeds=(4,), noise={"A": 0.1}))

    assert len(section.figures) == 1 and "bands" not in section.figures[0].caption
    assert all(len(row) == 2 and "\n" not in row[1] for row in section.tables[0].rows)
