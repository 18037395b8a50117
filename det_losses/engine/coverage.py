"""Which boxes of the training data the detector has anchors for, and settings that fit better."""

import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.data.box_table import BoxTable, table_of
from det_losses.data.split_checks import data_notes
from det_losses.engine.checks import fill_from_data
from det_losses.errors import UserError, one_line
from det_losses.generators import generators_kept
from det_losses.models.coverage import Anchors, Locations, Targets, resized, targets_of
from det_losses.models.detector import Detector
from det_losses.models.weight_files import weights_skipped
from det_losses.registry import MODELS

ENOUGH = 0.9  # share of the boxes, or of those of a class, below which a sentence says so
_MOST, _TRIED = 20_000, 3_000  # boxes that are measured, and with which settings are searched
FEW = 20  # boxes, or boxes of a class, below which a share is not reported
_FEW_MISSING = 5  # boxes of a class without an anchor, below which it is not reported
_BETTER = 0.5  # times the boxes without an anchor that may be left for a setting to be advised
_SIMPLER = 0.02  # by which fitted anchors must be better than scaled ones
_FACTORS = np.geomspace(1 / 4, 4, 17)
_ENLARGED = (1.0, 1.5, 2.0)  # factors of the image size, in this order
_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)


@dataclass(frozen=True)
class Coverage:
    """Boxes with and without an anchor (FCOS: a location) that they can be matched to.

    Attributes:
        table: the boxes after the transforms of the data, at most 20,000 of them.
        targets: the anchors or locations of the detector.
        transform: the detector's, which resizes images.
    """

    table: BoxTable
    targets: Targets
    transform: GeneralizedRCNNTransform

    @cached_property
    def covered(self) -> np.ndarray:
        """``[N]``: whether a box has an anchor."""
        return self.with_targets(self.targets)

    @cached_property
    def sides(self) -> np.ndarray:
        """``[N]`` square root of the area of each box in the resized image, pixels."""
        boxes, _ = self.resized()
        return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))

    def resized(self, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes and padded sizes as in the resized images."""
        sizes = self.table.sizes[self.table.images]
        return resized(self.transform, self.table.boxes.astype(float), sizes, scale)

    def with_targets(self, targets: Targets, scale: float = 1.0) -> np.ndarray:
        """Return ``covered`` with other anchors, or another image size."""
        return targets.covers(*self.resized(scale))

    def by_class(self) -> list[tuple[str, int, float]]:
        """Return name, number of boxes and share with an anchor, for each class with a box."""
        return [
            (name, int(own.sum()), float(self.covered[own].mean()))
            for label, name in enumerate(self.table.classes)
            if (own := self.table.labels == label).any()
        ]

    def by_size(self) -> list[tuple[str, int, float]]:
        """Return the same for ranges of :attr:`sides`."""
        return [
            (_range(low, high), int(own.sum()), float(self.covered[own].mean()))
            for low, high in itertools.pairwise(_EDGES)
            if (own := (self.sides >= low) & (self.sides < high)).any()
        ]

    @property
    def what(self) -> str:
        """What a covered box has, in words."""
        if isinstance(self.targets, Locations):
            return "a location to learn it from"
        return f"an anchor with an IoU of at least {self.targets.threshold:g}"

    def of_sample(
        self, boxes: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
        """Return the boxes and the size of one image after the resize, and which are covered.

        Args:
            boxes: ``[n, 4]`` xyxy, pixels.
            size: width and height, pixels.
        """
        corners = np.array([[0, 0, *size], *boxes.tolist()], float)
        moved, padded = resized(self.transform, corners, np.tile(size, (len(corners), 1)))
        new = tuple(np.round(moved[0, 2:]).astype(int).tolist())
        return moved[1:], new, self.targets.covers(moved[1:], padded[1:])

    @property
    def poor_classes(self) -> list[tuple[str, int, float]]:
        """The classes of which too few boxes have an anchor, the worst first."""
        found = [
            (name, count, share)
            for name, count, share in self.by_class()
            if count >= FEW and share < ENOUGH and (1 - share) * count >= _FEW_MISSING
        ]
        return sorted(found, key=lambda each: each[2])

    @property
    def is_enough(self) -> bool:
        """Whether most boxes, and most of each class, have an anchor."""
        return self.covered.mean() >= ENOUGH and not self.poor_classes


@dataclass(frozen=True)
class Advice:
    """Settings with which more boxes have an anchor.

    Attributes:
        options: key of the config -> value.
        share: of the boxes that then have an anchor.
        worst: the class of which most boxes have none, and the share that then has one.
        scale: factor by which the side of the images is larger.
    """

    options: dict[str, Any]
    share: float
    worst: tuple[str, float]
    scale: float

    @property
    def texts(self) -> list[str]:
        """The options as on a command line."""
        return [f"{key}={str(value).replace(' ', '')}" for key, value in self.options.items()]

    def __str__(self) -> str:
        options = f"--cfg-options {' '.join(self.texts)}"
        if self.scale == 1:
            options = f"--fit-anchors, or {options}"
        longer = f", at {self.scale**2:.2g} times the time for an image" if self.scale > 1 else ""
        name, share = self.worst
        return (
            f"with {options} it is {100 * (1 - self.share):.0f}% "
            f"({100 * (1 - share):.0f}% of {name}){longer}"
        )


def _range(low: float, high: float) -> str:
    return f"{low:g} to {high:g} px" if np.isfinite(high) else f"from {low:g} px"


def notes_before_training(
    model: Detector | Mapping[str, Any], train: Any, val: Any
) -> dict[str, list[str]]:
    """Return what looks wrong in the data, and whether the detector's anchors fit it.

    Args:
        model: the detector, or its config.
        train: the training dataset.
        val: the validation dataset, or None.

    Returns:
        ``train``, ``val``, ``both`` and ``anchors`` -> sentences; empty ones are left out.
    """
    notes = data_notes(train, val)
    try:
        anchors = coverage_notes(measure(model, train))
    except Exception as error:  # of a backbone or a transform of the user, on a blank image
        reason = f"{type(error).__name__}: {one_line(error)}"
        notes.setdefault("train", []).append(f"boxes without anchors were not counted ({reason})")
    else:
        notes |= {"anchors": anchors} if anchors else {}
    return notes


def measure(model: Any, dataset: Any) -> Coverage | None:
    """Return which boxes of a dataset have an anchor; None if either is of an unknown kind."""
    with generators_kept(0):
        table = table_of(dataset, transformed=True)
        if table is None or not len(table.boxes):
            return None
        detector = getattr(model, "module", model)
        if isinstance(model, Mapping):
            try:
                detector = untrained(model, dataset)
            except UserError:  # the check of the runs has said so, or will
                return None
        targets = targets_of(detector) if isinstance(detector, Detector) else None
        if targets is None:
            return None
        return Coverage(_sample(table), targets, detector.detector.transform)


def untrained(model: Mapping[str, Any], dataset: Any) -> Detector | None:
    """Build a detector without reading weights, which its anchors do not depend on.

    Args:
        model: its config.
        dataset: the training dataset, which has the classes.

    Returns:
        The detector; None for a model of another package.

    Raises:
        UserError: it cannot be built.
    """
    kind = MODELS.get(model.get("type"))
    if not (inspect.isclass(kind) and issubclass(kind, Detector)):
        return None
    own, metainfo = copy.deepcopy(model), getattr(dataset, "metainfo", None) or {}
    if metainfo.get("classes"):
        fill_from_data(own, metainfo)
    with generators_kept(0), weights_skipped():
        return MODELS.build(own)


def _sample(table: BoxTable) -> BoxTable:
    """Return the boxes of randomly chosen images, about as many as are measured."""
    if len(table.boxes) <= _MOST:
        return table
    order = np.random.default_rng(0).permutation(len(table.files))
    count = np.searchsorted(np.cumsum(table.counts[order]), _MOST)
    return table.of_images(np.sort(order[: count + 1]))


def coverage_notes(coverage: Coverage | None) -> list[str]:
    """Return a sentence if many boxes have no anchor, with settings that improve this."""
    if coverage is None or len(coverage.covered) < FEW or coverage.is_enough:
        return []
    missing = ~coverage.covered
    poor = coverage.poor_classes
    names = ", ".join(f"{100 * (1 - share):.0f}% of {name}" for name, _, share in poor[:3])
    names += ", ..." if len(poor) > 3 else ""
    low, high = np.percentile(coverage.sides[missing], [10, 90])
    remedy = "; or ".join(map(str, advise(coverage)))
    remedy = f"; {remedy}" if remedy else ", and other anchors do not change this much"
    return [
        f"{missing.sum()} of {len(missing)} training boxes ({100 * missing.mean():.0f}%"
        f"{f'; {names}' if names else ''}) have {_lacking(coverage)} in images of "
        f"{_size_text(coverage.transform)} px, so the detector can hardly learn them. Most of "
        f"them have a side of {low:.0f} to {high:.0f} px{remedy}"
    ]


def _lacking(coverage: Coverage) -> str:
    if isinstance(coverage.targets, Locations):
        return "no location to learn them from"
    return f"no anchor with an IoU of at least {coverage.targets.threshold:g}"


def _size_text(transform: GeneralizedRCNNTransform) -> str:
    return " or ".join(f"{size:g}" for size in transform.min_size)


def advise(coverage: Coverage, scales: Sequence[float] = _ENLARGED) -> list[Advice]:
    """Return settings with which clearly more boxes have an anchor: at most two.

    The sizes are scaled together, or fitted to the boxes if that is clearly better. If neither is
    enough at the present size of the images, the second advice has larger ones.

    Args:
        coverage: that of the present settings.
        scales: factors of the image size, in the order in which they are tried.
    """
    few = replace(coverage, table=_subset(coverage.table, _TRIED))
    chosen: dict[bool, tuple[Targets, float]] = {}
    allowed = _BETTER * (1 - _score(few, few.targets, 1.0))  # what may be left without an anchor
    for scale in scales if coverage.transform.fixed_size is None else (1.0,):
        targets, score = best_targets(few, scale)
        if 1 - score <= allowed:
            chosen[scale > 1], allowed = (targets, scale), _BETTER * (1 - score)
        if score >= ENOUGH:
            break
    return [_advice(coverage, *each) for each in chosen.values()]


def _advice(coverage: Coverage, targets: Targets, scale: float) -> Advice:
    covered = coverage.with_targets(targets, scale)
    name = min(coverage.by_class(), key=lambda each: (each[1] < FEW, each[2]))[0]
    own = coverage.table.labels == coverage.table.classes.index(name)
    return Advice(
        _options(targets, coverage.transform, scale),
        float(covered.mean()),
        (name, float(covered[own].mean())),
        scale,
    )


def _subset(table: BoxTable, most: int) -> BoxTable:
    if len(table.boxes) <= most:
        return table
    rows = np.sort(np.random.default_rng(0).choice(len(table.boxes), most, replace=False))
    return table._replace(
        images=table.images[rows], boxes=table.boxes[rows], labels=table.labels[rows]
    )


def best_targets(coverage: Coverage, scale: float) -> tuple[Targets, float]:
    """Return the best scaled targets, or fitted ones if they are clearly better."""
    factors = sorted({1.0, scale, *_FACTORS}, key=lambda factor: abs(np.log(factor / scale)))
    scaled = [coverage.targets.scaled(factor) for factor in factors]
    scores = [_score(coverage, each, scale) for each in scaled]
    best = int(np.argmax(scores))
    fitted = [
        (_score(coverage, each, scale), each) for each in _fitted(coverage, scaled[best], scale)
    ]
    if fitted and max(fitted, key=lambda each: each[0])[0] > scores[best] + _SIMPLER:
        return max(fitted, key=lambda each: each[0])[::-1]
    return scaled[best], scores[best]


def _score(coverage: Coverage, targets: Targets, scale: float) -> float:
    """Return the share of boxes with an anchor, averaged with the mean share of the classes."""
    covered = coverage.with_targets(targets, scale)
    return float((_weights(coverage.table.labels) * covered).sum())


def _fitted(coverage: Coverage, targets: Targets, scale: float) -> Iterator[Targets]:
    """Yield as many anchors of the sizes that cover most boxes, with their ratios or the boxes'.

    The sizes are chosen one after the other, each for the level on which it covers most further
    boxes. Clusters of the boxes' sizes (k-means) are worse: the distance of the positions of a
    level limits the boxes that its anchors can cover.
    """
    if not isinstance(targets, Anchors):
        return
    boxes, padded = coverage.resized(scale)
    weights = _weights(coverage.table.labels)
    sides = np.log((boxes[:, 2:] - boxes[:, :2]).clip(min=1))
    count = len(targets.ratios[0])
    own = np.exp(np.quantile(sides[:, 1] - sides[:, 0], (np.arange(count) + 0.5) / count))
    ratios = tuple(float(f"{ratio:.2g}") for ratio in own)
    for every in (targets.ratios, (ratios,) * len(targets.ratios)):
        base = replace(targets, ratios=every)
        yield replace(base, sizes=_chosen_sizes(base, boxes, padded, weights))


def _weights(labels: np.ndarray) -> np.ndarray:
    """Return weights of the boxes, with which a mean is that of all boxes and of the classes."""
    counts = np.bincount(labels)
    return (1 / len(labels) + 1 / (np.count_nonzero(counts) * counts[labels])) / 2


def _chosen_sizes(
    base: Anchors, boxes: np.ndarray, padded: np.ndarray, weights: np.ndarray
) -> tuple[tuple[float, ...], ...]:
    iou: dict[tuple[int, int], np.ndarray] = {}
    for level, stride in enumerate(base.strides):
        for size in sorted({round(stride * 2 ** (step / 3)) for step in range(-1, 13)}):
            one = replace(
                base, sizes=((size,),), ratios=base.ratios[level : level + 1], strides=(stride,)
            )
            iou[level, size] = one.best_iou(boxes, padded)
    chosen: list[list[float]] = [[] for _ in base.strides]
    best = np.zeros(len(boxes))
    for _ in range(sum(map(len, base.sizes))):
        value = {
            (level, size): (weights * _value(np.maximum(best, own), base.threshold)).sum()
            for (level, size), own in iou.items()
            if len(chosen[level]) < len(base.sizes[level]) and size not in chosen[level]
        }
        level, size = max(value, key=lambda key: value[key])
        chosen[level].append(size)
        best = np.maximum(best, iou[level, size])
    return tuple(tuple(sorted(level)) for level in chosen)


def _value(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Return the value of the best anchor of a box: first that it is positive, then its IoU."""
    return (iou >= threshold) + 0.2 * iou


def _options(targets: Targets, transform: GeneralizedRCNNTransform, scale: float) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if scale != 1:
        sizes = [round(scale * size) for size in transform.min_size]
        options["model.min_size"] = sizes if len(sizes) > 1 else sizes[0]
        options["model.max_size"] = round(scale * transform.max_size)
    if isinstance(targets, Locations):
        return {**options, "model.anchor_sizes": list(map(round, targets.sizes))}
    options["model.anchors.sizes"] = [list(map(round, level)) for level in targets.sizes]
    same = len(set(targets.ratios)) == 1
    options["model.anchors.aspect_ratios"] = (
        list(targets.ratios[0]) if same else [list(level) for level in targets.ratios]
    )
    return options
