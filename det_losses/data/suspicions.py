"""What looks wrong in a data set, or in training and validation data together, by statistics.

A suspicion is not an error. The thresholds are such that COCO, the built-in shapes and random
splits of one data set raise none.
"""

import os

import numpy as np

from det_losses.data.box_faults import such
from det_losses.data.box_table import BoxTable
from det_losses.errors import agreed, counted, examples

UNTRAINED = "validation boxes are of classes without a training box"

_FEW_BOXES, _FEW_IMAGES = 30, 20  # with fewer, a share is no sign
_LONG, _LONG_SHARE = 12.0, 0.05  # longer side by shorter side, and the share of such boxes
_IDENTICAL_SHARE = 0.2  # of the images with boxes that have the same box
_WHOLE, _WHOLE_SHARE = 0.98, 0.5  # of the image that a box covers, and the share of such boxes
_EMPTY_SHARE = 0.2  # of images without a box
_DOMINANT_SHARE = 0.98  # of boxes of one class
_CORNER = 0.6  # of width and height, within which all boxes are
_Z, _RATIO, _SHIFT = 5.0, 1.5, 0.15  # standard errors, ratio of sizes, difference of shares


def suspect_set(table: BoxTable | None) -> list[str]:
    """Return a sentence with count, examples and remedy for each suspicion about one data set."""
    if table is None or not len(table.boxes):
        return []
    found: list[str | None] = []
    if len(table.boxes) >= _FEW_BOXES:
        found += [_long(table), _same_place(table), _whole_image(table), _corner(table)]
    if len(table.files) >= _FEW_IMAGES:
        found += [_empty(table), _everywhere(table), _dominant(table)]
    return [sentence for sentence in found if sentence]


def suspect_split(train: BoxTable | None, val: BoxTable | None) -> list[str]:
    """Return a sentence for each way in which training and validation data differ.

    Images are compared, not boxes, because the boxes of an image are alike.
    """
    if train is None or val is None or not len(train.boxes) or not len(val.boxes):
        return []
    found = [_untrained_classes(train, val)]
    if min(len(train.files), len(val.files)) >= _FEW_IMAGES:
        found += [_image_sizes(train, val), _box_sizes(train, val), _class_shares(train, val)]
    return [sentence for sentence in found if sentence]


def _names(table: BoxTable, rows: np.ndarray) -> str:
    return examples([os.path.basename(table.files[row]) for row in rows[:4].tolist()])


def _as_given(boxes: np.ndarray) -> str:
    """Return examples as x, y, width, height, the numbers of the json."""
    return such(np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]))


def _long(table: BoxTable) -> str | None:
    sides = table.sides
    rows = sides.max(axis=1) > _LONG * sides.min(axis=1)
    if rows.mean() <= _LONG_SHARE:
        return None
    return (
        f"{rows.sum()} of {len(rows)} boxes are more than {_LONG:.0f} times as long as wide"
        f"{_as_given(table.boxes[rows])}: look at them in the pictures of check_data. If they are "
        "right, give the anchors such aspect ratios"
    )


def _same_place(table: BoxTable) -> str | None:
    whole = _covers_image(table)
    boxes, images = table.boxes[~whole], table.images[~whole]
    if not len(boxes):
        return None
    places, which = np.unique(boxes.round(1), axis=0, return_inverse=True)
    pairs = np.unique(np.column_stack([which.ravel(), images]), axis=0)
    count = np.bincount(pairs[:, 0])
    most, with_boxes = int(count.argmax()), len(np.unique(table.images))
    if count[most] < _FEW_IMAGES // 2 or count[most] <= _IDENTICAL_SHARE * with_boxes:
        return None
    rows = pairs[pairs[:, 0] == most, 1]
    return (
        f"{count[most]} of {with_boxes} images have an identical box"
        f"{_as_given(places[most][None])} ({_names(table, rows)}): is it a default of the "
        "annotation tool? Remove it if nothing is there"
    )


def _covers_image(table: BoxTable) -> np.ndarray:
    return (table.sides >= _WHOLE * table.sizes[table.images]).all(axis=1)


def _whole_image(table: BoxTable) -> str | None:
    rows = _covers_image(table)
    if rows.mean() <= _WHOLE_SHARE:
        return None
    return (
        f"{rows.sum()} of {len(rows)} boxes cover their whole image "
        f"({_names(table, np.unique(table.images[rows]))}): are these labels of images, not of "
        "objects? A detector needs a box around each object"
    )


def _corner(table: BoxTable) -> str | None:
    reach = np.percentile(table.boxes[:, 2:] / table.sizes[table.images], 99, axis=0)
    if len(np.unique(table.images)) < _FEW_IMAGES or reach.max() >= _CORNER:
        return None
    return (
        f"99% of {len(table.boxes)} boxes are in the upper left {100 * reach[0]:.0f}% x "
        f"{100 * reach[1]:.0f}% of their image{_as_given(table.boxes)}: were they annotated on "
        "smaller images? If so, scale them"
    )


