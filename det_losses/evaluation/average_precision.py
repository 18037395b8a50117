"""Average precision from matches, over all images or over a resample of them.

COCO's average precision is the mean of the interpolated precision at 101 recalls. An image that
occurs k times in a resample contributes k copies of each of its boxes and detections. Copies of a
detection are adjacent in the ranking. Over k equal true positives, precision increases, and the
interpolated precision at a recall is the maximum at that recall or a higher one. So only the last
copy matters: true and false positives are counted with weight k, and nothing is copied.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from det_losses.errors import InputError
from det_losses.evaluation.ground_truth import Population
from det_losses.evaluation.metrics import AREAS, RECALLS, THRESHOLDS


@dataclass(frozen=True, eq=False)
class Recalls:
    """Number of the 101 recalls that are reached with a number of true positives, for all cells.

    Attributes:
        boxes: ``[K * A]`` number of boxes in each cell (class, area), crowds excluded.
        start: ``[K * A]`` start of the cell's part of ``reached``.
        reached: number of recalls for 0, 1, ... boxes[cell] true positives of each cell.
    """

    boxes: np.ndarray
    start: np.ndarray
    reached: np.ndarray

    @classmethod
    def of(cls, population: Population, weights: np.ndarray) -> "Recalls":
        """Compute the recalls for images with multiplicities ``weights``, ``[I]`` integers."""
        cells = len(population.names) * len(AREAS)
        boxes = np.bincount(population.cell, weights[population.image], cells).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(boxes + 1)])
        hits = np.arange(start[-1]) - np.repeat(start[:-1], boxes + 1)
        # A division in float64, as in pycocotools: 7 of 100 boxes reach the recall 0.07.
        recall = hits / np.repeat(np.maximum(boxes, 1), boxes + 1)
        return cls(boxes, start[:-1], np.searchsorted(RECALLS, recall, side="right"))


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
        weights = check_counts(np.ones(images, np.int64) if counts is None else counts, images)
        return self.weighted(weights, Recalls.of(self.population, weights))

    def weighted(self, weights: np.ndarray, recalls: Recalls) -> np.ndarray:
        """Compute :meth:`average_precision` from checked weights and their recalls."""
        result = np.zeros((len(THRESHOLDS), len(recalls.boxes)))
        if len(self.start):
            result[self.threshold, self.cell] = self._segments(weights, recalls)
        result[:, recalls.boxes == 0] = np.nan
        return result.reshape(len(THRESHOLDS), -1, len(AREAS))

    def _segments(self, weights: np.ndarray, recalls: Recalls) -> np.ndarray:
        base = np.zeros(len(self.area_image) + 1, np.int64)
        np.cumsum(weights.take(self.area_image), out=base[1:])
        weight = weights.take(self.image)
        hits, hits_before = self._running(weight * self.hit)
        extra, extra_before = self._running(weight * self.extra)
        hits -= self._spread(hits_before)
        counted = base.take(self.place) + extra - self._spread(base[self.before] + extra_before)
        reached = recalls.reached.take(hits + self._spread(recalls.start[self.cell]))
        new = np.diff(reached, prepend=0)
        new[self.start] = reached[self.start]
        # The maximum precision from here to the end of the segment. Each segment is shifted above
        # the later ones, so that a single running maximum suffices.
        level = self._spread(np.arange(len(self.start), 0.0, -1.0))
        precision = hits / np.maximum(counted, 1) + level
        best = np.maximum.accumulate(precision[::-1])[::-1] - level
        return np.add.reduceat(best * new, self.start) / len(RECALLS)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.diff(self.start, append=len(self.image))

    def _spread(self, values: np.ndarray) -> np.ndarray:
        return np.repeat(values, self._lengths)

    def _running(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = np.cumsum(values)
        return total, total[self.start] - values[self.start]


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
