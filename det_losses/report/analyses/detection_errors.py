"""Errors of the detections: localisation, the AP lost by each error type, confused classes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_stats import ERROR_TYPES, nan_mean
from det_losses.report.formats import listed, spread
from det_losses.report.plotting import INK, chart, clean
from det_losses.report.section import Figure, Section, Table

_IOUS = np.linspace(0.5, 1.0, 51)
_LEVELS = (0.75, 0.9)  # IoUs of the table
_MATRICES = 4  # maximum number of variants with a confusion matrix
_CLASSES = 10  # classes in such a matrix, those with most objects; the rest is pooled
_CONFUSIONS = 10  # most frequent confusions in the table

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
    """Return the IoU of matched detections, or None if nothing was found."""
    if not context.labels or context.found_nothing:
        return None
    text = (
        "Accuracy of the boxes, regardless of their scores: the IoU of each detection with its "
        "object. Detections are matched as in COCO's evaluation at IoU .5: in each image and class "
        f"in descending order of score (at most {context.study.max_dets}), each with the unmatched "
        "object of highest IoU, if that is at least .5. Detections matched with crowds are "
        "excluded. A variant that finds more of the difficult objects may have a lower mean IoU; "
        "therefore the second figure includes the objects that were not found."
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
    tables = (_error_table(context, errors), Table(["error", "meaning"], meanings))
    return Section("Error types", text, (_error_figure(context, errors),), tables)


def confusion_section(context: Context) -> Section | None:
    """Return the confusion matrices, or None without a finished run."""
    if not context.labels:
        return None
    stats = context.detection_stats
    counts = {
        label: np.mean([run.confusion for run in runs], axis=0) for label, runs in stats.items()
    }
    scores = [
        f"{label} {np.mean([run.score for run in runs]):.2f}" for label, runs in stats.items()
    ]
    text = (
        "What the objects of each class are detected as. Each detection is matched with the object "
        "of highest IoU, if that is at least .5, whatever its class, in descending order of score. "
        "Only detections from a score on count: in each run, the one with the highest F1 of all "
        f"classes together ({'mean over seeds: ' if context.several_seeds else ''}"
        f"{listed(scores, 20)})."
    )
    text += context.last_evaluation_note
    figures = tuple(_matrix_figure(context, label, counts[label]) for label in _shown(context))
    table = _confusion_table(context, counts)
    return Section("Confusion of classes", text, figures, (table,) if table else ())


def pooled_matrix(matrix: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum the rows and columns of a square matrix by group.

    >>> pooled_matrix(np.array([[1, 2, 0], [3, 4, 0], [5, 6, 7]]), np.array([0, 1, 1])).tolist()
    [[1, 2], [8, 17]]

    Args:
        matrix: ``[N, N]``.
        groups: ``[N]`` index of the group of each row and column.
    """
    member = np.equal.outer(np.arange(groups.max() + 1), groups).astype(matrix.dtype)
    return member @ matrix @ member.T


def _shown(context: Context) -> list[str]:
    """Return the variants with a matrix: the baseline, and those that differ most from it."""
    found = context.differences(context.study.metric)
    first = [label for label in context.labels if label not in found]
    rest = sorted(found, key=lambda label: -abs(np.nan_to_num(found[label].value)))
    return (first + rest)[:_MATRICES]


def _matrix_figure(context: Context, label: str, counts: np.ndarray) -> Figure:
    names, boxes = context.study.truth.names, context.boxes
    order = [int(k) for k in np.argsort(-boxes, kind="stable") if boxes[k]]
    kept = order if len(order) <= _CLASSES + 1 else order[:_CLASSES]
    pooled = len(kept) < len(names)
    groups = np.full(len(names) + 1, len(kept))
    groups[kept], groups[-1] = range(len(kept)), len(kept) + pooled
    shown = pooled_matrix(counts, groups)
    classes = [clean(names[k], 14) for k in kept] + (["others"] if pooled else [])
    objects = [int(boxes[k]) for k in kept] + [int(np.delete(boxes, kept).sum())] * pooled
    rows = [f"{name} ({n})" for name, n in zip(classes, objects, strict=True)] + ["no object"]

    def paint(axes: Axes) -> None:
        _draw_matrix(axes, shown)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(rows)), [*classes, "missed"], rotation=90)

    side = 26 if len(rows) > 6 else 34
    svg = chart(
        paint,
        "confusion",
        f"Confusion matrix of {label}",
        x="detected as",
        height=120 + side * len(rows),
        grid="",
    )
    caption = f"{label}: number of objects by their class (rows) and what they were detected as"
    caption += context.over_seeds
    caption += ". The darker, the larger the part of the row. Last row: detections of no object."
    if pooled:
        caption += f" Others: the {len(names) - len(kept)} classes with the fewest objects."
    return Figure(svg, caption)


def _draw_matrix(axes: Axes, counts: np.ndarray) -> None:
    """Draw the cells; the correct ones have a frame."""
    last = len(counts) - 1
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "#1a80c4" if row == column else "#d55e00"
        part, value = parts[row, column], counts[row, column]
        cell = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, facecolor=colour, alpha=0.08 + 0.72 * part))
        text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
        axes.text(column, row, text, ha="center", va="center", fontsize=10)
    for place in range(last):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor=INK))
        if not counts[place, place]:
            axes.text(place, place, "0", ha="center", va="center", fontsize=10)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(last + 0.5, -0.5))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _confusion_table(context: Context, counts: dict[str, np.ndarray]) -> Table | None:
    """Return the most frequent confusions of two classes; None if there is none."""
    names = context.study.truth.names
    most = np.max([matrix[:-1, :-1] for matrix in counts.values()], axis=0)
    np.fill_diagonal(most, 0)
    order = [int(place) for place in np.argsort(-most, axis=None, kind="stable")[:_CONFUSIONS]]
    pairs = [divmod(place, len(names)) for place in order if most.flat[place]]
    if not pairs:
        return None
    rows = [
        [
            names[row],
            names[column],
            str(context.boxes[row]),
            *(f"{matrix[row, column]:.1f}".removesuffix(".0") for matrix in counts.values()),
        ]
        for row, column in pairs
    ]
    note = "The most frequent confusions: number of objects"
    note += f"{context.over_seeds}."
    return Table(["object", "detected as", "objects", *counts], rows, note)


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
    together = ", all seeds pooled" if context.several_seeds else ""
    every = {label: fraction_above(ious, _IOUS, counts[label]) for label, ious in pooled.items()}
    return (
        _iou_figure(
            context,
            found,
            "matched detections",
            f"Percentage of the matched detections with an IoU of at least x{together}.",
        ),
        _iou_figure(
            context,
            every,
            "objects",
            f"Percentage of all objects found with an IoU of at least x{together}.",
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
    headers = ["variant", "matched per run", "objects found", "mean IoU"]
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
    note = f"{context.mean_text.capitalize()}; {boxes} objects."
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
    caption = "AP50 lost by each error type"
    caption += ", mean over seeds; lines: range over seeds." if context.several_seeds else "."
    return Figure(svg, caption)


def _error_table(context: Context, errors: dict[str, np.ndarray]) -> Table:
    rows = []
    for label, values in errors.items():
        sds = values.std(axis=0, ddof=1) if len(values) > 1 else [None] * len(ERROR_TYPES)
        means = values.mean(axis=0)
        cells = [spread(float(m), s) for m, s in zip(means, sds, strict=True)]
        rows.append([label, *cells])
    note = f"AP50 in points, {context.mean_text}."
    return Table(["variant", *(_NAMES[key] for key in ERROR_TYPES)], rows, note)
