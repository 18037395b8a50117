import numpy as np

from det_losses.evaluation.matching import match_pairs
from det_losses.report.analyses.detection_stats import (
    detection_stats,
    image_scores,
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
    truth, coco = make_truth({1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)]})
    found = rows((1, [0, 0, 10, 20], 0.9, 3))

    errors = detection_stats(truth, hotcoco_index(coco), found, seed=0).errors

    assert errors["Miss"] > 0.4
    assert sum(errors.values()) == errors["Miss"]


def test_the_area_below_the_curves_is_the_ap(planted):
    """COCO's AP is the mean of the precision at 101 recalls, over the classes."""
    run = planted.study.done("GIoULoss")[0]
    (stats, *_), full = planted.detection_stats["GIoULoss"], planted.study.full(run)

    areas = stats.precision.mean(axis=(1, 2))

    np.testing.assert_allclose(areas, [full["AP50"], full["AP75"]], rtol=1e-12)


def test_confusion_by_hand(make_truth, rows):
    """A cat is found, a dog is found as a cat, and a cat is found where nothing is.

    With one, two and three detections of these scores, 0, 0 and 1 are correct: the F1 is highest
    with all three. What lies in a crowd counts nowhere; the detection below is left out.
    """
    boxes = [(3, [0, 0, 10, 20], 0), (7, [50, 0, 20, 10], 0), (3, [100, 0, 40, 40], 1)]
    truth, coco = make_truth({1: boxes})
    found = rows(
        (1, [50, 0, 20, 10], 0.95, 3),
        (1, [110, 5, 10, 10], 0.94, 3),
        (1, [150, 60, 20, 20], 0.92, 3),
        (1, [0, 0, 10, 20], 0.9, 3),
        (1, [50, 60, 20, 20], 0.2, 7),
    )

    stats = detection_stats(truth, hotcoco_index(coco), found, seed=0)

    assert stats.score == 0.9
    assert stats.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]  # cat, dog, nothing


def test_where_nothing_is_correct_as_many_detections_as_objects_count(make_truth, rows):
    truth, coco = make_truth({1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)]})
    far = [(1, [100, y, 10, 10], score, 7) for y, score in ((0, 0.4), (30, 0.3), (60, 0.2))]

    stats = detection_stats(truth, hotcoco_index(coco), rows(*far), seed=0)

    assert stats.score == 0.3
    assert stats.confusion.tolist() == [[0, 0, 2], [0, 0, 0], [0, 2, 0]]


def hotcoco_index(coco):
    from hotcoco import COCO as Index

    return Index(coco)
