import numpy as np

from det_losses.evaluation.matching import match_pairs
from det_losses.report.analyses.detection_stats import (
    detection_stats,
    image_scores,
    tide_errors,
    top_detections,
)


def test_iou_of_three_matched_boxes_by_hand(make_truth, rows):
    truth, coco = make_truth({1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)], 2: []})
    found = rows(
        (1, [0, 0, 10, 15], 0.9, 3),  # 150 of 200 pixels^2: IoU 0.75
        (1, [0, 0, 10, 20], 0.8, 3),  # a perfect fit, but the cat is taken
        (1, [54, 0, 20, 10], 0.7, 3),  # 16 of 24 columns: IoU 2/3
        (1, [50, 0, 20, 10], 0.6, 7),  # of another class
        (2, [50, 0, 20, 10], 0.5, 3),  # on another image
    )

    stats = detection_stats(truth, hotcoco_index(coco), found, seed=0)

    np.testing.assert_allclose(sorted(stats.ious), [2 / 3, 0.75], rtol=1e-12)


def test_detections_of_crowds_have_no_iou(make_truth, rows):
    truth, coco = make_truth({1: [(3, [0, 0, 100, 50], 1), (3, [120, 0, 20, 40], 0)]})
    found = rows((1, [10, 10, 30, 20], 0.9, 3), (1, [120, 0, 20, 30], 0.8, 3))

    assert detection_stats(truth, hotcoco_index(coco), found, seed=0).ious.tolist() == [0.75]


def test_score_of_an_image_by_hand(make_truth, rows):
    truth, _ = make_truth(
        {
            1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)],
            2: [(3, [0, 0, 40, 30], 1), (7, [60, 0, 10, 30], 0)],
            5: [],
        }
    )
    found = rows(
        (1, [0, 0, 10, 20], 0.9, 3),  # right at all ten thresholds
        (1, [100, 0, 10, 20], 0.8, 3),  # wrong
        (1, [50, 0, 20, 10], 0.7, 3),  # right, but the third where there are two boxes
        (2, [5, 5, 20, 10], 0.9, 3),  # in a crowd: skipped
        (2, [60, 0, 10, 20], 0.8, 7),  # IoU 2/3: right at .50, .55, .60 and .65
        (5, [60, 0, 10, 20], 0.8, 7),  # on an image without a box
    )

    kept, hits = top_detections(truth, found, match_pairs(truth, found))
    scores = image_scores(truth, found[kept, 0], hits[kept])

    assert sorted(kept.tolist()) == [0, 1, 4]
    np.testing.assert_allclose(scores, [0.5, 0.4, np.nan], rtol=1e-12)  # (1 + 0) / 2, and 4 of 10


def test_errors_are_those_of_hotcoco(planted):
    from hotcoco import COCO as Index
    from hotcoco import COCOeval as Evaluation

    study = planted.study
    run = study.done("L1Loss")[1]
    found = [
        dict(image_id=int(i), bbox=[x, y, w, h], score=score, category_id=int(k))
        for i, x, y, w, h, score, k in study.detections(run).tolist()
    ]
    index = Index(study.coco)
    evaluation = Evaluation(index, index.load_res(found), "bbox")
    evaluation.evaluate()
    expected = evaluation.tide_errors(pos_thr=0.5, bg_thr=0.1)["delta_ap"]

    ours = planted.detection_stats["L1Loss"][1].errors

    assert ours == {key: expected[key] for key in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")}
    assert ours["Loc"] > 0.1  # L1Loss is planted with a large error of localisation


def test_no_detections_at_all(make_truth):
    truth, coco = make_truth({1: [(3, [0, 0, 10, 20], 0)], 2: []})

    stats = detection_stats(truth, hotcoco_index(coco), np.empty((0, 7)), seed=3)

    assert stats.seed == 3 and len(stats.ious) == 0
    np.testing.assert_array_equal(stats.image_scores, [0, np.nan])
    assert stats.errors["Loc"] == 0


def test_missed_objects_cost_what_is_missing(make_truth, rows):
    """One of two cats is found: at AP50 the other half is missing, and nothing else is wrong."""
    _, coco = make_truth({1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)]})

    errors = tide_errors(hotcoco_index(coco), rows((1, [0, 0, 10, 20], 0.9, 3)))

    assert errors["Miss"] > 0.4
    assert sum(errors.values()) == errors["Miss"]


def hotcoco_index(coco):
    from hotcoco import COCO as Index

    return Index(coco)
