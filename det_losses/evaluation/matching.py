"""Matching of detections with ground-truth boxes by COCO's rules, for all thresholds and areas.

The rules are those of pycocotools' ``evaluateImg``. In each image and class, detections are matched
greedily in descending order of score. Among the unmatched boxes with a sufficient IoU, a detection
prefers a box that is not ignored, then the highest IoU, then the later box. A crowd can be matched
any number of times.

The thresholds at which a pair is matched are stored as a mask of ten bits. One step of the greedy
matching, for all thresholds, images and classes at once, is a few integer operations.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from det_losses.errors import InputError
from det_losses.evaluation.average_precision import Matches
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.metrics import AREAS, MAX_DETS, THRESHOLDS

_CHUNK = 2**20  # number of pairs of boxes whose IoU is computed at once
_BITS = np.uint16(1) << np.arange(len(THRESHOLDS), dtype=np.uint16)
_ALL = _BITS.sum(dtype=np.uint16)


class MatchedPairs(NamedTuple):
    """Detections and boxes of all sizes that are matched at one IoU threshold or more.

    Attributes:
        detection: ``[M]`` row of the detections.
        truth: ``[M]`` row of the ground truth's boxes.
        iou: ``[M]``; for a crowd, the fraction of the detection inside it.
        at: ``[M, T]`` bool, whether the two are matched at each of THRESHOLDS.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    at: np.ndarray


def match(truth: GroundTruth, detections: np.ndarray, max_dets: int = MAX_DETS) -> Matches:
    """Match detections with the ground truth for all thresholds and areas, as required for AP.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]``, see :func:`~det_losses.evaluation.result_file.read_detections`.
        max_dets: maximum number of detections per image and class, those of highest score.

    Raises:
        InputError: wrong shape, a value that is not finite, an image or class that is not in the
            ground truth, or ``max_dets`` below 1.
    """
    found = rank_detections(truth, detections, max_dets)
    pairs = find_pairs(truth, found)
    matched = np.zeros((len(AREAS), len(found.row)), np.uint16)
    hits = np.zeros_like(matched)
    for index, outside in enumerate(truth.outside().T):
        at = match_greedily(pairs, outside, truth.crowds)
        np.bitwise_or.at(matched[index], pairs.detection, at)
        counts = ~outside[pairs.truth]
        np.bitwise_or.at(hits[index], pairs.detection[counts], at[counts])
    return _collect(truth, found, matched, hits)


def match_pairs(
    truth: GroundTruth, detections: np.ndarray, max_dets: int = MAX_DETS
) -> MatchedPairs:
    """Match detections with boxes of all sizes, including crowds; see :func:`match`."""
    found = rank_detections(truth, detections, max_dets)
    pairs = find_pairs(truth, found)
    at = match_greedily(pairs, truth.outside()[:, list(AREAS).index("all")], truth.crowds)
    kept = at > 0
    return MatchedPairs(
        detection=found.row[pairs.detection[kept]],
        truth=pairs.truth[kept],
        iou=pairs.iou[kept],
        at=(at[kept, None] & _BITS) > 0,
    )


class RankedDetections(NamedTuple):
    """Detections sorted by class, descending score, image and position in the file."""

    row: np.ndarray  # [D] of the detections as given
    image: np.ndarray  # [D] index
    category: np.ndarray  # [D] index
    box: np.ndarray  # [D, 4]


class Pairs(NamedTuple):
    """Pairs of a detection and a box of one image and class with IoU of at least .5.

    They are sorted by group (image, class), then by descending score, then by descending IoU, with
    later boxes first.
    """

    detection: np.ndarray  # [P] index of the ranked detection
    truth: np.ndarray  # [P] row of the ground truth's boxes
    iou: np.ndarray  # [P]
    bits: np.ndarray  # [P] uint16: thresholds that the IoU reaches
    turn: np.ndarray  # [P] number of the detection in this order
    step: np.ndarray  # [P] number of the pair in its group


def rank_detections(truth: GroundTruth, detections: np.ndarray, max_dets: int) -> RankedDetections:
    """Check and sort detections; keep the ``max_dets`` best per image and class.

    Raises:
        InputError: see :func:`match`.
    """
    if max_dets < 1:
        raise InputError(f"max_dets must be at least 1, got {max_dets}.")
    detections = np.asarray(detections, dtype=np.float64)
    if detections.ndim != 2 or detections.shape[1] != 7:
        raise InputError(
            f"detections must be [N, 7] (image id, x, y, w, h, score, category id), got "
            f"{list(detections.shape)}."
        )
    if not np.isfinite(detections).all():
        row = int(np.argmin(np.isfinite(detections).all(axis=1)))
        raise InputError(f"detections[{row}]: all values must be finite, got {detections[row]}.")
    image, category = truth.locate(detections)
    order = np.lexsort((image, -detections[:, 5], category))
    group = (image * len(truth.names) + category)[order]
    order = order[rank_within(group) < max_dets]
    return RankedDetections(order, image[order], category[order], detections[order, 1:5])


