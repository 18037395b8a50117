"""Which detections take part, and which truths each of them may find."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from det_losses.evaluation.accumulation import THRESHOLDS
from det_losses.evaluation.ground_truth import GroundTruth

_CHUNK = 2**20  # pairs of boxes whose IoU is computed at once


class Ranked(NamedTuple):
    """Detections by class, falling score, image and place in the file."""

    image: np.ndarray  # [D] index
    category: np.ndarray  # [D] index
    box: np.ndarray  # [D, 4]


class Pairs(NamedTuple):
    """Detections and truths of one image and class with an IoU of at least .5, in order of choice.

    Group (image, class) by group; there, by falling score; there, by falling IoU, later truths
    first.
    """

    detection: np.ndarray  # [P]
    truth: np.ndarray  # [P]
    bits: np.ndarray  # [P] uint16: thresholds that the IoU reaches
    turn: np.ndarray  # [P] number of the detection in this order
    step: np.ndarray  # [P] number of the pair in its group


def rank_detections(truth: GroundTruth, detections: np.ndarray, max_dets: int) -> Ranked:
    """Check and sort detections; of each image and class keep the ``max_dets`` best.

    Raises:
        ValueError: see :func:`~det_losses.evaluation.matching.match`.
    """
    if max_dets < 1:
        raise ValueError(f"max_dets must be at least 1, got {max_dets}.")
    detections = np.asarray(detections, dtype=np.float64)
    if detections.ndim != 2 or detections.shape[1] != 7:
        raise ValueError(
            f"detections must be [N, 7] (image id, x, y, w, h, score, category id), got "
            f"{list(detections.shape)}."
        )
    if not np.isfinite(detections).all():
        row = int(np.argmin(np.isfinite(detections).all(axis=1)))
        raise ValueError(f"detections[{row}]: all values must be finite, got {detections[row]}.")
    image, category = truth.locate(detections)
    order = np.lexsort((image, -detections[:, 5], category))
    group = (image * len(truth.names) + category)[order]
    order = order[rank_within(group) < max_dets]
    return Ranked(image[order], category[order], detections[order, 1:5])


def rank_within(groups: np.ndarray) -> np.ndarray:
    """Number the members of each group in the order in which they come.

    >>> rank_within(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return rank


def find_pairs(truth: GroundTruth, found: Ranked) -> Pairs:
    """Find the pairs of the same image and class that overlap enough for the lowest threshold."""
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
        bits=((1 << reached) - 1).astype(np.uint16),
        turn=np.cumsum(np.diff(detection, prepend=-1) != 0),
        step=rank_within(group[detection]),
    )


def _same_group(
    group: np.ndarray, truth_group: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of one group, in parts: indices of detections, and of truths."""
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
        truth: ``[P, 4]`` truths.
        crowd: ``[P]`` bool; for a crowd, the part of the detection that lies in it.

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
