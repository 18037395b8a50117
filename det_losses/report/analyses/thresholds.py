"""AP against the IoU that a detection must have to count as right."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from det_losses.evaluation.backends import IOU_THRESHOLDS
from det_losses.evaluation.matching import METRICS
from det_losses.report.analyses.arrays import nan_mean
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.tables import against_baseline, cell, signed, units
from det_losses.report.plotting import INK, Style, chart
from det_losses.report.section import Figure, Section, Table
from det_losses.statistics import Difference

TITLE = "AP against IoU threshold"

_BANDS = 4  # with more variants than that, bands and intervals would cover each other
_X = 100 * np.array(IOU_THRESHOLDS)


def section(context: Context) -> Section | None:
    """Return the section, or None where no run is finished.

    The curves are those of each run's last evaluation.
    """
    if not context.labels:
        return None
    curves = {label: _curves(context, label) for label in context.labels}
    intervals = _intervals(context)
    gains = {label: paired_curve(context, curves, label) for label in context.others}
    figures = [_absolute(context, curves)]
    if context.others:
        figures.append(_relative(context, gains, intervals))
    text = (
        "Where a box loss acts: a better loss for boxes shows at high IoU thresholds first, where "
        "a detection must fit its object closely to count as right."
    )
    return Section(TITLE, text, tuple(figures), (_table(context, curves, gains, intervals),))


def threshold_curve(precision: np.ndarray) -> np.ndarray:
    """Return the mean over classes at each threshold.

    Args:
        precision: ``[T, K, A]``, of Matches.average_precision.

    Returns:
        ``[T]`` for all sizes; NaN where no class has a box.
    """
    return nan_mean(precision[:, :, 0], axis=1)


def _curves(context: Context, label: str) -> np.ndarray:
    runs = context.study.done(label)
    return np.stack(
        [threshold_curve(context.study.matches(run).average_precision()) for run in runs]
    )


def _intervals(context: Context) -> dict[str, list[Difference | None]]:
    """Return each variant's difference at each threshold at which images were resampled."""
    found = {label: [None] * len(_X) for label in context.others}
    for index, percent in enumerate(_X.round().astype(int)):
        if f"AP{percent}" in METRICS:
            for label, value in against_baseline(context, f"AP{percent}").items():
                found[label][index] = value
    return found


def paired_curve(context: Context, curves: dict[str, np.ndarray], label: str) -> np.ndarray:
    """Return the mean over common seeds of a variant's curve minus the baseline's, ``[T]``."""
    seeds = {name: [run["seed"] for run in context.study.done(name)] for name in curves}
    base = context.labels[0]
    common = [seed for seed in seeds[label] if seed in seeds[base]]
    rows = [
        curves[label][seeds[label].index(seed)] - curves[base][seeds[base].index(seed)]
        for seed in common
    ]
    return np.mean(rows, axis=0)


def _absolute(context: Context, curves: dict[str, np.ndarray]) -> Figure:
    bands = len(curves) <= _BANDS and any(len(rows) > 1 for rows in curves.values())

    def paint(axes: Axes) -> None:
        for label, rows in curves.items():
            style = context.styles[label]
            _line(axes, style, 100 * rows.mean(axis=0))
            if bands:
                low, high = 100 * rows.min(axis=0), 100 * rows.max(axis=0)
                axes.fill_between(_X, low, high, color=style.colour, alpha=0.15, linewidth=0)
        _finish(axes)
        axes.set_ylim(bottom=0)

    caption = "AP at each IoU threshold, mean over seeds"
    caption += "; the bands reach from the lowest seed to the highest." if bands else "."
    alt = f"AP against IoU threshold of {len(curves)} variants"
    legend = context.legend(list(curves))
    return Figure(_chart(paint, "thresholds", alt, "AP", legend), caption)


def _relative(
    context: Context,
    gains: dict[str, np.ndarray],
    intervals: dict[str, list[Difference | None]],
) -> Figure:
    bars = len(context.others) <= _BANDS

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        for place, label in enumerate(context.others):
            style = context.styles[label]
            _line(axes, style, 100 * gains[label])
            shift = 0.5 * (place - (len(context.others) - 1) / 2)
            for x, found in zip(_X, intervals[label], strict=True):
                if bars and found is not None:
                    ends = [100 * found.low, 100 * found.high]
                    axes.plot([x + shift] * 2, ends, color=style.colour, linewidth=1.2)
        _finish(axes)

    base = context.labels[0]
    caption = f"Difference to {base} at each IoU threshold, mean over common seeds. "
    caption += (
        "Upright lines: 95% intervals over seeds and images, not adjusted for their number."
        if bars
        else "Their intervals are in the table."
    )
    alt = f"Difference in AP to {base} against IoU threshold"
    legend = context.legend(context.others)
    return Figure(_chart(paint, "threshold-gains", alt, "difference in AP", legend), caption)


def _chart(paint: Callable[[Axes], None], name: str, alt: str, y: str, legend: list[Style]) -> str:
    return chart(paint, name, alt, x="IoU threshold", y=y, legend=legend, markers=True)


def _line(axes: Axes, style: Style, values: np.ndarray) -> None:
    axes.plot(_X, values, color=style.colour, linestyle=style.dash, marker=style.marker)


def _finish(axes: Axes) -> None:
    axes.set_xticks(_X, [f".{value:.0f}" for value in _X])
    axes.margins(x=0.03)


def _table(
    context: Context,
    curves: dict[str, np.ndarray],
    gains: dict[str, np.ndarray],
    intervals: dict[str, list[Difference | None]],
) -> Table:
    means = {label: rows.mean(axis=0) for label, rows in curves.items()}
    rows = []
    for index, threshold in enumerate(_X):
        cells = []
        for label in context.labels:
            found = intervals[label][index] if label in intervals else None
            text = cell(means[label][index], found)
            if label in gains and found is None:
                text += f"\n{signed(gains[label][index])}"
            cells.append(text)
        rows.append([f".{threshold:.0f}", *cells])
    return Table(["IoU", *context.labels], rows, units(context))