def rank_within(groups: np.ndarray) -> np.ndarray:
    """Number the members of each group in their order.

    >>> rank_within(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return rank


def find_pairs(truth: GroundTruth, found: RankedDetections) -> Pairs:
    """Find the pairs of the same image and class whose IoU reaches the lowest threshold."""
    classes = len(truth.names)
    group = found.image * classes + found.category
    truth_group = truth.image_index * classes + truth.category_index
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for detection, other in _same_group(group, truth_group):
        iou = box_iou(found.box[detection], truth.boxes[other], truth.crowds[other])
        near = iou >= THRESHOLDS[0]
        parts.append((detection[near], other[near], iou[near]))
    detection, other, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((-other, -iou, detection, group[detection]))
    detection, other, iou = detection[order], other[order], iou[order]
    reached = np.searchsorted(np.minimum(THRESHOLDS, 1 - 1e-10), iou, side="right")
    return Pairs(
        detection,
        other,
        iou,
        bits=((1 << reached) - 1).astype(np.uint16),
        turn=np.cumsum(np.diff(detection, prepend=-1) != 0),
        step=rank_within(group[detection]),
    )


def _same_group(
    group: np.ndarray, truth_group: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs within groups, in chunks: indices of detections, and of boxes."""
    by_group = np.argsort(truth_group, kind="stable")
    keys = truth_group[by_group]
    first = np.searchsorted(keys, group)
    size = np.searchsorted(keys, group, side="right") - first
    ends = np.searchsorted(np.cumsum(size), np.arange(_CHUNK, size.sum() + _CHUNK, _CHUNK)) + 1
    begin = 0
    for end in ends.tolist():
        part = slice(begin, end)
        detection = np.repeat(np.arange(len(size))[part], size[part])
        offset = np.cumsum(size[part]) - size[part]
        place = np.arange(len(detection)) + np.repeat(first[part] - offset, size[part])
        yield detection, by_group[place]
        begin = end


def box_iou(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Compute the IoU of aligned boxes as pycocotools does, to the last bit.

    Args:
        found: ``[P, 4]`` detections: x, y, width, height, pixels.
        truth: ``[P, 4]`` boxes of the ground truth.
        crowd: ``[P]`` bool; for a crowd, the result is the fraction of the detection inside it.

    Returns:
        ``[P]``, 0 where the boxes do not overlap.
    """
    low = np.maximum(found[:, :2], truth[:, :2])
    high = np.minimum(found[:, 2:] + found[:, :2], truth[:, 2:] + truth[:, :2])
    width, height = (high - low).T
    overlap = np.where((width > 0) & (height > 0), width * height, 0.0)
    own = found[:, 2] * found[:, 3]
    union = np.where(crowd, own, own + truth[:, 2] * truth[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(union), where=overlap > 0)


def match_greedily(pairs: Pairs, outside: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Match detections with boxes greedily.

    Args:
        pairs: the candidate pairs.
        outside: ``[G]`` bool: boxes that are ignored.
        crowds: ``[G]`` bool: boxes that can be matched any number of times.

    Returns:
        ``[P]`` uint16: the thresholds at which each pair is matched.
    """
    order = np.argsort(2 * pairs.turn + outside[pairs.truth], kind="stable")
    order = order[np.argsort(pairs.step, kind="stable")]
    detection, truth, bits = pairs.detection[order], pairs.truth[order], pairs.bits[order]
    kept = np.where(crowds, _ALL, np.uint16(0))  # what remains free after a match
    unmatched = np.full(detection.max(initial=-1) + 1, _ALL)
    free = np.full(len(outside), _ALL)
    begin = 0
    for end in np.cumsum(np.bincount(pairs.step)).tolist():
        # One pair per group, so no detection and no box occurs twice.
        d, g = detection[begin:end], truth[begin:end]
        bits[begin:end] &= unmatched[d] & free[g]
        unmatched[d] &= ~bits[begin:end]
        free[g] &= ~bits[begin:end] | kept[g]
        begin = end
    chosen = np.empty_like(bits)
    chosen[order] = bits
    return chosen


def _collect(
    truth: GroundTruth, found: RankedDetections, matched: np.ndarray, hits: np.ndarray
) -> Matches:
    """Build the segments of Matches from ``matched`` and ``hits``, bits ``[A, D]``."""
    low, high = np.array(list(AREAS.values())).T[..., None]
    size = found.box[:, 2] * found.box[:, 3]
    inside = (size >= low) & (size <= high)
    entries = hits | np.where(inside, matched, np.uint16(0))
    area, threshold, place = np.nonzero(entries[:, None, :] & _BITS[:, None])
    hit = (hits[area, place] & _BITS[threshold]) != 0
    category = found.category[place]
    segment = (area * len(_BITS) + threshold) * len(truth.names) + category
    start = np.flatnonzero(np.diff(segment, prepend=-1))
    running = np.concatenate([[0], np.cumsum(inside)])
    at = area * len(found.image)
    first_of_class = np.searchsorted(found.category, category[start])
    return Matches(
        population=truth.population,
        area_image=found.image[np.nonzero(inside)[1]].astype(np.int32),
        image=found.image[place].astype(np.int32),
        hit=hit,
        extra=hit.astype(np.int8) - inside[area, place],
        place=running[at + place + 1].astype(np.int32),
        start=start,
        cell=category[start] * len(AREAS) + area[start],
        threshold=threshold[start],
        before=running[at[start] + first_of_class],
    )
