"""Numbers from a run's history: curves, and the step at which a level is reached."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Values along a run.

    Attributes:
        step: ``[N]`` finished steps, ascending.
        seconds: ``[N]`` seconds of training until then, evaluations not counted; NaN if unknown.
        value: ``[N]``, all finite.
    """

    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray


def evaluations(history: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """Return a metric along a run; evaluations where it is unknown are left out."""
    return _curve(history, "val", "metrics", metric)


def losses(history: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """Return a loss along a run; steps where it was not finite are left out."""
    return _curve(history, "train", "losses", name)


def loss_names(histories: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the names of all losses, the total ``"loss"`` first, others as they come."""
    names: dict[str, None] = {}
    for history in histories:
        for entry in history:
            if entry.get("kind") == "train":
                names.update(dict.fromkeys(entry.get("losses") or {}))
    return sorted(names, key=lambda name: name != "loss")


def reach(curve: Curve, level: float) -> tuple[float, float] | None:
    """Return the steps and seconds at which a curve first is at ``level``.

    Between two evaluations the value is taken to be linear, before the first one to rise from 0
    at step 0.

    Returns:
        (steps, seconds), or None if the level is not reached.
    """
    above = np.flatnonzero(curve.value >= level)
    if level <= 0 or not len(above):
        return None
    step, seconds, value = (np.concatenate([[0.0], part]) for part in curve)
    last = above[0] + 1  # the first one above, behind the 0 in front
    part = (level - value[last - 1]) / (value[last] - value[last - 1])
    return tuple(
        float(axis[last - 1] + part * (axis[last] - axis[last - 1])) for axis in (step, seconds)
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean over runs at the steps that all of them have."""
    if not curves:
        return Curve(*np.empty((3, 0)))
    steps = curves[0].step
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.step)
    rows = [np.searchsorted(curve.step, steps) for curve in curves]
    seconds = np.mean([c.seconds[r] for c, r in zip(curves, rows, strict=True)], axis=0)
    values = np.mean([c.value[r] for c, r in zip(curves, rows, strict=True)], axis=0)
    return Curve(steps, seconds, values)


def _curve(history: Sequence[Mapping[str, Any]], kind: str, field: str, name: str) -> Curve:
    rows: dict[float, tuple[float, float]] = {}
    for entry in history:
        value = (entry.get(field) or {}).get(name) if entry.get("kind") == kind else None
        if value is not None and np.isfinite(value):
            seconds = entry.get("seconds")
            rows[float(entry["step"])] = (np.nan if seconds is None else seconds, value)
    steps = sorted(rows)
    table = np.array([(step, *rows[step]) for step in steps], float).reshape(-1, 3)
    return Curve(*table.T)
