"""The evaluation as text, narrow enough for a terminal with 80 classes too."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from det_losses.evaluation.backends import AREAS

_WIDTH = 100  # characters of a line, without the logger's prefix


def count_boxes(
    annotations: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> dict[str, dict[str, int]]:
    """Count the boxes that can be found, so without crowds, by area and by class.

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
    """Lay out the numbers of :func:`~det_losses.evaluation.summary.coco_numbers`.

    Sizes and classes come with their count of boxes, and as ``n/a (0 boxes)`` where there is none.
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
    sizes = {"APs", "APm", "APl", "ARs", "ARm", "ARl"}
    return [key for key in numbers if "/" not in key and key not in sizes]


def _columns(numbers: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    cells = [
        (name, f"{_text(numbers[f'AP/{name}'])} ({count}{'' if count else ' boxes'})")
        for name, count in counts.items()
    ]
    name_width = max(len(name) for name, _ in cells)
    value_width = max(len(value) for _, value in cells)
    columns = max(1, _WIDTH // (name_width + value_width + 4))
    rows = math.ceil(len(cells) / columns)
    padded = [f"{name:{name_width}}  {value:{value_width}}" for name, value in cells]
    return ["  ".join(padded[row::rows]).rstrip() for row in range(rows)]


def _text(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
