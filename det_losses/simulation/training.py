"""Simulation error against the AP of a finished comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, t

from det_losses.errors import InputError, MissingFileError
from det_losses.files import RESULTS_FILE, read_whole_json
from det_losses.losses import build_loss
from det_losses.losses.core.text import loss_text
from det_losses.simulation.figures import log_axis, saved, spread
from det_losses.simulation.run import Result

_EXACT = 8  # up to this number of losses, all permutations are tried
_DRAWS = 10_000


@dataclass(frozen=True)
class Trained:
    """A variant of a comparison.

    Attributes:
        variant: its label.
        loss: text of its box loss, with weight 1.
        ap: mean of the comparison's metric over the seeds, 0 to 100.
        half_width: of its 95% interval over seeds; the variance is pooled over the variants.
    """

    variant: str
    loss: str
    ap: float
    half_width: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of simulation error and AP.

    Attributes:
        rho: the correlation; negative if losses with a small error have a high AP.
        low: lower end of a 95% bootstrap interval over the losses.
        high: its upper end.
        p: two-sided permutation p-value.
        n: number of losses.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int


def read_comparison(folder: Path) -> tuple[list[Trained], str]:
    """Return the finished variants of a comparison that differ in their box loss, and the metric.

    Raises:
        MissingFileError: the directory has no results.json.
        InputError: fewer than two variants with a box loss have finished runs.
    """
    stored = read_whole_json(folder / RESULTS_FILE)
    if stored is None:
        raise MissingFileError(f"--comparison {folder}: no {RESULTS_FILE} that can be read there")
    metric = stored["meta"]["metric"]
    scores: dict[str, list[float]] = {}
    for run in stored["runs"]:
        if run["status"] == "done" and run["metrics"].get(metric) is not None:
            scores.setdefault(run["variant"], []).append(100 * run["metrics"][metric])
    losses = {
        label: loss
        for label, variant in stored["meta"]["variants"].items()
        if label in scores and (loss := _box_loss(variant["changes"]))
    }
    if len(losses) < 2:
        raise InputError(f"--comparison {folder}: fewer than two finished variants with a box loss")
    degrees = sum(len(scores[label]) - 1 for label in losses)
    squares = sum(np.var(scores[label]) * len(scores[label]) for label in losses)
    spread = math.sqrt(squares / degrees) * t.ppf(0.975, degrees) if degrees else math.nan
    return [
        Trained(label, loss, float(np.mean(scores[label])), spread / math.sqrt(len(scores[label])))
        for label, loss in losses.items()
    ], metric


def _box_loss(changes: Mapping[str, Any]) -> str | None:
    for config in changes.values():
        if isinstance(config, Mapping) and "type" in config:
            weightless = {key: value for key, value in config.items() if key != "loss_weight"}
            if getattr(build_loss(weightless), "kind", None) == "box":
                return loss_text(weightless)
    return None


def rank_correlation(errors: Sequence[float], scores: Sequence[float]) -> RankCorrelation:
    """Return Spearman's correlation with a bootstrap interval and a permutation test."""
    rng = np.random.default_rng(0)
    errors, scores, n = np.asarray(errors), np.asarray(scores), len(errors)
    rho = _spearman(errors, scores)
    if n <= _EXACT:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.array([rng.permutation(n) for _ in range(_DRAWS)])
    centred = rankdata(scores) - (n + 1) / 2
    products = centred[orders] @ (rankdata(errors) - (n + 1) / 2)
    observed = float(centred @ (rankdata(errors) - (n + 1) / 2))
    p = float(np.mean(np.abs(products) >= abs(observed) - 1e-9))
    resampled = [
        _spearman(errors[chosen], scores[chosen]) for chosen in rng.integers(0, n, (2000, n))
    ]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return RankCorrelation(rho, float(low), float(high), p, n)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    x, y = rankdata(x), rankdata(y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def conclusion(found: RankCorrelation, step: int, metric: str) -> str:
    """Return the correlation and what follows from it, in two sentences."""
    text = (
        f"Error at step {step} against {metric}: rank correlation {found.rho:+.2f} (95% interval "
        f"{found.low:+.2f} to {found.high:+.2f}; permutation p = {found.p:.3f}; {found.n} losses). "
    )
    smallest = 2 / math.factorial(found.n)
    if smallest > 0.05:
        return text + (
            f"{found.n} losses cannot answer the question: even a perfect order has p = "
            f"{smallest:.2f}."
        )
    if found.p > 0.05:
        return text + "The simulation does not predict the order of the losses here."
    if found.rho > 0:
        return text + "Losses that are faster in the simulation train to a lower score here."
    return text + "Losses that are faster in the simulation train to a higher score here."


def scatter(
    results: Sequence[Result],
    trained: Sequence[Trained],
    steps: Sequence[int],
    metric: str,
    path: Path,
) -> None:
    """Draw AP against the simulation error at two steps, with labels and 95% intervals."""
    with saved(path, 640, 330) as figure:
        for axes, step in zip(figure.subplots(1, len(steps), sharey=True), steps, strict=True):
            errors = [each.error[step] / 1e6 for each in results]
            axes.errorbar(
                *(errors, [each.ap for each in trained]),
                yerr=[each.half_width for each in trained],
                **dict(fmt="o", color="#1a80c4", ecolor="#1a80c480", capsize=0, markersize=5),
            )
            log_axis(axes.xaxis)
            axes.set_title(f"step {step}", loc="left", fontsize=11)
            axes.set_xlabel("error in the simulation, millions")
            axes.margins(x=0.2)
            spread(
                axes,
                [(e, v.ap, v.variant, "#1a80c4") for e, v in zip(errors, trained, strict=True)],
            )
        figure.axes[0].set_ylabel(f"{metric} after training")
