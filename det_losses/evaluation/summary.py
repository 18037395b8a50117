"""From precision and recall arrays to the numbers that COCO reports."""

from collections.abc import Sequence

import numpy as np

from det_losses.evaluation.backends import AREAS, IOU_THRESHOLDS, Curves

_SIZES = {"s": "small", "m": "medium", "l": "large"}


def coco_numbers(curves: Curves, names: Sequence[str], max_dets: Sequence[int]) -> dict[str, float]:
    """Compute COCO's twelve numbers, AP80, AP90 and the AP of each class.

    What has no ground truth is NaN, and takes part in no mean.

    Args:
        curves: the arrays of one evaluation.
        names: class names in the order of the arrays' K axis.
        max_dets: detections per image and class, in the order of the arrays' M axis.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``AP80``, ``AP90``, ``APs``, ``APm``, ``APl``, ``AR<n>`` for
        each n of ``max_dets``, ``ARs``, ``ARm``, ``ARl``, and ``AP/<class name>``.
    """
    area = {name: index for index, name in enumerate(AREAS)}
    precision, recall = curves.precision[..., -1], curves.recall[..., -1]
    numbers = {"AP": _mean(precision[..., area["all"]])}
    for threshold in (0.5, 0.75, 0.8, 0.9):
        at = precision[IOU_THRESHOLDS.index(threshold), ..., area["all"]]
        numbers[f"AP{round(100 * threshold)}"] = _mean(at)
    for letter, size in _SIZES.items():
        numbers[f"AP{letter}"] = _mean(precision[..., area[size]])
    for index, count in enumerate(max_dets):
        numbers[f"AR{count}"] = _mean(curves.recall[..., area["all"], index])
    for letter, size in _SIZES.items():
        numbers[f"AR{letter}"] = _mean(recall[..., area[size]])
    for index, name in enumerate(names):
        numbers[f"AP/{name}"] = _mean(precision[:, :, index, area["all"]])
    return numbers


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
