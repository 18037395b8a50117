"""The cases of a simulation: anchors, targets, and how a box follows the gradient of its loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from det_losses.errors import InputError

_RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
_SMALLEST_SIDE = 1e-3  # of a box, in sides of a square target

# (boxes, gradient, IoU, step from 1, number of all cases) -> boxes; boxes and gradient are [4, N]
Update = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Protocol:
    """A published simulation.

    A case is an anchor at one of the points, with one of the areas and aspect ratios, and a target
    with one of the aspect ratios at the centre.

    Attributes:
        source: the paper or code that describes it.
        center: centre of all targets.
        radius: of the disc of points.
        crowding: 0: the points are uniform in the disc; otherwise their radius is ``log(1 + u
            (exp(crowding) - 1)) / crowding`` of the disc's, for a uniform u.
        target_area: area of the targets.
        anchor_areas: areas of the anchors.
        ratios: width divided by height, of targets and of anchors.
        points: number of points.
        steps: number of steps.
        image_size: width and height of the image, for losses that depend on it.
        new_update: makes the function that moves the boxes; it may have a state.
    """

    source: str
    center: tuple[float, float]
    radius: float
    crowding: float
    target_area: float
    anchor_areas: tuple[float, ...]
    steps: int
    image_size: tuple[float, float]
    new_update: Callable[[], Update]
    ratios: tuple[float, ...] = _RATIOS
    points: int = 5000

    @property
    def strata(self) -> int:
        """Number of combinations of target, anchor area and anchor ratio."""
        return len(self.anchor_areas) * len(self.ratios) ** 2

    @property
    def cases(self) -> int:
        """Number of all cases."""
        return self.points * self.strata

    @property
    def smallest_side(self) -> float:
        """Sides of boxes are clamped at this length, so that they stay positive."""
        return _SMALLEST_SIDE * math.sqrt(self.target_area)

    def point_positions(self, seed: int) -> np.ndarray:
        """Return the points, ``[points, 2]``; a larger disc has the same points, scaled."""
        u, angle = np.random.default_rng(seed).random((2, self.points))
        if self.crowding:
            radius = np.log1p(u * math.expm1(self.crowding)) / self.crowding
        else:
            radius = np.sqrt(u)
        angle = 2 * math.pi * angle
        offsets = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        return np.asarray(self.center) + self.radius * offsets

    def draw(self, cases: int | None, seed: int) -> np.ndarray:
        """Return the numbers of all cases, or of a stratified sample, in random order.

        Case ``i`` is point ``i // strata`` in combination ``i % strata``. A sample has an equal
        number of points, at least 2, in every combination; so its size is rounded.

        Raises:
            InputError: fewer cases than two per combination, or more than there are.
        """
        rng = np.random.default_rng((seed, 1))
        if cases is None or cases == self.cases:
            return rng.permutation(self.cases)
        if not 2 * self.strata <= cases <= self.cases:
            raise InputError(
                f"the number of cases must be from {2 * self.strata} (two for each combination of "
                f"target and anchor shape) to {self.cases}, got {cases}"
            )
        per_stratum = round(cases / self.strata)
        chosen = [
            rng.choice(self.points, per_stratum, replace=False) * self.strata + stratum
            for stratum in range(self.strata)
        ]
        return rng.permutation(np.concatenate(chosen))

    def boxes(self, cases: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return anchors and targets of the numbered cases, each ``[4, N]``: x, y, w, h."""
        point, combination = np.divmod(cases, self.strata)
        target, anchor = np.divmod(combination, len(self.anchor_areas) * len(self.ratios))
        area, ratio = np.divmod(anchor, len(self.ratios))
        ratios, areas = np.asarray(self.ratios), np.asarray(self.anchor_areas)
        x, y = np.broadcast_to(np.asarray(self.center)[:, None], (2, len(cases)))
        return (
            np.stack([*positions[point].T, *_sides(areas[area], ratios[ratio])]),
            np.stack([x, y, *_sides(np.asarray(self.target_area), ratios[target])]),
        )


def _sides(area: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sqrt(area * ratio), np.sqrt(area / ratio)


def _diou_update() -> Update:
    """Gradient descent with step size eta (2 - IoU); eta falls at steps 160 and 180."""

    def update(boxes: Tensor, gradient: Tensor, iou: Tensor, step: int, total: int) -> Tensor:
        eta = 0.1 if step <= 160 else 0.01 if step <= 180 else 0.001
        return boxes - eta * (2 - iou) * gradient

    return update


def _adam_update(rate: float = 0.01, beta1: float = 0.9, beta2: float = 0.999) -> Update:
    """Adam on the corners of all boxes, for the mean of the loss over all cases."""
    mean, square = torch.zeros(()), torch.zeros(())

    def update(boxes: Tensor, gradient: Tensor, iou: Tensor, step: int, total: int) -> Tensor:
        nonlocal mean, square
        # x1 = x - w / 2 and x2 = x + w / 2, so d/dx1 = d/dx / 2 - d/dw
        half, side = gradient[:2] / 2, gradient[2:]
        corners = torch.cat([half - side, half + side]) / total
        mean = beta1 * mean.to(corners) + (1 - beta1) * corners
        square = beta2 * square.to(corners) + (1 - beta2) * corners**2
        scale = (square / (1 - beta2**step)).sqrt() + 1e-8
        first, second = (rate / (1 - beta1**step) * mean / scale).split(2)
        return boxes - torch.cat([(first + second) / 2, second - first])

    return update


PROTOCOLS = {
    "diou": Protocol(
        source="Zheng et al., Distance-IoU Loss, arXiv 1911.08287, 2019",
        center=(10.0, 10.0),
        radius=3.0,
        crowding=0.0,
        target_area=1.0,
        anchor_areas=(0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0),
        steps=200,
        image_size=(20.0, 20.0),
        new_update=_diou_update,
    ),
    "wise-iou": Protocol(
        source="Tong et al., Wise-IoU, arXiv 2301.10051, 2023: code of the authors, branch v1",
        center=(0.5, 0.5),
        radius=0.5,
        crowding=3.0,
        target_area=1 / 32,
        anchor_areas=(1 / 32, 1 / 24, 3 / 64, 1 / 16, 1 / 12, 3 / 32, 1 / 8),
        steps=120,
        image_size=(1.0, 1.0),
        new_update=_adam_update,
    ),
}
