"""The landscape of a box loss: value and gradient over two offsets of the predicted box."""

from dataclasses import dataclass

import numpy as np
import torch

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.plots import probe

CELLS = 40  # per axis. Middles of cells lie neither on the target nor on an edge of the overlap
PLANES = {"position": (0, 1), "size": (2, 3)}  # the offsets that vary; the others are 0
EXTENT = {"position": 2.0, "size": 2 * np.log(2)}  # in target sides; a ratio of 1/4 to 4
ZERO = 1e-6  # a gradient below this part of the largest one counts as zero


@dataclass(frozen=True)
class Landscape:
    """A loss over one plane of offsets; rows are the second offset, columns the first.

    Attributes:
        plane: a key of ``PLANES``.
        axis: the offsets at the middles of the cells, ``[CELLS]``, the same for both axes.
        value: ``[CELLS, CELLS]``.
        gradient: with respect to both offsets, ``[CELLS, CELLS, 2]``.
        zero: where the gradient vanishes, bool ``[CELLS, CELLS]``.
        away: where a step of gradient descent moves away from the target, bool.
    """

    plane: str
    axis: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    zero: np.ndarray
    away: np.ndarray

    def counts(self) -> str:
        """Return the numbers of marked cells as text."""
        strange = (~np.isfinite(self.gradient)).any(2).sum()
        return (
            f"{self.plane}: of {self.zero.size} cells, the gradient is zero in {self.zero.sum()}, "
            f"and descent moves away from the target in {self.away.sum()}"
        ) + (f"; not finite in {strange}" if strange else "")


def landscape(loss: Loss, plane: str) -> Landscape:
    """Compute the landscape of a box loss.

    Raises:
        InputError: not a box loss.
    """
    if loss.kind != "box":
        raise InputError(f"{type(loss).__name__} is not a box loss: it has no landscape")
    half = EXTENT[plane]
    axis = half * ((torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS * 2 - 1)
    second, first = torch.meshgrid(axis, axis, indexing="ij")
    offsets = torch.zeros(CELLS * CELLS, 4, dtype=torch.float64)
    columns = list(PLANES[plane])
    offsets[:, columns] = torch.stack([first.flatten(), second.flatten()], 1)
    value, gradient = probe.boxes(loss, offsets)
    gradient = gradient[:, columns]
    norm = gradient.norm(dim=1)  # comparisons with NaN are false
    zero = norm <= ZERO * norm.nan_to_num(0.0).max()
    # The descent direction is -gradient, and the direction to the target -offset.
    away = ~zero & ((gradient * offsets[:, columns]).sum(1) < 0)
    shape = (CELLS, CELLS)
    return Landscape(
        plane,
        axis.numpy(),
        value.reshape(shape).numpy(),
        gradient.reshape(*shape, 2).numpy(),
        zero.reshape(shape).numpy(),
        away.reshape(shape).numpy(),
    )