def _empty(table: BoxTable) -> str | None:
    rows = np.flatnonzero(table.counts == 0)
    if len(rows) <= _EMPTY_SHARE * len(table.files):
        return None
    return (
        f"{len(rows)} of {counted(len(table.files), 'image')} {agreed(len(rows), 'have')} no box "
        f"({_names(table, rows)}): objects in "
        "them count as background. If they were not annotated, leave them out"
    )


def _everywhere(table: BoxTable) -> str | None:
    share = table.has_class().mean(axis=0)
    if len(table.classes) < 2 or share.max() < 1:
        return None
    names = [table.classes[label] for label in np.flatnonzero(share == 1)]
    if len(names) == len(table.classes):
        return None
    return (
        f"all {len(table.files)} images have the class {', '.join(names[:3])}: is it a "
        "background or a whole picture? If so, --classes leaves it out"
    )


def _dominant(table: BoxTable) -> str | None:
    counts = np.bincount(table.labels, minlength=len(table.classes))
    most = int(counts.argmax())
    few = counts.sum() < _FEW_BOXES or np.count_nonzero(counts) < 2
    if few or counts[most] <= _DOMINANT_SHARE * counts.sum():
        return None
    return (
        f"{counts[most]} of {counts.sum()} boxes have the class {table.classes[most]}: were the "
        "labels of the others lost? A class with few boxes is hardly learned"
    )


def _untrained_classes(train: BoxTable, val: BoxTable) -> str | None:
    trained = {train.classes[label] for label in np.unique(train.labels)}
    labels, counts = np.unique(val.labels, return_counts=True)
    missing = [
        (val.classes[label], int(count))
        for label, count in zip(labels, counts, strict=True)
        if val.classes[label] not in trained
    ]
    if not missing:
        return None
    names = examples([name for name, _ in missing])
    return (
        f"{sum(count for _, count in missing)} of {len(val.boxes)} {UNTRAINED} ({names}), whose "
        "AP will be 0: divide the images anew, or compare the names of the classes"
    )


def _z_of_shares(first: float, second: float, n_first: int, n_second: int) -> float:
    """Return the difference of two shares in standard errors, if both were equal."""
    pooled = (first * n_first + second * n_second) / (n_first + n_second)
    error = np.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / n_first + 1 / n_second))
    return float((first - second) / error)


def _z_of_ranks(first: np.ndarray, second: np.ndarray) -> float:
    """Return Mann and Whitney's statistic in standard errors; ties have their mean rank."""
    _, inverse, counts = np.unique(
        np.concatenate([first, second]), return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()]
    n, m = len(first), len(second)
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = (counts**3.0 - counts).sum() / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0


def _differs(first: np.ndarray, second: np.ndarray) -> bool:
    ratio = np.median(first) / np.median(second)
    return max(ratio, 1 / ratio) > _RATIO and abs(_z_of_ranks(first, second)) > _Z


def _image_sizes(train: BoxTable, val: BoxTable) -> str | None:
    sides = [np.sqrt(table.sizes.prod(axis=1)) for table in (train, val)]
    if not _differs(*sides):
        return None
    middle = [" x ".join(f"{s:.0f}" for s in np.median(t.sizes, axis=0)) for t in (train, val)]
    return (
        f"training and validation images have different sizes (median {middle[0]} and "
        f"{middle[1]}, such as {_names(train, np.arange(1))} and {_names(val, np.arange(1))}): do "
        "they have the same origin? Divide one set at random, if they should"
    )


def _box_sizes(train: BoxTable, val: BoxTable) -> str | None:
    scales = []
    for table in (train, val):
        own = np.sqrt((table.sides / table.sizes[table.images]).prod(axis=1))
        order = np.lexsort([own, table.images])
        _, start, count = np.unique(table.images[order], return_index=True, return_counts=True)
        scales.append(own[order][start + count // 2])  # the middle box of each image
    if not _differs(*scales):
        return None
    first, second = (f"{100 * np.median(scale):.1f}%" for scale in scales)
    return (
        f"training and validation boxes have different sizes (median {first} and {second} of the "
        "side of their image): were both annotated in the same way, on the same kind of image?"
    )


def _class_shares(train: BoxTable, val: BoxTable) -> str | None:
    n, m = len(train.files), len(val.files)
    val_shares = dict(zip(val.classes, val.has_class().mean(axis=0).tolist(), strict=True))
    found = []
    for name, share in zip(train.classes, train.has_class().mean(axis=0).tolist(), strict=True):
        other = val_shares.get(name, 0.0)
        if abs(share - other) > _SHIFT and abs(_z_of_shares(share, other, n, m)) > _Z:
            found.append((abs(share - other), name, share, other))
    if not found:
        return None
    texts = [f"{name} {100 * a:.0f}% and {100 * b:.0f}%" for _, name, a, b in sorted(found)[::-1]]
    return (
        f"{len(texts)} classes are in different shares of the training and the validation images "
        f"({examples(texts)}): divide the images at random, or the metrics are those of "
        "another mixture"
    )
