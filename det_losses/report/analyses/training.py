"""How training went: curves, the time to a level of AP, and what it cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from det_losses.report.analyses.arrays import block_means
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.cost import cost_table
from det_losses.report.analyses.curves import (
    Curve,
    evaluations,
    loss_names,
    losses,
    mean_curve,
    reach,
)
from det_losses.report.formats import duration, listed, points
from det_losses.report.plotting import chart, clean
from det_losses.report.section import Figure, Section, Table

TITLE = "Training"

LEVELS = (0.5, 0.75, 0.9)  # parts of the baseline's final mean
_POINTS = 3000  # of a figure, shared by its lines

Histories = dict[str, list[list[dict[str, Any]]]]  # label -> one history a finished run


def section(context: Context) -> Section | None:
    """Return the section, or None where nothing is known of any training."""
    study = context.study
    histories = {
        label: [lines for run in context.finished(label) if (lines := study.history(run))]
        for label in study.labels
    }
    histories = {label: own for label, own in histories.items() if own}
    tables = [table for table in (_reach_table(context, histories), cost_table(context)) if table]
    if not histories and not tables:
        return None
    text = (
        "How fast each variant learns and what it costs. Losses of different kinds have different "
        "scales: compare the shape of their curves, not their height."
    )
    missing = [
        label for label in study.labels if context.finished(label) and label not in histories
    ]
    if missing:
        text += f" No history was stored for {listed(missing)}."
    return Section(TITLE, text, tuple(_figures(context, histories)), tuple(tables))


def levels(context: Context) -> dict[float, float]:
    """Return part -> level of the primary metric; none where the baseline's end is unknown."""
    metric, base = context.study.metric, context.study.baseline
    final = [(run.get("metrics") or {}).get(metric) for run in context.finished(base)]
    known = [value for value in final if value is not None and np.isfinite(value)]
    mean = float(np.mean(known)) if known else 0.0
    return {part: part * mean for part in LEVELS} if mean > 0 else {}


def reached_text(found: Sequence[tuple[float, float] | None]) -> str:
    """Say when the runs of a variant reached a level, on average over those that did.

    >>> reached_text([(100, 50.0), (120, 60.0)]), reached_text([(100, 50.0), None])
    ('110 steps, 55 s', '100 steps, 50 s (1 of 2 seeds)')
    >>> reached_text([None])
    'not reached'
    """
    known = [pair for pair in found if pair is not None]
    if not known:
        return "not reached"
    steps, seconds = np.mean(known, axis=0)
    text = f"{steps:.0f} steps"
    text += "" if np.isnan(seconds) else f", {duration(float(seconds))}"
    return text if len(known) == len(found) else f"{text} ({len(known)} of {len(found)} seeds)"


def _reach_table(context: Context, histories: Histories) -> Table | None:
    wanted = levels(context)
    metric = context.study.metric
    curves = {label: [evaluations(h, metric) for h in own] for label, own in histories.items()}
    curves = {label: own for label, own in curves.items() if any(len(c.step) for c in own)}
    if not wanted or not curves:
        return None
    headers = [f"{metric} {points(level)} ({part:.0%})" for part, level in wanted.items()]
    rows = [
        [
            label,
            *(reached_text([reach(curve, level) for curve in own]) for level in wanted.values()),
        ]
        for label, own in curves.items()
    ]
    note = (
        f"Steps and seconds of training (evaluations not counted) until {metric} first reaches a "
        f"part of the final mean of {context.study.baseline}, mean over the seeds that reach it. "
        "Linear between evaluations, and from 0 at step 0 to the first one."
    )
    return Table(["variant", *headers], rows, note)


def _figures(context: Context, histories: Histories) -> list[Figure]:
    metric = context.study.metric
    every = [history for own in histories.values() for history in own]
    drawn = [_figure(context, histories, evaluations, metric, f"{metric} on the evaluated images")]
    drawn += [
        _figure(context, histories, losses, name, "Total loss" if name == "loss" else name)
        for name in loss_names(every)
    ]
    return [figure for figure in drawn if figure]


def _figure(
    context: Context,
    histories: Histories,
    read: Callable[[Sequence[Mapping[str, Any]], str], Curve],
    name: str,
    title: str,
) -> Figure | None:
    curves = {
        label: [curve for history in own if len((curve := read(history, name)).step)]
        for label, own in histories.items()
    }
    curves = {label: own for label, own in curves.items() if own}
    if not curves:
        return None
    scale = 100 if read is evaluations else 1
    blocks = int(np.clip(_POINTS // sum(len(own) + 1 for own in curves.values()), 20, 150))
    longest = max(len(curve.step) for own in curves.values() for curve in own)

    def paint(axes: Axes) -> None:
        for label, own in curves.items():
            style = context.styles[label]
            if len(own) > 1:
                for curve in own:
                    x, y = (block_means(axis, blocks) for axis in (curve.step, curve.value))
                    axes.plot(x, scale * y, color=style.colour, alpha=0.4, linewidth=0.8)
            mean = mean_curve(own)
            x, y = (block_means(axis, blocks) for axis in (mean.step, mean.value))
            few = style.marker if len(x) < 3 else None
            axes.plot(x, scale * y, color=style.colour, linestyle=style.dash, marker=few)
        axes.margins(x=0.02)
        if read is evaluations:
            axes.set_ylim(bottom=0)

    several = any(len(own) > 1 for own in curves.values())
    caption = f"{title} along training"
    caption += "; thin: each seed, thick: mean over seeds." if several else "."
    if longest > blocks:
        caption += f" Each point is a mean over {longest / blocks:.0f} stored values."
    legend = context.legend(list(curves))
    alt = f"{title} of {len(curves)} variants against training steps"
    kind = "ap" if read is evaluations else "loss"
    picture = chart(paint, f"training-{kind}", alt, x="steps", y=clean(name, 30), legend=legend)
    return Figure(picture, caption)
