"""Boxes of masks in COCO's run-length encoding, compressed or not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask

_LARGEST = 2**31  # pixels of a mask


def rle_box(segmentation: Mapping[str, Any]) -> list[float]:
    """Return the enclosing box of a mask: x, y, width, height, pixels.

    Args:
        segmentation: ``size``, height and width, and ``counts``: the lengths of the runs of 0 and 1
            in column order, as a list or as COCO's compressed text.

    Raises:
        ValueError: it is no such mask; pycocotools does not check this, and computes a wrong box.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    sides = size if isinstance(size, list) else []
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"its 'size' must be [height, width], got {size!r:.80}")
    if sides[0] * sides[1] >= _LARGEST:
        raise ValueError(f"its 'size' {size!r:.80} is too large")
    compressed = isinstance(counts, str)
    runs = _decompressed(counts) if compressed else _listed(counts)
    if (runs < 0).any() or runs.sum() != sides[0] * sides[1]:
        raise ValueError(
            f"its runs must be at least 0 and cover all {sides[0] * sides[1]} pixels of its 'size' "
            f"{size}, but their sum is {runs.sum()}"
        )
    rle = dict(size=sides, counts=counts)
    encoded = rle if compressed else mask.frPyObjects(rle, *sides)
    return mask.toBbox(encoded).tolist()


def _listed(counts: Any) -> np.ndarray:
    whole = isinstance(counts, list) and all(
        type(run) is int and abs(run) < _LARGEST for run in counts
    )
    if not whole or not counts:
        raise ValueError(f"its 'counts' must be whole numbers or COCO's text, got {counts!r:.80}")
    return np.array(counts, dtype=np.int64)


def _decompressed(text: str) -> np.ndarray:
    """Return the runs of COCO's compressed text.

    A number is a sequence of characters with 5 bits each, the lowest first; bit 5 says that more
    follow, bit 4 of the last one is the sign. From the fourth number on, each is the difference to
    the run before the previous one.
    """
    digits = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError(f"its 'counts' is not COCO's compressed text: {text!r:.80}")
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    if lengths.max() > 7:  # more bits than the pixels of the largest mask need
        raise ValueError(f"its 'counts' has a number of more than 31 bits: {text!r:.80}")
    place = np.arange(len(digits)) - np.repeat(begins, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), begins)
    runs -= np.where(digits[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
