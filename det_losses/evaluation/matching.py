"""Matching a result file with the ground truth once, by COCO's rules, for all thresholds and areas.

The rules are those of pycocotools' ``evaluateImg``. In each image and class the detections choose
by falling score; each takes, of the boxes that are free and of enough IoU, one that counts before
one that does not, then the one with the highest IoU, then the later one. A crowd is always free.

Which of the ten thresholds a match holds for is one bit of a mask, so that a step of the greedy
choice, for all thresholds and all images and classes at once, is a few operations on integers.
"""

import numpy as np

from det_losses.evaluation.accumulation import METRICS, THRESHOLDS, Matches, numbers
from det_losses.evaluation.backends import AREAS
from det_losses.evaluation.candidates import Pairs, Ranked, find_pairs, rank_detections
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.result_file import read_detections

__all__ = ["METRICS", "GroundTruth", "Matches", "match", "numbers", "read_detections"]

_ALL = np.uint16((1 << len(THRESHOLDS)) - 1)


def match(truth: GroundTruth, detections: np.ndarray, max_dets: int = 100) -> Matches:
    """Match detections with the ground truth for all IoU thresholds and areas.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]``, see :func:`read_detections`.
        max_dets: of each image and class, the detections of highest score that count.

    Raises:
        ValueError: wrong shape, a value that is not finite, an image or class that the ground
            truth does not have, or ``max_dets`` below 1.
    """
    found = rank_detections(truth, detections, max_dets)
    pairs = find_pairs(truth, found)
    low, high = np.array(list(AREAS.values())).T
    area = found.box[:, 2] * found.box[:, 3]
    inside = (area[:, None] >= low) & (area[:, None] <= high)
    matched = np.zeros((len(AREAS), len(area)), np.uint16)
    hits = np.zeros_like(matched)
    for index, outside in enumerate(truth.outside().T):
        matched[index], hits[index] = _assign(pairs, outside, truth.crowds, len(area))
    return _collect(truth, found, inside.T, matched, hits)


def _assign(
    pairs: Pairs, outside: np.ndarray, crowds: np.ndarray, detections: int
) -> tuple[np.ndarray, np.ndarray]:
    """Let the detections choose; return which thresholds each is matched and hits at, ``[D]``."""
    order = np.argsort(2 * pairs.turn + outside[pairs.truth], kind="stable")
    order = order[np.argsort(pairs.step, kind="stable")]
    ends = np.cumsum(np.bincount(pairs.step))
    detection, truth, bits = pairs.detection[order], pairs.truth[order], pairs.bits[order]
    kept = np.where(crowds, _ALL, np.uint16(0))  # what a match leaves free
    unmatched = np.full(detections, _ALL)
    free = np.full(len(outside), _ALL)
    hits = np.zeros(detections, np.uint16)
    begin = 0
    for end in ends.tolist():
        d, g = detection[begin:end], truth[begin:end]
        taken = bits[begin:end] & unmatched[d] & free[g]
        unmatched[d] &= ~taken
        free[g] &= ~taken | kept[g]
        hits[d] |= np.where(outside[g], np.uint16(0), taken)
        begin = end
    return _ALL & ~unmatched, hits


def _collect(
    truth: GroundTruth, found: Ranked, inside: np.ndarray, matched: np.ndarray, hits: np.ndarray
) -> Matches:
    """Build the segments from ``inside``, ``matched`` and ``hits``, ``[A, D]``."""
    bits = np.uint16(1) << np.arange(len(THRESHOLDS), dtype=np.uint16)
    entries = hits | np.where(inside, matched, np.uint16(0))
    area, threshold, row = np.nonzero(entries[:, None, :] & bits[:, None])
    hit = (hits[area, row] & bits[threshold]) != 0
    category = found.category[row]
    segment = (area * len(bits) + threshold) * len(truth.names) + category
    start = np.flatnonzero(np.diff(segment, prepend=-1))
    running = np.concatenate([[0], np.cumsum(inside)])
    at = area * len(found.image)
    first_of_class = np.searchsorted(found.category, category[start])
    return Matches(
        population=truth.population,
        area_image=found.image[np.nonzero(inside)[1]].astype(np.int32),
        image=found.image[row].astype(np.int32),
        hit=hit,
        extra=hit.astype(np.int8) - inside[area, row],
        place=running[at + row + 1].astype(np.int32),
        start=start,
        cell=category[start] * len(AREAS) + area[start],
        threshold=threshold[start],
        before=running[at[start] + first_of_class],
    )
