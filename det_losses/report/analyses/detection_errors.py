"""Errors of the detections: accuracy of localisation, and the AP lost by each error type."""

import numpy as np
from matplotlib.axes import Axes

from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_stats import ERROR_TYPES, nan_mean
from det_losses.report.formats import spread
from det_losses.report.plotting import INK, chart
from det_losses.report.section import Figure, Section, Table

_IOUS = np.linspace(0.5, 1.0, 51)
_LEVELS = (0.75, 0.9)  # IoUs of the table

_NAMES = {
    "Cls": "class",
    "Loc": "localisation",
    "Both": "class and localisation",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
_MEANINGS = {
    "Cls": "a detection that fits an object of another class (IoU at least .5)",
    "Loc": "a detection of the correct class with a poor fit (IoU from .1 to .5)",
    "Both": "a detection of another class with a poor fit",
    "Dupe": "a detection that fits an object already matched with a detection of higher score",
    "Bkg": "a detection on the background (IoU below .1 with all objects)",
    "Miss": "an object without any detection, not even one of the error types above",
}


def localisation_section(context: Context) -> Section | None:
    """Return the IoU of matched detections, or None without a finished run."""
    if not context.labels:
        return None
    text = (
        "Accuracy of the boxes, regardless of their scores: the IoU of each detection with its "
        "object. Detections are matched as in COCO's evaluation at IoU .5: in each image and class "
        "in descending order of score (at most 100), each with the unmatched object of highest "
        "IoU, if that is at least .5. Detections matched with crowds are excluded. A variant that "
        "finds more of the difficult objects may have a lower mean IoU; therefore the second "
        "figure includes the objects that were not found."
    )
    text += context.last_evaluation_note
    return Section("Localisation", text, _iou_figures(context), (_iou_table(context),))


def error_section(context: Context) -> Section | None:
    """Return the error types, or None without a finished run."""
    if not context.labels:
        return None
    text = (
        "The cost of each error type: the gain in AP50 if a variant made no errors of that type "
        "(TIDE, Bolya et al. 2020, computed by hotcoco). The gains do not add up."
    )
    text += context.last_evaluation_note
    errors = {
        label: np.array([[run.errors[key] for key in ERROR_TYPES] for run in runs])
        for label, runs in context.detection_stats.items()
    }
    meanings = [[_NAMES[key], meaning] for key, meaning in _MEANINGS.items()]
    tables = (_error_table(errors), Table(["error", "meaning"], meanings))
    return Section("Error types", text, (_error_figure(context, errors),), tables)


def fraction_above(ious: np.ndarray, levels: np.ndarray, count: float | None = None) -> np.ndarray:
    """Return the fraction of IoUs that are at least each level.

    >>> fraction_above(np.array([0.5, 0.75, 0.8]), np.array([0.5, 0.75, 0.9])).round(2).tolist()
    [1.0, 0.67, 0.0]

    Args:
        ious: ``[M]``.
        levels: ``[L]``.
        count: the denominator; M if None.

    Returns:
        ``[L]``; NaN for a count of 0.
    """
    count = len(ious) if count is None else count
    above = len(ious) - np.searchsorted(np.sort(ious), levels, side="left")
    return above / count if count else np.full(len(levels), np.nan)


def _iou_figures(context: Context) -> tuple[Figure, ...]:
    pooled = {
        label: np.concatenate([run.ious for run in runs])
        for label, runs in context.detection_stats.items()
    }
    counts = {
        label: sum(run.objects for run in runs) for label, runs in context.detection_stats.items()
    }
    found = {label: fraction_above(ious, _IOUS) for label, ious in pooled.items()}
    every = {label: fraction_above(ious, _IOUS, counts[label]) for label, ious in pooled.items()}
    return (
        _iou_figure(
            context,
            found,
            "matched detections",
            "Percentage of the matched detections with an IoU of at least x, all seeds pooled.",
        ),
        _iou_figure(
            context,
            every,
            "objects",
            "Percentage of all objects found with an IoU of at least x, all seeds pooled.",
        ),
    )


def _iou_figure(
    context: Context, fractions: dict[str, np.ndarray], what: str, caption: str
) -> Figure:
    def paint(axes: Axes) -> None:
        for label, values in fractions.items():
            style = context.styles[label]
            axes.plot(_IOUS, 100 * values, color=style.colour, linestyle=style.dash)
        axes.set_xlim(0.5, 1)
        axes.set_ylim(bottom=0)

    alt = f"Percentage of {what} against their IoU"
    legend = context.legend(list(fractions))
    return Figure(chart(paint, "iou", alt, x="IoU", y=f"% of {what}", legend=legend), caption)


def _iou_table(context: Context) -> Table:
    headers = ["variant", "matched per seed", "objects found", "mean IoU"]
    headers += [f"IoU at least .{100 * level:.0f}" for level in _LEVELS]
    boxes = int(context.boxes.sum())
    rows = []
    for label, runs in context.detection_stats.items():
        counts = np.array([len(run.ious) for run in runs])
        objects = np.array([run.objects for run in runs])
        means = np.array([nan_mean(run.ious) for run in runs])
        fractions = np.array([fraction_above(run.ious, np.array(_LEVELS)) for run in runs])
        rows.append(
            [
                label,
                f"{counts.mean():.0f}",
                _percent(np.where(objects > 0, counts / np.maximum(objects, 1), np.nan)),
                _mean_and_sd(means, "{:.3f}"),
                *(_percent(column) for column in fractions.T),
            ]
        )
    note = f"Mean over seeds ± standard deviation; {boxes} objects."
    return Table(headers, rows, note)


def _percent(values: np.ndarray) -> str:
    return _mean_and_sd(100 * values, "{:.1f}") + ("" if np.isnan(values).all() else " %")


def _mean_and_sd(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if not len(values):
        return "n/a"
    text = form.format(values.mean())
    return f"{text} ± {form.format(values.std(ddof=1))}" if len(values) > 1 else text


def _error_figure(context: Context, errors: dict[str, np.ndarray]) -> Figure:
    count = len(errors)
    step = 0.8 / count

    def paint(axes: Axes) -> None:
        for place, (label, values) in enumerate(errors.items()):
            style = context.styles[label]
            at = np.arange(len(ERROR_TYPES)) + step * (place - (count - 1) / 2)
            mean = 100 * values.mean(axis=0)
            axes.barh(at, mean, 0.55 * step, color=style.colour, alpha=0.55)
            axes.plot(mean, at, color=style.colour, marker=style.marker, linestyle="none")
            for row, column in zip(at, 100 * values.T, strict=True):
                if len(column) > 1:
                    axes.plot([column.min(), column.max()], [row] * 2, color=INK, linewidth=0.8)
        names = [_NAMES[key].replace(" and ", "\nand ") for key in ERROR_TYPES]
        axes.set_yticks(range(len(ERROR_TYPES)), names)
        axes.set_ylim(len(ERROR_TYPES) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)

    svg = chart(
        paint,
        "errors",
        "AP50 lost by each error type, by variant",
        x="AP50 lost",
        height=60 + len(ERROR_TYPES) * max(28, 9 * count + 8),
        grid="x",
        legend=context.legend(list(errors)),
        lines=False,
        markers=True,
    )
    return Figure(svg, "AP50 lost by each error type, mean over seeds; lines: range over seeds.")


def _error_table(errors: dict[str, np.ndarray]) -> Table:
    rows = []
    for label, values in errors.items():
        sds = values.std(axis=0, ddof=1) if len(values) > 1 else [None] * len(ERROR_TYPES)
        means = values.mean(axis=0)
        cells = [spread(float(m), s) for m, s in zip(means, sds, strict=True)]
        rows.append([label, *cells])
    note = "AP50 in points, mean over seeds ± standard deviation."
    return Table(["variant", *(_NAMES[key] for key in ERROR_TYPES)], rows, note)
