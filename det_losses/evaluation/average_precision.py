"""Average precision from matches, over all images or over a resample of them.

COCO's average precision is the mean of the interpolated precision at 101 recalls. An image that
occurs k times in a resample contributes k copies of each of its boxes and detections. Copies of a
detection are adjacent in the ranking. Over k equal true positives, precision increases, and the
interpolated precision at a recall is the maximum at that recall or a higher one. So only the last
copy matters: true and false positives are counted with weight k, and nothing is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from det_losses.errors import InputError
from det_losses.evaluation.ground_truth import Population
from det_losses.evaluation.metrics import AREAS, RECALLS, THRESHOLDS

_GROUP = 128  # segments that are processed at once


@dataclass(frozen=True, eq=False)
class Resample:
    """Resamples of the images, and the recalls that are reached with a number of true positives.

    Attributes:
        weights: ``[I, B]`` int32, multiplicity of each image.
        boxes: ``[K * A, B]`` number of boxes in each cell (class, area), crowds excluded.
        start: ``[K * A, B]`` start of the cell's part of ``reached``.
        reached: number of recalls for 0, 1, ... boxes[cell, b] true positives.
    """

    weights: np.ndarray
    boxes: np.ndarray
    start: np.ndarray
    reached: np.ndarray

    @classmethod
    def of(cls, population: Population, counts: np.ndarray) -> "Resample":
        """Prepare checked multiplicities of the images, ``[B, I]``."""
        weights = np.ascontiguousarray(counts.T, np.int32)
        cells = len(population.names) * len(AREAS)
        boxes = _counts(population.cell, population.image, (cells, population.images)) @ weights
        reached = [_reached(own) for own in boxes.T]
        start = np.cumsum(boxes.T.ravel() + 1) - (boxes.T.ravel() + 1)
        return cls(weights, boxes, start.reshape(-1, cells).T.copy(), np.concatenate(reached))


@dataclass(frozen=True, eq=False)
class Matches:
    """The matches of a result file, prepared for weighting by image.

    A segment is a combination (area, threshold, class) with at least one entry. Its entries, by
    descending score, are the detections matched with a box in the area range, and the detections in
    the area range whose match is ignored. Every other detection in the area range is a false
    positive.

    Attributes:
        population: the boxes of the ground truth.
        area_image: ``[M]`` image index of all detections inside an area range, by area, class and
            descending score.
        image: ``[E]`` image index of the entries, by segment and descending score.
        hit: ``[E]`` whether the entry is a true positive.
        extra: ``[E]`` correction to the number of counted detections in the area range: 1 for a
            true positive outside of it, -1 for an ignored detection inside, else 0.
        place: ``[E]`` number of elements of ``area_image`` up to and including the entry.
        start: ``[S]`` first entry of each segment.
        cell: ``[S]`` class index * A + area index.
        threshold: ``[S]`` index in THRESHOLDS.
        before: ``[S]`` number of elements of ``area_image`` before the segment's area and class.
    """

    population: Population
    area_image: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    extra: np.ndarray
    place: np.ndarray
    start: np.ndarray
    cell: np.ndarray
    threshold: np.ndarray
    before: np.ndarray

    def average_precision(self, counts: np.ndarray | None = None) -> np.ndarray:
        """Compute the average precision over all images, or over a resample of them.

        If the scores within an image and class are distinct, the value for a resample equals that
        of COCO's evaluation on a dataset with ``counts[i]`` adjacent copies of image i. Detections
        of equal score are ordered by image, then by position in the file. This also holds for the
        copies, except for two detections of the same image and class: all ``counts[i]`` copies of
        the first one precede those of the second one.

        Args:
            counts: ``[I]`` integers >= 0, multiplicity of each image by ascending image id;
                None: 1 for each.

        Returns:
            ``[T, K, A]`` for the IoU thresholds .50, .55, ... .95, the classes by ascending id and
            the areas all, small, medium, large; NaN where the ground truth has no box.

        Raises:
            InputError: ``counts`` is not one integer >= 0 for each image.
        """
        images = self.population.images
        counts = check_counts(np.ones(images, np.int64) if counts is None else counts, images)
        return self.resampled([Resample.of(self.population, counts[None])])[0]

    def resampled(self, parts: Sequence[Resample]) -> np.ndarray:
        """Compute :meth:`average_precision` of the resamples in all parts, ``[B, T, K, A]``."""
        steps = _Steps.of(self) if len(self.start) else None
        return np.concatenate([self._of_part(steps, part) for part in parts])

    def _of_part(self, steps: "_Steps | None", part: Resample) -> np.ndarray:
        result = np.zeros((len(THRESHOLDS), *part.boxes.shape))
        if steps is not None:
            cell = self.cell[steps.segment]
            result[self.threshold[steps.segment], cell] = _segments(steps, part, cell)
        result[:, part.boxes == 0] = np.nan
        result = result.reshape(len(THRESHOLDS), -1, len(AREAS), part.boxes.shape[1])
        return np.moveaxis(result, -1, 0)


def _segments(steps: "_Steps", part: Resample, cell: np.ndarray) -> np.ndarray:
    """Return the average precision of each segment, ``[S, B]``.

    All segments and resamples are processed at once, from the last entry of each segment to its
    first one. So the maximum of the precision at a recall or a higher one is a running maximum.
    """
    weights = part.weights
    counted = steps.counted @ weights
    np.cumsum(counted, axis=0, out=counted)
    # At the last entry of each segment. `extra` is to be added to `counted`.
    hits = (steps.hits @ weights).astype(np.float64)
    extra = steps.extra @ weights - counted.take(steps.before, axis=0)
    at = part.start.take(cell, axis=0) + hits.astype(np.int64)
    level = part.reached.take(at)
    best, total = np.zeros_like(hits), np.zeros_like(hits)
    begin = 0
    for first, end, others in zip(steps.first, steps.ends, steps.others, strict=True):
        now = slice(first, first + end - begin)
        number = counted.take(steps.place[begin:end], axis=0)
        number += extra[now]
        np.maximum(number, 1, out=number)
        np.maximum(best[now], hits[now] / number, out=best[now])
        weight = weights.take(steps.image[begin:end], axis=0)
        if others is not None:
            rows, at_step, change, missed = others
            extra[rows] -= weight[at_step] * change
            weight[at_step[missed]] = 0
        hits[now] -= weight
        at[now] -= weight
        lower = part.reached.take(at[now])
        total[now] += best[now] * (level[now] - lower)
        level[now] = lower
        begin = end
    return (total + best * level) / len(RECALLS)


class _Steps(NamedTuple):
    """The entries of Matches in the order in which they are processed.

    The segments are sorted by descending length, and processed in groups, whose numbers fit into
    the cache of the processor. Step s of a group processes the s-th last entry of each of its
    segments that has so many, which are the first ones of the group.

    Attributes:
        segment: ``[S]`` index in Matches of each segment.
        first: first row of each step in ``segment``.
        ends: end of each step in ``image`` and ``place``.
        image: ``[E]`` image index.
        place: ``[E]`` row of ``counted``.
        others: for each step, entries that are no true positive in the area range: their rows in
            ``segment``, places in the step, corrections as a column, and whether they are no true
            positive at all; None if there are none.
        counted: ``[P, I]`` sparse, number of detections in the area range from one place to the
            next.
        before: ``[S]`` row of ``counted`` before the segment.
        hits: ``[S, I]`` sparse, number of true positives.
        extra: ``[S, I]`` sparse, sum of the corrections.
    """

    segment: np.ndarray
    first: list[int]
    ends: list[int]
    image: np.ndarray
    place: np.ndarray
    others: list[tuple[np.ndarray, ...] | None]
    counted: csr_array
    before: np.ndarray
    hits: csr_array
    extra: csr_array

    @classmethod
    def of(cls, matches: Matches) -> "_Steps":
        images = matches.population.images
        lengths = np.diff(matches.start, append=len(matches.image))
        segment = np.argsort(-lengths, kind="stable")
        own = np.repeat(np.argsort(segment), lengths)
        group = own // _GROUP
        step = np.repeat(matches.start + lengths, lengths) - 1 - np.arange(len(own))
        step += group * len(own)
        order = np.lexsort((own, step))
        starts = np.flatnonzero(np.diff(step[order], prepend=-1))
        places, row = np.unique(np.append(matches.place, matches.before), return_inverse=True)
        area_row = np.searchsorted(places, np.arange(places[-1]), side="right")
        shape = (len(segment), images)
        hit, extra = matches.hit[order], matches.extra[order].astype(np.int32)
        others: list = [None] * len(starts)
        unlike = np.flatnonzero((extra != 0) | ~hit)
        bounds = np.searchsorted(unlike, np.append(starts, len(order)))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            found = unlike[bounds[number] : bounds[number + 1]]
            rows = own[order[found]]
            others[number] = rows, found - starts[number], extra[found, None], ~hit[found]
        return cls(
            segment=segment,
            first=(group[order[starts]] * _GROUP).tolist(),
            ends=[*starts[1:].tolist(), len(order)],
            image=matches.image[order],
            place=row[: len(order)][order],
            others=others,
            counted=_counts(area_row, matches.area_image[: places[-1]], (len(places), images)),
            before=row[len(order) :][segment],
            hits=_counts(own, matches.image, shape, matches.hit),
            extra=_counts(own, matches.image, shape, matches.extra),
        )


def _counts(
    row: np.ndarray, image: np.ndarray, shape: tuple[int, int], value: np.ndarray | None = None
) -> csr_array:
    """Return the sums of the values, 1 by default, by row and image as a sparse matrix."""
    value = np.ones(len(row), np.int32) if value is None else value.astype(np.int32)
    return csr_array((value, (row, image)), shape=shape)


def _reached(boxes: np.ndarray) -> np.ndarray:
    """Return the number of recalls for 0, 1, ... boxes[cell] true positives, cell by cell."""
    size = boxes + 1
    hits = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    # A division in float64, as in pycocotools: 7 of 100 boxes reach the recall 0.07.
    recall = hits / np.repeat(np.maximum(boxes, 1), size)
    return np.searchsorted(RECALLS, recall, side="right").astype(np.int8)


def check_counts(counts: np.ndarray, images: int) -> np.ndarray:
    """Return ``counts`` (the last axis: images) as int64.

    Raises:
        InputError: not integers of at least 0, or not one for each image.
    """
    counts = np.asarray(counts)
    if counts.dtype.kind not in "iu" or counts.shape[-1:] != (images,) or (counts < 0).any():
        raise InputError(
            f"counts must be integers of at least 0, one for each of the {images} images, got "
            f"{counts.dtype} of shape {counts.shape}. Draw them with draw_counts."
        )
    return counts.astype(np.int64, copy=False)
