"""Statistics of the detections of a run, shared by several analyses."""

from dataclasses import dataclass

import numpy as np
from hotcoco import COCO, COCOeval

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import MatchedPairs, match_pairs, rank_within
from det_losses.evaluation.metrics import THRESHOLDS

ERROR_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


@dataclass(frozen=True)
class DetectionStats:
    """Statistics of a run's detections.

    Attributes:
        seed: seed of the run.
        objects: number of objects on the evaluated images, without crowds.
        ious: ``[M]`` IoU of the detections that are matched with an object at IoU .5.
        errors: TIDE's error type -> gain in AP50 without errors of that type.
        image_scores: ``[I]`` R-precision of each image (:func:`image_scores`), NaN without objects.
    """

    seed: int
    objects: int
    ious: np.ndarray
    errors: dict[str, float]
    image_scores: np.ndarray


def detection_stats(
    truth: GroundTruth, index: COCO, detections: np.ndarray, seed: int
) -> DetectionStats:
    """Compute the statistics of a run.

    Args:
        truth: the ground truth.
        index: the ground truth as hotcoco's index.
        detections: ``[N, 7]`` of the run.
        seed: seed of the run.
    """
    pairs = match_pairs(truth, detections)
    ious = pairs.iou[pairs.at[:, 0] & ~truth.crowds[pairs.truth]]
    top, hits = top_detections(truth, detections, pairs)
    scores = image_scores(truth, detections[top, 0], hits[top])
    objects = int((~truth.crowds).sum())
    return DetectionStats(seed, objects, ious, tide_errors(index, detections), scores)


def tide_errors(index: COCO, detections: np.ndarray) -> dict[str, float]:
    """Return the AP50 lost by each of TIDE's error types.

    Args:
        index: the ground truth.
        detections: ``[N, 7]``.

    Reference: D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for Identifying
    Object Detection Errors", arXiv:2008.08115, 2020.
    """
    evaluation = COCOeval(index, index.load_res(detections), "bbox")
    evaluation.evaluate()
    gains = evaluation.tide_errors()["delta_ap"]
    return {name: float(gains[name]) for name in ERROR_TYPES}


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
    in_crowd = np.zeros(len(detections), bool)
    in_crowd[pairs.detection[crowd & pairs.at[:, 0]]] = True
    order = np.argsort(-detections[:, 5], kind="stable")
    order = order[~in_crowd[order]]
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
