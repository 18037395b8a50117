"""COCO's summary metrics as a dict and as a text table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from det_losses.errors import printable
from det_losses.evaluation.backends import Curves
from det_losses.evaluation.metrics import AREAS, LOGGED_METRICS, SIZE_METRICS, THRESHOLD_METRICS

_WIDTH = 100  # characters of a line, without the logger's prefix


def ap_numbers(ap: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute the METRICS and the AP of each class of one or several evaluations.

    Args:
        ap: ``[..., T, K, A]``, NaN where the ground truth has no box.
        names: the K class names.

    Returns:
        ``[...]`` for each of METRICS, the mean over classes (and thresholds) with boxes, NaN if
        there are none; then for ``AP/<class name>``.
    """
    area = {name: index for index, name in enumerate(AREAS)}
    numbers = {"AP": _mean(ap[..., area["all"]], (-2, -1))}
    for index, name in enumerate(THRESHOLD_METRICS):
        numbers[name] = _mean(ap[..., index, :, area["all"]], -1)
    for name, size in SIZE_METRICS.items():
        numbers[name] = _mean(ap[..., area[size]], (-2, -1))
    by_class = np.moveaxis(ap[..., area["all"]].mean(axis=-2), -1, 0)
    return numbers | {f"AP/{name}": value for name, value in zip(names, by_class, strict=True)}


def coco_numbers(curves: Curves, names: Sequence[str], max_dets: Sequence[int]) -> dict[str, float]:
    """Compute COCO's twelve metrics, AP80, AP90 and the AP of each class.

    Values without ground truth are NaN and excluded from means.

    Args:
        curves: the arrays of one evaluation.
        names: class names in the order of the arrays' K axis.
        max_dets: detections per image and class, in the order of the arrays' M axis.

    Returns:
        LOGGED_METRICS, ``AR<n>`` for each n of ``max_dets``, ``ARs``, ``ARm``, ``ARl``, and
        ``AP/<class name>``.
    """
    precision = curves.precision[..., -1]
    found = ap_numbers(np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1)), names)
    recall = np.where(curves.recall < 0, np.nan, curves.recall)
    area = {name: index for index, name in enumerate(AREAS)}
    recalls = {f"AR{n}": _mean(recall[:, :, area["all"], m]) for m, n in enumerate(max_dets)}
    for size in SIZE_METRICS.values():
        recalls[f"AR{size[0]}"] = _mean(recall[:, :, area[size], -1])
    classes = {f"AP/{name}": found[f"AP/{name}"] for name in names}
    numbers = {name: found[name] for name in LOGGED_METRICS} | recalls | classes
    return {name: float(value) for name, value in numbers.items()}


def metric_names(names: Sequence[str], max_dets: Sequence[int]) -> list[str]:
    """Return the keys of :func:`coco_numbers`, in order.

    Args:
        names: class names.
        max_dets: detections per image and class.
    """
    recalls = [*(f"AR{n}" for n in max_dets), *(f"AR{size[0]}" for size in SIZE_METRICS.values())]
    return [*LOGGED_METRICS, *recalls, *(f"AP/{name}" for name in names)]


def _mean(values: np.ndarray, axes: int | tuple[int, ...] | None = None) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(axes)
    total = np.where(known, values, 0.0).sum(axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def count_boxes(
    annotations: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> dict[str, dict[str, int]]:
    """Count boxes by area and by class, crowds excluded.

    Args:
        annotations: COCO annotations.
        names: class name of each category id.

    Returns:
        ``{"areas": {"all": n, "small": n, ...}, "classes": {name: n, ...}}``.
    """
    boxes = [annotation for annotation in annotations if not annotation["iscrowd"]]
    by_class = Counter(names[box["category_id"]] for box in boxes)
    return {
        "areas": {
            area: sum(low <= box["area"] <= high for box in boxes)
            for area, (low, high) in AREAS.items()
        },
        "classes": {name: by_class[name] for name in names.values()},
    }


def format_table(
    numbers: Mapping[str, float], counts: Mapping[str, Mapping[str, int]], title: str
) -> str:
    """Format the numbers of :func:`coco_numbers` in columns that fit a terminal.

    The numbers are shown from 0 to 100, and sizes and classes with their number of boxes, or as
    ``n/a (0 boxes)`` without any.
    """
    best_recall = [key for key in numbers if key.startswith("AR") and key[2:].isdigit()][-1]
    lines = [title, "  ".join(f"{k} {_text(numbers[k])}" for k in _headline(numbers))]
    lines.append(f"{'size':8}{'boxes':>8}{'AP':>8}{best_recall:>8}")
    for area, count in counts["areas"].items():
        suffix = "" if area == "all" else area[0]
        recall = numbers[best_recall] if area == "all" else numbers[f"AR{suffix}"]
        values = f"{_text(numbers[f'AP{suffix}']):>8}{_text(recall):>8}"
        lines.append(f"{area:8}{count:>8}{values}")
    lines.append("AP of each class (boxes)")
    return "\n".join([*lines, *_columns(numbers, counts["classes"])])


def _headline(numbers: Mapping[str, float]) -> list[str]:
    sizes = {*SIZE_METRICS, "ARs", "ARm", "ARl"}
    return [key for key in numbers if "/" not in key and key not in sizes]


def _columns(numbers: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    cells = [
        (_label(name), f"{_text(numbers[f'AP/{name}'])} ({count}{'' if count else ' boxes'})")
        for name, count in counts.items()
    ]
    name_width = max(len(name) for name, _ in cells)
    value_width = max(len(value) for _, value in cells)
    columns = max(1, _WIDTH // (name_width + value_width + 4))
    rows = math.ceil(len(cells) / columns)
    padded = [f"{name:{name_width}}  {value:{value_width}}" for name, value in cells]
    return ["  ".join(padded[row::rows]).rstrip() for row in range(rows)]


def _label(name: str) -> str:
    return " ".join(printable(name).split())


def _text(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"
