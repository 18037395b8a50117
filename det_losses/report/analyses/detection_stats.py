"""Statistics of the detections of a run, shared by several analyses."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version

import numpy as np
from hotcoco import COCO, COCOeval

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import MatchedPairs, match_pairs, rank_within
from det_losses.evaluation.metrics import MAX_DETS, THRESHOLDS

ERROR_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
CURVE_IOUS = (0.5, 0.75)  # of the curves of precision against recall
# Increment the number when cached statistics change; hotcoco computes a part of them.
_MADE_BY = f"1, hotcoco {version('hotcoco')}"


@dataclass(frozen=True)
class DetectionStats:
    """Statistics of a run's detections.

    Attributes:
        seed: seed of the run.
        objects: number of objects on the evaluated images, without crowds.
        ious: ``[M]`` IoU of the detections that are matched with an object at IoU .5.
        errors: TIDE's error type -> gain in AP50 without errors of that type.
        image_scores: ``[I]`` R-precision of each image (:func:`image_scores`), NaN without objects.
        precision: ``[2, 101, K]`` precision at recall 0, .01, ..., 1 for each of CURVE_IOUS and
            each class; NaN without objects.
        score: the score from which on detections are counted in ``confusion``.
        confusion: ``[K + 1, K + 1]`` number of objects by class (rows) and class of the detection
            (columns); the last row is of detections without an object, the last column of objects
            without a detection.
    """

    seed: int
    objects: int
    ious: np.ndarray
    errors: dict[str, float]
    image_scores: np.ndarray
    precision: np.ndarray
    score: float
    confusion: np.ndarray


def detection_stats(
    truth: GroundTruth, index: COCO, detections: np.ndarray, seed: int, max_dets: int = MAX_DETS
) -> DetectionStats:
    """Compute the statistics of a run.

    Args:
        truth: the ground truth.
        index: the ground truth as hotcoco's index.
        detections: ``[N, 7]`` of the run.
        seed: seed of the run.
        max_dets: number of detections per image and class that are evaluated.
    """
    pairs = match_pairs(truth, detections, max_dets)
    ious = pairs.iou[pairs.at[:, 0] & ~truth.crowds[pairs.truth]]
    top, hits = top_detections(truth, detections, pairs)
    evaluation = COCOeval(index, index.load_res(detections), "bbox")
    evaluation.params.maxDets = [max_dets]
    evaluation.evaluate()
    objects = int((~truth.crowds).sum())
    counted = ~in_crowds(truth, detections, pairs)
    score = best_score(detections[counted, 5], hits[counted, 0], objects)
    return DetectionStats(
        seed=seed,
        objects=objects,
        ious=ious,
        errors=tide_errors(evaluation),
        image_scores=image_scores(truth, detections[top, 0], hits[top]),
        precision=precision_curves(evaluation),
        score=score,
        confusion=confusion(index, detections[counted & (detections[:, 5] >= score)]),
    )


def as_arrays(stats: DetectionStats) -> dict[str, np.ndarray]:
    """Return the statistics of a run as arrays, to be cached."""
    gains = np.array([stats.errors[name] for name in ERROR_TYPES])
    values = {field.name: getattr(stats, field.name) for field in fields(stats)}
    return {name: np.asarray(value) for name, value in values.items()} | {
        "errors": gains,
        "made_by": np.array(_MADE_BY),
    }


def from_arrays(seed: int, arrays: Mapping[str, np.ndarray]) -> DetectionStats | None:
    """Return the statistics that :func:`as_arrays` took apart; None if another version did it."""
    if arrays.get("made_by") != _MADE_BY:
        return None
    return DetectionStats(
        seed=seed,
        objects=int(arrays["objects"]),
        ious=arrays["ious"],
        errors=dict(zip(ERROR_TYPES, arrays["errors"].tolist(), strict=True)),
        image_scores=arrays["image_scores"],
        precision=arrays["precision"],
        score=float(arrays["score"]),
        confusion=arrays["confusion"],
    )


def tide_errors(evaluation: COCOeval) -> dict[str, float]:
    """Return the AP50 lost by each of TIDE's error types.

    Args:
        evaluation: hotcoco's evaluation of a run.

    Reference: D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for Identifying
    Object Detection Errors", arXiv:2008.08115, 2020.
    """
    gains = evaluation.tide_errors()["delta_ap"]
    return {name: float(gains[name]) for name in ERROR_TYPES}


def precision_curves(evaluation: COCOeval) -> np.ndarray:
    """Return the precision at each of COCO's recalls, ``[2, 101, K]``; NaN without objects.

    Args:
        evaluation: hotcoco's evaluation of a run.
    """
    evaluation.accumulate()
    rows = [int(np.argmin(np.abs(THRESHOLDS - iou))) for iou in CURVE_IOUS]
    found = np.asarray(evaluation.eval["precision"])[rows, :, :, 0, -1]  # all sizes
    return np.where(found < 0, np.nan, found)


def best_score(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """Return the score from which on detections have the highest F1, over all classes.

    Losses differ in how high their scores are, so one score for all would favour some of them.
    Where no detection is correct, it is the score of the n-th detection with n objects.

    >>> best_score(np.array([0.9, 0.8, 0.3]), np.array([True, True, False]), objects=4)
    0.8

    Args:
        scores: ``[N]``.
        right: ``[N]`` whether the detection is correct.
        objects: number of objects.
    """
    if not len(scores) or not objects:
        return 1.0
    order = np.argsort(-scores, kind="stable")
    if not right.any():
        return float(scores[order[min(objects, len(order)) - 1]])
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + objects)
    return float(scores[order[np.argmax(f1)]])


def confusion(index: COCO, detections: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of detections at IoU .5, ``[K + 1, K + 1]``; rows are objects.

    In descending order of score, a detection is matched with the object of highest IoU, whatever
    its class.

    Args:
        index: the ground truth.
        detections: ``[N, 7]``, all of which count.
    """
    evaluation = COCOeval(index, index.load_res(detections), "bbox")
    most = max(1, len(detections))
    return evaluation.confusion_matrix(iou_thr=CURVE_IOUS[0], max_det=most)["matrix"].astype(int)


