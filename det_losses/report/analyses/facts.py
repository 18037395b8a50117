"""What is computed once from each run's detections, for several analyses."""

from dataclasses import dataclass

import numpy as np
from hotcoco import COCO, COCOeval

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import MatchedPairs, match_pairs, rank_within
from det_losses.evaluation.metrics import THRESHOLDS

ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


@dataclass(frozen=True)
class Facts:
    """A run's detections, looked at closely.

    Attributes:
        seed: of the run.
        ious: ``[M]`` IoU of the detections that found a box at IoU .5.
        errors: TIDE's error type -> AP50 that would be won without errors of that type.
        scores: ``[I]`` score of each image (:func:`image_scores`), NaN without a box to find.
    """

    seed: int
    ious: np.ndarray
    errors: dict[str, float]
    scores: np.ndarray


def examine(truth: GroundTruth, index: COCO, detections: np.ndarray, seed: int) -> Facts:
    """Compute the facts about a run.

    Args:
        truth: the ground truth.
        index: the same for hotcoco.
        detections: ``[N, 7]`` of the run.
        seed: of the run.
    """
    pairs = match_pairs(truth, detections)
    ious = pairs.iou[pairs.at[:, 0] & ~truth.crowds[pairs.truth]]
    kept, hits = image_hits(truth, detections, pairs)
    scores = image_scores(truth, detections[kept, 0], hits[kept])
    return Facts(seed, ious, tide(index, detections), scores)


def tide(index: COCO, detections: np.ndarray) -> dict[str, float]:
    """Return TIDE's error types with the AP50 that each costs.

    Args:
        index: the ground truth.
        detections: ``[N, 7]``.

    Reference: D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for Identifying
    Object Detection Errors", arXiv:2008.08115, 2020.
    """
    evaluation = COCOeval(index, index.load_res(detections), "bbox")
    evaluation.evaluate()
    gains = evaluation.tide_errors()["delta_ap"]
    return {name: float(gains[name]) for name in ERRORS}


def image_hits(
    truth: GroundTruth, detections: np.ndarray, pairs: MatchedPairs
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the detections of highest score, as many as the image has boxes, and judge them.

    Detections in a crowd (at IoU .5) are passed over.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]``.
        pairs: of the two.

    Returns:
        ``[M]`` rows of the chosen detections, by falling score, and ``[N, T]`` whether a detection
        finds a box of its class at each IoU threshold.
    """
    hits = np.zeros((len(detections), len(THRESHOLDS)), bool)
    in_crowd = np.zeros(len(detections), bool)
    crowd = truth.crowds[pairs.truth]
    np.logical_or.at(hits, pairs.detection[~crowd], pairs.at[~crowd])
    in_crowd[pairs.detection[crowd & pairs.at[:, 0]]] = True
    order = np.argsort(-detections[:, 5], kind="stable")
    order = order[~in_crowd[order]]
    wanted = boxes_by_image(truth)[np.searchsorted(truth.image_ids, detections[order, 0])]
    return order[rank_within(detections[order, 0]) < wanted], hits


def image_scores(truth: GroundTruth, images: np.ndarray, hits: np.ndarray) -> np.ndarray:
    r"""Return the R-precision of each image, averaged over the IoU thresholds.

    .. math:: s_i = \frac{1}{T} \sum_t \frac{\mathrm{TP}_{it}}{n_i}

    with :math:`n_i` boxes on the image and :math:`\mathrm{TP}_{it}` of its :math:`n_i` detections
    of highest score right at threshold t: precision, recall and F1 at once.

    Args:
        truth: the ground truth.
        images: ``[M]`` image ids of the chosen detections.
        hits: ``[M, T]`` whether they are right.

    Returns:
        ``[I]``, by ascending image id; NaN without a box.
    """
    boxes = boxes_by_image(truth)
    place = np.searchsorted(truth.image_ids, images)
    right = np.bincount(place, hits.mean(axis=1), minlength=len(boxes))
    return np.where(boxes > 0, right / np.maximum(boxes, 1), np.nan)


def boxes_by_image(truth: GroundTruth) -> np.ndarray:
    """Return the number of boxes of each image that can be found, ``[I]``."""
    return np.bincount(truth.image_index[~truth.crowds], minlength=len(truth.image_ids))
