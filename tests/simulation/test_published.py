"""The published gradients are numeric derivatives of losses with the described faults put in."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from det_losses.simulation.published import published_gradient

H = 1e-6


def boxes_and_targets(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of all kinds: disjoint in one or both directions, overlapping, one within the other."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(-1.5, 1.5, (2, n)), rng.uniform(0.3, 3, (2, n))])
    targets = np.concatenate([np.zeros((2, n)), rng.uniform(0.4, 2, (2, n))])
    return boxes, targets


def numeric(function: Callable[[np.ndarray], np.ndarray], boxes: np.ndarray) -> np.ndarray:
    steps = np.eye(4)[:, :, None] * H
    return np.stack([(function(boxes + s) - function(boxes - s)) / (2 * H) for s in steps])


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    return high - np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)


def hull(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    high = np.maximum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    return high - np.minimum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)


def union(a: np.ndarray, b: np.ndarray, intersection: np.ndarray) -> np.ndarray:
    return a[2] * a[3] + b[2] * b[3] - intersection


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    intersection = overlaps(a, b).clip(min=0).prod(0)
    return intersection / union(a, b, intersection)


def doubled(gradient: np.ndarray) -> np.ndarray:
    """Fault 1: derivatives by w and h without the factor 1/2."""
    return gradient * np.array([1, 1, 2, 2])[:, None]


def distance_gradient(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of rho^2 / c^2, with faults 3 to 5 put into numeric derivatives of the sides of the hull."""
    rho2 = ((boxes - targets)[:2] ** 2).sum(0)
    sides = hull(boxes, targets)
    c2 = (sides**2).sum(0)
    rates = numeric(
        lambda b: hull(b, targets).sum(0), boxes
    )  # by x, y, w, h: of the side that changes, the other has rate 0
    by_w_and_h = np.where(np.isclose(rates[2:], 1), -1.0, rates[2:])  # fault 5
    result = np.empty_like(boxes)
    for axis in (0, 1):
        along, other = sides[axis], sides[1 - axis]
        by_center = 2 * (along + other) * rates[axis]  # fault 4
        by_size = 2 * (along * by_w_and_h[axis] + other * rates[2 + axis])
        offset = (boxes - targets)[axis]
        result[axis] = (2 * offset * c2 + by_center * rho2) / c2**2  # fault 3: plus
        result[2 + axis] = -by_size * rho2 / c2**2
    return result


def aspect_gradient(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    def v(b: np.ndarray) -> np.ndarray:
        gap = np.arctan(targets[2] / targets[3]) - np.arctan(b[2] / b[3])
        return 4 / np.pi**2 * gap**2

    alpha = v(boxes) / (1 - iou(boxes, targets) + v(boxes))
    return alpha * numeric(v, boxes) * (boxes[2] ** 2 + boxes[3] ** 2)  # fault 6


def expected(name: str, boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    overlap = doubled(numeric(lambda b: 1 - iou(b, targets), boxes))
    if name == "GIoULoss":

        def hull_term(b: np.ndarray) -> np.ndarray:  # fault 2: signed overlaps
            signed = overlaps(b, targets).prod(0)
            return 1 - union(b, targets, signed) / hull(b, targets).prod(0)

        return overlap + doubled(numeric(hull_term, boxes))
    if name != "IoULoss":
        overlap = overlap + distance_gradient(boxes, targets)
    if name == "CIoULoss":
        overlap = overlap + aspect_gradient(boxes, targets)
    return overlap


@pytest.mark.parametrize("name", ["IoULoss", "GIoULoss", "DIoULoss", "CIoULoss"])
def test_published_gradients(name: str) -> None:
    boxes, targets = boxes_and_targets()
    found = published_gradient(name, torch.from_numpy(boxes), torch.from_numpy(targets))
    assert np.allclose(found.numpy(), expected(name, boxes, targets), rtol=1e-4, atol=1e-5)