def in_crowds(truth: GroundTruth, detections: np.ndarray, pairs: MatchedPairs) -> np.ndarray:
    """Return which detections are matched with a crowd at IoU .5, ``[N]``: they do not count."""
    found = np.zeros(len(detections), bool)
    found[pairs.detection[truth.crowds[pairs.truth] & pairs.at[:, 0]]] = True
    return found


def top_detections(
    truth: GroundTruth, detections: np.ndarray, pairs: MatchedPairs
) -> tuple[np.ndarray, np.ndarray]:
    """Select the n detections of highest score on each image with n objects.

    Detections matched with a crowd (at IoU .5) are skipped.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]``.
        pairs: the matches of the two.

    Returns:
        ``[M]`` rows of the selected detections, by descending score, and ``[N, T]`` whether a
        detection is matched with an object at each IoU threshold.
    """
    crowd = truth.crowds[pairs.truth]
    hits = np.zeros((len(detections), len(THRESHOLDS)), bool)
    np.logical_or.at(hits, pairs.detection[~crowd], pairs.at[~crowd])
    order = np.argsort(-detections[:, 5], kind="stable")
    order = order[~in_crowds(truth, detections, pairs)[order]]
    wanted = boxes_by_image(truth)[np.searchsorted(truth.image_ids, detections[order, 0])]
    return order[rank_within(detections[order, 0]) < wanted], hits


def image_scores(truth: GroundTruth, images: np.ndarray, hits: np.ndarray) -> np.ndarray:
    r"""Return the R-precision of each image, averaged over the IoU thresholds.

    .. math:: s_i = \frac{1}{T} \sum_t \frac{\mathrm{TP}_{it}}{n_i}

    where image i has :math:`n_i` objects, and :math:`\mathrm{TP}_{it}` of its :math:`n_i`
    detections of highest score are correct at threshold t. With as many detections as objects this
    is precision, recall and F1 at once.

    Args:
        truth: the ground truth.
        images: ``[M]`` image ids of the selected detections.
        hits: ``[M, T]`` whether they are correct.

    Returns:
        ``[I]``, by ascending image id; NaN without objects.
    """
    boxes = boxes_by_image(truth)
    place = np.searchsorted(truth.image_ids, images)
    right = np.bincount(place, hits.mean(axis=1), minlength=len(boxes))
    return np.where(boxes > 0, right / np.maximum(boxes, 1), np.nan)


def boxes_by_image(truth: GroundTruth) -> np.ndarray:
    """Return the number of boxes on each image, without crowds, ``[I]``."""
    return np.bincount(truth.image_index[~truth.crowds], minlength=len(truth.image_ids))


def nan_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean over ``axis`` without NaNs; NaN, without a warning, if all values are NaN.

    >>> nan_mean([[1.0, float("nan")], [3.0, float("nan")]]).tolist()
    [2.0, nan]
    """
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
