"""AP of each class and of each size of object."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from det_losses.evaluation.metrics import AREAS, SIZE_METRICS
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.tables import against_baseline, difference_table
from det_losses.report.plotting import INK, Style, chart, clean
from det_losses.report.section import Figure, Section, Table
from det_losses.statistics import Difference

TITLE = "Classes and sizes"
TABLE_TITLE = "AP of each class"

_FIGURES = 4  # variants that get a figure of their classes
_EACH_WAY = 10  # largest gains, and largest losses, that it shows
_ROW = 17  # units of a row


def section(context: Context) -> Section | None:
    """Return the section, or None where no run is finished."""
    if not context.labels:
        return None
    text = (
        "Whose AP changes: each class and each size of object by itself. The intervals are "
        "exploratory: they are not adjusted for their number, so of twenty classes without any "
        "difference one will seem to have one."
    )
    figures = []
    if context.others:
        figures = [_sizes_figure(context), *_class_figures(context)]
    return Section(TITLE, text, tuple(figures), (_sizes_table(context),))


def table_section(context: Context) -> Section | None:
    """Return the numbers of each class, which are many, or None where no run is finished."""
    if not context.labels:
        return None
    text = "AP of each class with its difference to the baseline; exploratory."
    return Section(TABLE_TITLE, text, tables=(_class_table(context),))


def most_changed(gains: Sequence[float], each_way: int = _EACH_WAY) -> list[int]:
    """Return the places of the largest gains and losses, largest gain first; all if there are few.

    >>> most_changed([0.1, float("nan"), -0.3, 0.2, 0.0], each_way=1)
    [3, 2]
    """
    order = [int(place) for place in np.argsort(-np.asarray(gains), kind="stable")]
    known = [place for place in order if not np.isnan(gains[place])]
    if len(known) <= 2 * each_way:
        return known
    better = [place for place in known if gains[place] > 0]
    worse = [place for place in known if gains[place] < 0]
    return better[:each_way] + worse[-each_way:]


def _class_figures(context: Context) -> list[Figure]:
    primary = against_baseline(context, context.study.metric)
    ranked = sorted(context.others, key=lambda label: -abs(primary[label].value))
    found = [
        (f"{clean(name, 22)} ({count})", against_baseline(context, f"AP/{name}"))
        for name, count in zip(context.study.truth.names, context.boxes, strict=True)
        if count
    ]
    return [
        _class_figure(context, label, [(name, each[label]) for name, each in found])
        for label in ranked[:_FIGURES]
    ]


def _class_figure(context: Context, label: str, found: list[tuple[str, Difference]]) -> Figure:
    shown = [found[place] for place in most_changed([value.value for _, value in found])]
    few = len(shown) < len(found)
    style = context.styles[label]

    def paint(axes: Axes) -> None:
        _rows(axes, [name for name, _ in shown])
        for row, (_, value) in enumerate(shown):
            _interval(axes, value, row, style)

    base = context.labels[0]
    what = f"the {_EACH_WAY} classes with the largest gains and losses" if few else "each class"
    return Figure(
        chart(
            paint,
            "classes",
            f"Difference in AP of classes, {label} to {base}",
            x=f"difference in AP to {clean(base, 30)}",
            height=55 + _ROW * max(len(shown), 3),
            grid="x",
        ),
        f"{label} against {base}: {what} (boxes), with 95% intervals over seeds and images.",
    )


def _sizes_figure(context: Context) -> Figure:
    found = {name: against_baseline(context, metric) for metric, name in SIZE_METRICS.items()}
    count = len(context.others)
    step = min(0.8 / count, 0.2)

    def paint(axes: Axes) -> None:
        _rows(axes, list(SIZE_METRICS.values()))
        for row, size in enumerate(SIZE_METRICS.values()):
            for place, label in enumerate(context.others):
                at = row + step * (place - (count - 1) / 2)
                _interval(axes, found[size][label], at, context.styles[label])

    base = context.labels[0]
    return Figure(
        chart(
            paint,
            "sizes",
            f"Difference in AP to {base} by size of object",
            x=f"difference in AP to {clean(base, 30)}",
            height=60 + 3 * max(40, 11 * count),
            grid="x",
            legend=context.legend(context.others),
            lines=False,
            markers=True,
        ),
        f"Difference to {base} by size of object, with 95% intervals over seeds and images.",
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _interval(axes: Axes, found: Difference, row: float, style: Style) -> None:
    ends = [100 * found.low, 100 * found.high]
    axes.plot(ends, [row, row], color=style.colour, linewidth=1.4)
    axes.plot([100 * found.value], [row], color=style.colour, marker=style.marker)


def _sizes_table(context: Context) -> Table:
    truth = context.study.truth
    rows = []
    for metric, name in SIZE_METRICS.items():
        low, high = AREAS[name]
        inside = ~truth.crowds & (truth.areas >= low) & (truth.areas <= high)
        rows.append(([name, str(int(inside.sum()))], metric))
    note = "Small: area up to 32 x 32 pixels; large: from 96 x 96."
    return difference_table(context, ["size", "boxes"], rows, note)


def _class_table(context: Context) -> Table:
    names = context.study.truth.names
    rows = [
        ([name, str(count)], f"AP/{name}")
        for name, count in zip(names, context.boxes.tolist(), strict=True)
    ]
    return difference_table(context, ["class", "boxes"], rows)
