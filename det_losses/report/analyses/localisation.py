"""How closely detections fit the objects that they find."""

import numpy as np
from matplotlib.axes import Axes

from det_losses.report.analyses.arrays import nan_mean
from det_losses.report.analyses.context import Context
from det_losses.report.plotting import chart
from det_losses.report.section import Figure, Section, Table

TITLE = "Localisation"

_GRID = np.linspace(0.5, 1.0, 51)
_SHARES = (0.75, 0.9)


def section(context: Context) -> Section | None:
    """Return the section, or None where no run is finished."""
    if not context.labels:
        return None
    text = (
        "How closely the boxes fit, whatever their scores: the IoU of each detection with the "
        "object that it finds. Matched are, as in COCO's evaluation at IoU .5, in each image and "
        "class the detections by falling score (at most 100), each with the free object of "
        "highest IoU, if that is at least .5; detections of crowds are left out. A variant that "
        "finds more of the difficult objects may lose in mean IoU, so the second figure counts "
        "objects that were not found too."
    )
    return Section(TITLE, text + context.evaluated, _figures(context), (_table(context),))


def share_above(ious: np.ndarray, levels: np.ndarray, count: float | None = None) -> np.ndarray:
    """Return the part of IoUs that are at least each level.

    >>> share_above(np.array([0.5, 0.75, 0.8]), np.array([0.5, 0.75, 0.9])).round(2).tolist()
    [1.0, 0.67, 0.0]

    Args:
        ious: ``[M]``.
        levels: ``[L]``.
        count: what it is a part of; M if None.

    Returns:
        ``[L]``; NaN if there is nothing to be a part of.
    """
    count = len(ious) if count is None else count
    above = len(ious) - np.searchsorted(np.sort(ious), levels, side="left")
    return above / count if count else np.full(len(levels), np.nan)


def _figures(context: Context) -> tuple[Figure, ...]:
    pooled = {
        label: np.concatenate([fact.ious for fact in facts])
        for label, facts in context.facts.items()
    }
    boxes = int(context.boxes.sum())
    counts = {label: boxes * len(facts) for label, facts in context.facts.items()}
    found = {label: share_above(ious, _GRID) for label, ious in pooled.items()}
    every = {label: share_above(ious, _GRID, counts[label]) for label, ious in pooled.items()}
    return (
        _figure(
            context,
            found,
            "matched detections",
            "Part of the matched detections whose IoU is at least x, all seeds together.",
        ),
        _figure(
            context,
            every,
            "objects",
            "Part of all objects that are found with an IoU of at least x, all seeds together.",
        ),
    )


def _figure(context: Context, shares: dict[str, np.ndarray], what: str, caption: str) -> Figure:
    def paint(axes: Axes) -> None:
        for label, values in shares.items():
            style = context.styles[label]
            axes.plot(_GRID, 100 * values, color=style.colour, linestyle=style.dash)
        axes.set_xlim(0.5, 1)
        axes.set_ylim(bottom=0)

    alt = f"Part of {what} against their IoU"
    legend = context.legend(list(shares))
    picture = chart(paint, "iou", alt, x="IoU", y=f"% of {what}", legend=legend)
    return Figure(picture, caption)


def _table(context: Context) -> Table:
    headers = ["variant", "matched a seed", "objects found", "mean IoU"]
    headers += [f"IoU at least .{100 * level:.0f}" for level in _SHARES]
    boxes = int(context.boxes.sum())
    rows = []
    for label, facts in context.facts.items():
        counts = np.array([len(fact.ious) for fact in facts])
        means = [nan_mean(fact.ious) for fact in facts]
        shares = np.array([share_above(fact.ious, np.array(_SHARES)) for fact in facts])
        rows.append(
            [
                label,
                f"{counts.mean():.0f}",
                _percent(counts / boxes if boxes else np.full(len(counts), np.nan)),
                _spread(np.array(means), "{:.3f}"),
                *(_percent(column) for column in shares.T),
            ]
        )
    note = f"Means over seeds, ± their standard deviation; {boxes} objects."
    return Table(headers, rows, note)


def _percent(values: np.ndarray) -> str:
    return _spread(100 * values, "{:.1f}") + ("" if np.isnan(values).all() else " %")


def _spread(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if not len(values):
        return "n/a"
    text = form.format(values.mean())
    return f"{text} ± {form.format(values.std(ddof=1))}" if len(values) > 1 else text
