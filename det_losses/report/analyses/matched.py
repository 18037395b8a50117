"""Which detection finds which truth, by COCO's rule, with the IoU of the two."""

from typing import NamedTuple

import numpy as np

from det_losses.evaluation.candidates import box_iou, rank_within
from det_losses.evaluation.ground_truth import GroundTruth

MAX_DETS = 100  # detections of an image and a class that COCO's evaluation looks at


class Pairs(NamedTuple):
    """Detections and truths of the same image and class that overlap, in the order of choice.

    Detections come by falling score. Among its truths a detection takes the free one with the
    highest IoU (the later one of two alike), and a crowd only if there is none.

    Attributes:
        detection: ``[P]`` row of the detections.
        truth: ``[P]`` row of the truths.
        iou: ``[P]``; for a crowd the part of the detection that lies in it.
        count: number of detections.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    count: int


def find_pairs(
    truth: GroundTruth, detections: np.ndarray, threshold: float = 0.5, max_dets: int = MAX_DETS
) -> Pairs:
    """Find the pairs of IoU ``threshold`` and more.

    Args:
        truth: its G boxes, crowds too.
        detections: ``[N, 7]`` image id, x, y, width, height, score, category id.
        threshold: lowest IoU.
        max_dets: of an image and a class, the detections of highest score that take part.
    """
    key_of_truth, key_of_detection = _keys(truth, detections)
    order = np.argsort(-detections[:, 5], kind="stable")
    order = order[rank_within(key_of_detection[order]) < max_dets]
    by_key = np.argsort(key_of_truth, kind="stable")
    keys = key_of_truth[by_key]
    first = np.searchsorted(keys, key_of_detection[order], "left")
    number = np.searchsorted(keys, key_of_detection[order], "right") - first
    position = np.repeat(np.arange(len(order)), number)
    offset = np.arange(len(position)) - np.repeat(number.cumsum() - number, number)
    row = by_key[np.repeat(first, number) + offset]
    iou = box_iou(detections[order[position], 1:5], truth.boxes[row], truth.crowds[row])
    near = iou >= min(threshold, 1 - 1e-10)
    position, row, iou = position[near], row[near], iou[near]
    choice = np.lexsort((-row, -iou, truth.crowds[row], position))
    return Pairs(order[position[choice]], row[choice], iou[choice], len(detections))


def assign(pairs: Pairs, crowd: np.ndarray, threshold: float = 0.5) -> tuple[np.ndarray, ...]:
    """Give each detection its truth.

    Args:
        pairs: what may be matched.
        crowd: ``[G]`` bool; a crowd takes any number of detections, another truth one.
        threshold: lowest IoU, at least that of ``pairs``.

    Returns:
        ``[N]`` row of the truth or -1, and ``[N]`` IoU or NaN.
    """
    truth_of = np.full(pairs.count, -1)
    iou_of = np.full(pairs.count, np.nan)
    near = pairs.iou >= min(threshold, 1 - 1e-10)
    many = crowd.tolist()
    found: dict[int, int] = {}
    taken: set[int] = set()
    rows = zip(pairs.detection[near].tolist(), pairs.truth[near].tolist(), strict=True)
    for detection, truth in rows:
        if detection in found or truth in taken:
            continue
        found[detection] = truth
        if not many[truth]:
            taken.add(truth)
    if found:
        truth_of[list(found)] = list(found.values())
    hit = truth_of[pairs.detection] == pairs.truth
    iou_of[pairs.detection[hit]] = pairs.iou[hit]
    return truth_of, iou_of


def _keys(truth: GroundTruth, detections: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the pairs of image and class; -1 for a detection of neither."""
    classes = len(truth.category_ids)
    image = _index(truth.image_ids, detections[:, 0])
    category = _index(truth.category_ids, detections[:, 6])
    known = (image >= 0) & (category >= 0)
    key = np.where(known, image * classes + category, -1)
    return truth.image_index * classes + truth.category_index, key


def _index(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ids, values).clip(max=max(len(ids) - 1, 0))
    return np.where(ids[place] == values, place, -1) if len(ids) else np.full(len(values), -1)
