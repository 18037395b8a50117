"""The curves of losses: value and gradient against one quantity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from det_losses.losses.core.base import Loss
from det_losses.plots import probe

POINTS = 240  # of a curve: even, so that no point lies on a kink in the middle
QUALITIES = (0.3, 0.6, 0.9)
DISTANCE = 5.3  # the true distance in the curves of distribution losses, bins

Evaluate = Callable[[Loss, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Question:
    """One quantity that a loss is a function of, with the other quantities fixed.

    Attributes:
        title: what varies and what is fixed.
        x_label: the quantity, with its unit.
        x: its values, ``[N]``.
        limits: ends of the horizontal axis.
        points: the argument of ``evaluate`` at these values, ``[N, ...]``.
        evaluate: ``(loss, points) -> (value [N], gradient [N])``.
        gradient_label: with respect to what the gradient is.
        log2: whether x is a ratio, to be drawn on a logarithmic axis.
        disjoint_from: the smallest x at which the boxes do not overlap, if any.
    """

    title: str
    x_label: str
    x: Tensor
    limits: tuple[float, float]
    points: Tensor
    evaluate: Evaluate
    gradient_label: str
    log2: bool = False
    disjoint_from: float | None = None


@dataclass(frozen=True)
class Curve:
    """Value and gradient of one loss at the points of a question, each ``[N]``."""

    value: np.ndarray
    gradient: np.ndarray


def curves(question: Question, losses: Mapping[str, Loss]) -> dict[str, Curve]:
    """Return the curve of each loss."""
    found = {}
    for label, loss in losses.items():
        value, gradient = question.evaluate(loss, question.points)
        found[label] = Curve(value.numpy(), gradient.numpy())
    return found


def questions(kind: str) -> list[Question]:
    """Return the questions for a kind of loss (``probe.KINDS``)."""
    return _QUESTIONS[kind]()


def remarks(kind: str, losses: Mapping[str, Loss]) -> list[str]:
    """Return sentences about losses whose value is not a function of the row alone."""
    question = questions(kind)[0]
    stateful = [label for label, loss in losses.items() if probe.has_state(loss)]
    batch = [label for label, loss in losses.items() if _depends_on_batch(loss, question)]
    found = []
    if stateful:
        found.append(f"Running statistics as built, before training: {', '.join(stateful)}.")
    if batch:
        found.append(f"Weights depend on the batch, here all points shown: {', '.join(batch)}.")
    return found


def _depends_on_batch(loss: Loss, question: Question) -> bool:
    row = slice(POINTS // 3, POINTS // 3 + 1)
    together, _ = question.evaluate(loss, question.points)
    alone, _ = question.evaluate(loss, question.points[row])
    return not torch.allclose(together[row], alone, equal_nan=True)


def _delta() -> list[Question]:
    error = _between(-2.5, 2.5)
    return [
        Question(
            title="each coordinate",
            x_label="prediction - target",
            x=error,
            limits=(-2.5, 2.5),
            points=error[:, None].expand(-1, 4),
            evaluate=_mean_coordinate,
            gradient_label="gradient",
        )
    ]


def _mean_coordinate(loss: Loss, points: Tensor) -> tuple[Tensor, Tensor]:
    value, gradient = probe.boxes(loss, points)
    return value / 4, gradient.mean(1)


def _decoded() -> list[Question]:
    shift, offset = _between(0, 1), _between(0, 2)
    ratio = _between(-2, 2)  # of a logarithm to base 2
    log = ratio * np.log(2)
    zero = torch.zeros(POINTS, dtype=torch.float64)
    diagonal = torch.stack([shift, shift, zero, zero], 1)
    norm = dict(evaluate=_gradient_norm, gradient_label="gradient norm")
    target = torch.tensor(probe.TARGET, dtype=torch.float64).expand(POINTS, 4)
    iou = probe.box_pair(probe.decode(diagonal), target).iou
    return [
        Question("equal boxes, shifted along the diagonal", "IoU", iou, (1, 0), diagonal, **norm),
        Question(
            "equal boxes, shifted along x",
            "centre offset / target width",
            offset,
            (0, 2),
            torch.stack([offset, zero, zero, zero], 1),
            disjoint_from=1,
            **norm,
        ),
        Question(
            "same centre and aspect ratio, other scale",
            "side / target side",
            2**ratio,
            (0.25, 4),
            torch.stack([zero, zero, log, log], 1),
            log2=True,
            **norm,
        ),
        Question(
            "same centre and area, other aspect ratio",
            "aspect ratio / target's",
            2**ratio,
            (0.25, 4),
            torch.stack([zero, zero, log / 2, -log / 2], 1),
            log2=True,
            **norm,
        ),
    ]


def _gradient_norm(loss: Loss, points: Tensor) -> tuple[Tensor, Tensor]:
    value, gradient = probe.boxes(loss, points)
    return value, gradient.norm(dim=1)


def _sigmoid() -> list[Question]:
    return [
        _probability("positive: the label is this class", positive=True),
        _probability("negative: the label is the background", positive=False),
    ]


def _quality() -> list[Question]:
    positives = [_probability(f"positive, quality {q:g}", quality=q) for q in QUALITIES]
    return [*positives, _probability("negative: the label is the background", positive=False)]


def _softmax() -> list[Question]:
    return [_probability("the other classes are equally likely", "probability of the true class")]


def _probability(title: str, x_label: str = "predicted probability", **options) -> Question:
    p = _between(0, 1)
    return Question(
        title, x_label, p, (0, 1), p, partial(probe.probability, **options), "gradient in logit"
    )


def _distribution() -> list[Question]:
    error, spread = _between(-4, 4), _between(0.1, 4)
    norm = dict(evaluate=_distribution_at, gradient_label="gradient norm")
    fixed = torch.ones(POINTS, dtype=torch.float64)
    return [
        Question(
            "normal distribution with a spread of 1 bin",
            "centre - true distance, bins",
            error,
            (-4, 4),
            torch.stack([DISTANCE + error, fixed], 1),
            **norm,
        ),
        Question(
            "normal distribution around the true distance",
            "spread, bins",
            spread,
            (0, 4),
            torch.stack([DISTANCE * fixed, spread], 1),
            **norm,
        ),
    ]


def _distribution_at(loss: Loss, points: Tensor) -> tuple[Tensor, Tensor]:
    return probe.distribution(loss, points[:, 0], points[:, 1], DISTANCE)


def _between(low: float, high: float) -> Tensor:
    """Return the middles of ``POINTS`` equal intervals."""
    middles = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
    return low + (high - low) * middles


_QUESTIONS = {
    "delta": _delta,
    "decoded": _decoded,
    "sigmoid": _sigmoid,
    "quality": _quality,
    "softmax": _softmax,
    "distribution": _distribution,
}
