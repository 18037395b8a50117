"""AP against the IoU that a detection must have to count as right."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from det_losses.evaluation.metrics import THRESHOLD_METRICS, THRESHOLDS
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.tables import against_baseline, difference_table
from det_losses.report.plotting import INK, Style, chart
from det_losses.report.section import Figure, Section
from det_losses.report.study import Study
from det_losses.statistics import Difference

TITLE = "AP against IoU threshold"

_BANDS = 4  # with more variants than that, bands and intervals would cover each other
_X = (100 * THRESHOLDS).round()


def section(context: Context) -> Section | None:
    """Return the section, or None where no run is finished."""
    if not context.labels:
        return None
    curves = {label: threshold_curves(context.study, label) for label in context.labels}
    figures = [_absolute(context, curves)]
    if context.others:
        figures.append(_relative(context))
    text = (
        "Where a box loss acts: a better loss for boxes shows at high IoU thresholds first, where "
        "a detection must fit its object closely to count as right."
    )
    rows = [([f".{x:.0f}"], name) for x, name in zip(_X, THRESHOLD_METRICS, strict=True)]
    return Section(TITLE, text, tuple(figures), (difference_table(context, ["IoU"], rows),))


def threshold_curves(study: Study, label: str) -> np.ndarray:
    """Return AP at each threshold for each finished run of a variant, ``[S, T]``."""
    return np.array(
        [[study.full(run)[name] for name in THRESHOLD_METRICS] for run in study.done(label)]
    )


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


def _relative(context: Context) -> Figure:
    at = [against_baseline(context, name) for name in THRESHOLD_METRICS]
    bars = len(context.others) <= _BANDS

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        for place, label in enumerate(context.others):
            found, style = [each[label] for each in at], context.styles[label]
            _line(axes, style, 100 * np.array([difference.value for difference in found]))
            if bars:
                shift = 0.5 * (place - (len(context.others) - 1) / 2)
                _intervals(axes, style, _X + shift, found)
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


def _intervals(axes: Axes, style: Style, places: np.ndarray, found: list[Difference]) -> None:
    for x, difference in zip(places, found, strict=True):
        ends = [100 * difference.low, 100 * difference.high]
        axes.plot([x, x], ends, color=style.colour, linewidth=1.2)


def _finish(axes: Axes) -> None:
    axes.set_xticks(_X, [f".{value:.0f}" for value in _X])
    axes.margins(x=0.03)
