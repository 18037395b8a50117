"""AP by IoU threshold, by class and by object size; precision against recall."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from det_losses.evaluation.metrics import (
    AREAS,
    RECALLS,
    SIZE_METRICS,
    THRESHOLD_METRICS,
    THRESHOLDS,
)
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_stats import CURVE_IOUS, nan_mean
from det_losses.report.plotting import INK, Style, chart, clean
from det_losses.report.runs import Runs
from det_losses.report.section import Figure, Section
from det_losses.statistics import Difference

_MAX_BANDS = 4  # with more variants, bands and intervals would overlap
_PERCENT = (100 * THRESHOLDS).round()

_CURVE_CLASSES = 4  # with more classes, only their mean has a curve of precision against recall
_CLASS_FIGURES = 4  # maximum number of variants with a figure of their classes
_PER_SIGN = 10  # number of largest gains, and of largest losses, in such a figure
_ROW = 17  # height of a row, in SVG units


def threshold_section(context: Context) -> Section | None:
    """Return AP by IoU threshold, or None if nothing was found."""
    if not context.labels or context.found_nothing:
        return None
    curves = {label: threshold_curves(context.study, label) for label in context.labels}
    figures = [_threshold_figure(context, curves)]
    if context.others:
        figures.append(_threshold_difference_figure(context))
    text = (
        "A detection is correct at an IoU threshold if its IoU with an object is at least the "
        "threshold. A better box loss improves AP at high thresholds first."
    )
    rows = [
        ([f".{percent:.0f}"], name)
        for percent, name in zip(_PERCENT, THRESHOLD_METRICS, strict=True)
    ]
    table = context.difference_table(["IoU"], rows)
    return Section("AP against IoU threshold", text, tuple(figures), (table,))


def precision_recall_section(context: Context) -> Section | None:
    """Return curves of precision against recall, or None if nothing was found."""
    if not context.labels or context.found_nothing:
        return None
    curves = {
        label: nan_mean([run.precision for run in runs])
        for label, runs in context.detection_stats.items()
    }
    classes = np.flatnonzero(context.boxes)
    figures = [
        _precision_figure(
            context,
            {label: nan_mean(own[row], axis=1) for label, own in curves.items()},
            f"IoU {iou:g}, mean over {len(classes)} classes"
            if len(classes) > 1
            else f"IoU {iou:g}",
        )
        for row, iou in enumerate(CURVE_IOUS)
    ]
    for place in classes if 1 < len(classes) <= _CURVE_CLASSES else ():
        own = {label: values[0, :, place] for label, values in curves.items()}
        name = clean(context.study.truth.names[place], 40)
        figures.append(_precision_figure(context, own, f"IoU {CURVE_IOUS[0]:g}, {name}"))
    text = (
        "Precision is the part of the detections above a score that are correct, and recall the "
        "part of the objects that they find. Each curve goes through all scores, from the highest; "
        "the area below it is the AP at this IoU. As in COCO's evaluation, the precision at a "
        "recall is the highest one at this recall or above."
    )
    text += context.last_evaluation_note
    return Section("Precision and recall", text, tuple(figures))


def class_section(context: Context) -> Section | None:
    """Return figures of AP by class and size, or None if nothing was found."""
    if not context.labels or context.found_nothing:
        return None
    text = "AP by class and by object size."
    if context.others:
        text += (
            " The intervals are exploratory: they are not adjusted for their number, so about one "
            "class in twenty will seem to differ by chance."
        )
    figures = []
    if context.others:
        figures = [_size_figure(context), *_class_figures(context)]
    truth, rows = context.study.truth, []
    for metric, name in SIZE_METRICS.items():
        low, high = AREAS[name]
        inside = ~truth.crowds & (truth.areas >= low) & (truth.areas <= high)
        rows.append(([name, str(int(inside.sum()))], metric))
    note = "Small: area up to 32 x 32 pixels; large: from 96 x 96 pixels."
    table = context.difference_table(["size", "boxes"], rows, note)
    return Section("Classes and sizes", text, tuple(figures), (table,))


def class_table_section(context: Context) -> Section | None:
    """Return the AP of each class, or None if nothing was found."""
    if not context.labels or context.found_nothing:
        return None
    text = "AP of each class"
    text += " with its difference to the baseline; exploratory." if context.others else "."
    names = context.study.truth.names
    rows = [
        ([name, str(count)], f"AP/{name}")
        for name, count in zip(names, context.boxes.tolist(), strict=True)
    ]
    table = context.difference_table(["class", "boxes"], rows)
    return Section("AP of each class", text, tables=(table,))


def _precision_figure(context: Context, curves: dict[str, np.ndarray], what: str) -> Figure:
    def paint(axes: Axes) -> None:
        for label, values in curves.items():
            style = context.styles[label]
            axes.plot(RECALLS, values, color=style.colour, linestyle=style.dash)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))

    legend = context.legend(list(curves))
    alt = f"Precision against recall at {what}"
    svg = chart(paint, "precision", alt, x="recall", y="precision", legend=legend)
    return Figure(svg, f"At {what}{context.over_seeds}.")


def threshold_curves(study: Runs, label: str) -> np.ndarray:
    """Return AP at each threshold for each finished run of a variant, ``[S, T]``."""
    runs = [study.full(run) for run in study.done(label)]
    return np.array([[metrics[name] for name in THRESHOLD_METRICS] for metrics in runs])


def most_changed(gains: Sequence[float], per_sign: int = _PER_SIGN) -> list[int]:
    """Return the indices of the largest gains and losses, by descending gain; all if there are few.

    >>> most_changed([0.1, float("nan"), -0.3, 0.2, 0.0], per_sign=1)
    [3, 2]
    """
    order = [int(place) for place in np.argsort(-np.asarray(gains), kind="stable")]
    known = [place for place in order if not np.isnan(gains[place])]
    if len(known) <= 2 * per_sign:
        return known
    better = [place for place in known if gains[place] > 0]
    worse = [place for place in known if gains[place] < 0]
    return better[:per_sign] + worse[-per_sign:]


def _threshold_figure(context: Context, curves: dict[str, np.ndarray]) -> Figure:
    bands = len(curves) <= _MAX_BANDS and any(len(rows) > 1 for rows in curves.values())

    def paint(axes: Axes) -> None:
        for label, rows in curves.items():
            style = context.styles[label]
            _draw_line(axes, style, 100 * rows.mean(axis=0))
            if bands:
                low, high = 100 * rows.min(axis=0), 100 * rows.max(axis=0)
                axes.fill_between(_PERCENT, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.set_ylim(bottom=0)

    caption = f"AP at each IoU threshold{context.over_seeds}"
    caption += "; bands: range over seeds." if bands else "."
    alt = f"AP against IoU threshold of {len(curves)} variants"
    svg = _threshold_chart(paint, "thresholds", alt, "AP", context.legend(list(curves)))
    return Figure(svg, caption)


def _threshold_difference_figure(context: Context) -> Figure:
    at = [context.differences(name) for name in THRESHOLD_METRICS]
    bars = len(context.others) <= _MAX_BANDS

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        for place, label in enumerate(context.others):
            found, style = [each[label] for each in at], context.styles[label]
            _draw_line(axes, style, 100 * np.array([difference.value for difference in found]))
            if not bars:
                continue
            shift = 0.5 * (place - (len(context.others) - 1) / 2)
            for x, difference in zip(_PERCENT + shift, found, strict=True):
                ends = [100 * difference.low, 100 * difference.high]
                axes.plot([x, x], ends, color=style.colour, linewidth=1.2)

    base = context.labels[0]
    over = ", mean over common seeds" if context.several_seeds else ""
    caption = f"Difference to {base} at each IoU threshold{over}. "
    caption += (
        f"Vertical lines: unadjusted 95% intervals over {context.variation}."
        if bars
        else "The intervals are in the table."
    )
    alt = f"Difference in AP to {base} against IoU threshold"
    legend = context.legend(context.others)
    return Figure(
        _threshold_chart(paint, "threshold-gains", alt, "difference in AP", legend), caption
    )


def _threshold_chart(
    paint: Callable[[Axes], None], name: str, alt: str, y: str, legend: list[Style]
) -> str:
    def paint_with_axis(axes: Axes) -> None:
        paint(axes)
        axes.set_xticks(_PERCENT, [f".{value:.0f}" for value in _PERCENT])
        axes.margins(x=0.03)

    return chart(paint_with_axis, name, alt, x="IoU threshold", y=y, legend=legend, markers=True)


def _draw_line(axes: Axes, style: Style, values: np.ndarray) -> None:
    axes.plot(_PERCENT, values, color=style.colour, linestyle=style.dash, marker=style.marker)


def _class_figures(context: Context) -> list[Figure]:
    primary = context.differences(context.study.metric)
    ranked = sorted(context.others, key=lambda label: -abs(primary[label].value))
    found = [
        (f"{clean(name, 22)} ({count})", context.differences(f"AP/{name}"))
        for name, count in zip(context.study.truth.names, context.boxes, strict=True)
        if count
    ]
    figures = [
        _class_figure(context, label, [(name, each[label]) for name, each in found])
        for label in ranked[:_CLASS_FIGURES]
    ]
    return [figure for figure in figures if figure]


def _class_figure(
    context: Context, label: str, found: list[tuple[str, Difference]]
) -> Figure | None:
    """Return the figure of a variant; None if no class of many has gained or lost."""
    shown = [found[place] for place in most_changed([value.value for _, value in found])]
    if not shown:
        return None
    few = len(shown) < len(found)
    style = context.styles[label]

    def paint(axes: Axes) -> None:
        _label_rows(axes, [name for name, _ in shown])
        for row, (_, value) in enumerate(shown):
            _draw_interval(axes, value, row, style)

    base = context.labels[0]
    what = f"the {_PER_SIGN} classes with the largest gains and losses" if few else "each class"
    svg = chart(
        paint,
        "classes",
        f"Difference in AP by class, {label} to {base}",
        x=f"difference in AP to {clean(base, 30)}",
        height=55 + _ROW * max(len(shown), 3),
        grid="x",
    )
    return Figure(
        svg,
        f"{label} compared with {base}: {what} (number of boxes), with 95% intervals over "
        f"{context.variation}.",
    )


def _size_figure(context: Context) -> Figure:
    found = {name: context.differences(metric) for metric, name in SIZE_METRICS.items()}
    count = len(context.others)
    step = min(0.8 / count, 0.2)

    def paint(axes: Axes) -> None:
        _label_rows(axes, list(found))
        for row, size in enumerate(found):
            for place, label in enumerate(context.others):
                at = row + step * (place - (count - 1) / 2)
                _draw_interval(axes, found[size][label], at, context.styles[label])

    base = context.labels[0]
    svg = chart(
        paint,
        "sizes",
        f"Difference in AP to {base} by object size",
        x=f"difference in AP to {clean(base, 30)}",
        height=60 + 3 * max(40, 11 * count),
        grid="x",
        legend=context.legend(context.others),
        lines=False,
        markers=True,
    )
    over = context.variation
    return Figure(svg, f"Difference to {base} by object size, with 95% intervals over {over}.")


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _draw_interval(axes: Axes, found: Difference, row: float, style: Style) -> None:
    ends = [100 * found.low, 100 * found.high]
    axes.plot(ends, [row, row], color=style.colour, linewidth=1.4)
    axes.plot([100 * found.value], [row], color=style.colour, marker=style.marker)
