import json

import numpy as np
from synthetic_comparison import CATEGORIES

from det_losses.report.analyses import classes
from det_losses.report.analyses.context import Context
from det_losses.report.study import Study


def test_most_changed_are_gains_and_losses_from_the_top():
    gains = np.linspace(1, -1, 9)  # the fifth is 0
    gains[0] = np.nan

    assert classes.most_changed(gains, each_way=2) == [1, 2, 7, 8]
    assert classes.most_changed(gains, each_way=4) == [1, 2, 3, 4, 5, 6, 7, 8]
    # Where nearly all lose, a loss is no gain for being a small one.
    assert classes.most_changed([0.1, -0.1, -0.2, -0.3, -0.4], each_way=2) == [0, 3, 4]


def test_class_table_by_an_independent_computation(planted):
    study = planted.study
    (table,) = classes.table_section(planted).tables
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
    (table,) = classes.section(planted).tables
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
    context = Context(Study.of_detections(tmp_path / "truth.json", files, resamples=20))

    section = classes.section(context)
    rows = classes.table_section(context).tables[0].rows

    assert rows[1] == ["dog", "0", "n/a", "n/a"]
    assert "cat (6)" in section.figures[1].svg and "dog" not in section.figures[1].svg
