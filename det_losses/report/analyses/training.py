"""Training: curves of AP and losses, the time to reach a level of AP, and the cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from det_losses.report.analyses.context import Context
from det_losses.report.formats import duration, listed, number, points
from det_losses.report.plotting import Style, chart, clean
from det_losses.report.section import Figure, Section, Table

LEVELS = (0.5, 0.75, 0.9)  # fractions of the baseline's final mean
_POINTS = 3000  # points per figure, divided among its lines
_MEMORY_KINDS = {
    "rss": "the resident memory of the training process",
    "cuda": "the GPU memory allocated by torch",
}

Histories = dict[str, list[list[dict[str, Any]]]]  # label -> one history per finished run


class Curve(NamedTuple):
    """Values during a run.

    Attributes:
        step: ``[N]`` finished steps, ascending.
        seconds: ``[N]`` seconds of training up to the step, without evaluations; NaN if unknown.
        value: ``[N]``, all finite.
    """

    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray


def training_section(context: Context) -> Section | None:
    """Return the section, or None if no training is recorded."""
    study = context.study
    histories = {
        label: [lines for run in context.finished(label) if (lines := study.history(run))]
        for label in study.labels
    }
    histories = {label: own for label, own in histories.items() if own}
    # A forked run did not learn alone what it had learned by the time it reached a level.
    times = None if study.fork else _time_table(context, histories)
    tables = [table for table in (times, cost_table(context)) if table]
    if not histories and not tables:
        return None
    text = (
        "How fast each variant learns, and its cost. Losses of different kinds have different "
        "scales: compare the shape of their curves, not the values."
    )
    if study.fork:
        text += (
            f" The baseline {study.fork['baseline']} trained alone up to epoch "
            f"{study.fork['epoch']}, where the curves of the others begin."
        )
    missing = [
        label for label in study.labels if context.finished(label) and label not in histories
    ]
    if missing:
        text += f" No history was stored for {listed(missing)}."
    return Section("Training", text, tuple(_figures(context, histories)), tuple(tables))


def ap_curve(history: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    """Return a metric during a run, without evaluations that lack it."""
    return _curve(history, "val", "metrics", metric)


def loss_curve(history: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """Return a loss during a run, without steps at which it was not finite."""
    return _curve(history, "train", "losses", name)


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


def loss_names(histories: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the names of all losses, the total ``"loss"`` first."""
    names: dict[str, None] = {}
    for history in histories:
        for entry in history:
            if entry.get("kind") == "train":
                names.update(dict.fromkeys(entry.get("losses") or {}))
    return sorted(names, key=lambda name: name != "loss")


def time_to_level(curve: Curve, level: float) -> tuple[float, float] | None:
    """Return the steps and seconds at which a curve first reaches ``level``.

    The value is interpolated linearly between evaluations, and from 0 at step 0 to the first one.

    Returns:
        (steps, seconds), or None if the level is not reached.
    """
    above = np.flatnonzero(curve.value >= level)
    if level <= 0 or not len(above):
        return None
    step, seconds, value = (np.concatenate([[0.0], part]) for part in curve)
    last = above[0] + 1  # the first one above; index 0 is the added origin
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


def levels(context: Context) -> dict[float, float]:
    """Return fraction -> level of the primary metric; empty if the baseline's score is unknown."""
    metric, base = context.study.metric, context.study.baseline
    final = [(run.get("metrics") or {}).get(metric) for run in context.finished(base)]
    known = [value for value in final if value is not None and np.isfinite(value)]
    mean = float(np.mean(known)) if known else 0.0
    return {part: part * mean for part in LEVELS} if mean > 0 else {}


def time_text(found: Sequence[tuple[float, float] | None]) -> str:
    """Return when a variant reached a level, as a mean over the runs that reached it.

    >>> time_text([(100, 50.0), (120, 60.0)]), time_text([(100, 50.0), None])
    ('110 steps, 55 s', '100 steps, 50 s (1 of 2 seeds)')
    >>> time_text([None])
    'not reached'
    """
    known = [pair for pair in found if pair is not None]
    if not known:
        return "not reached"
    steps, seconds = np.mean(known, axis=0)
    text = f"{steps:.0f} steps"
    text += "" if np.isnan(seconds) else f", {duration(float(seconds))}"
    return text if len(known) == len(found) else f"{text} ({len(known)} of {len(found)} seeds)"


def _time_table(context: Context, histories: Histories) -> Table | None:
    wanted = levels(context)
    metric = context.study.metric
    curves = {label: [ap_curve(h, metric) for h in own] for label, own in histories.items()}
    curves = {label: own for label, own in curves.items() if any(len(c.step) > 1 for c in own)}
    if not wanted or not curves:
        return None
    headers = [f"{metric} {points(level)} ({part:.0%})" for part, level in wanted.items()]
    rows = []
    for label, own in curves.items():
        times = [[time_to_level(curve, level) for curve in own] for level in wanted.values()]
        rows.append([label, *map(time_text, times)])
    several = any(len(own) > 1 for own in curves.values())
    reached = "; mean over the seeds that reach it" if several else ""
    note = (
        f"Training steps and time, without evaluations, until {metric} first reaches a fraction of "
        f"the final {metric} of {context.study.baseline}{reached}. "
        "Interpolated linearly between evaluations, and from 0 at step 0 to the first one."
    )
    return Table(["variant", *headers], rows, note)


def cost_table(context: Context) -> Table | None:
    """Return seconds per iteration and peak memory, or None if neither is known."""
    runs = {label: context.finished(label) for label in context.study.labels}
    seconds = {label: _mean(own, "seconds_per_iteration") for label, own in runs.items()}
    memory = {label: _mean(own, "peak_memory_mb") for label, own in runs.items()}
    shown = [label for label in runs if seconds[label] is not None or memory[label] is not None]
    if not shown:
        return None
    base = context.study.baseline
    rows = []
    for label in shown:
        cells = [
            cell
            for values in (seconds, memory)
            for cell in (number(values[label]), ratio(values[label], values[base]))
        ]
        rows.append([label, *cells])
    kinds = {run.get("peak_memory_kind") for own in runs.values() for run in own}
    known = [text for kind, text in _MEMORY_KINDS.items() if kind in kinds]
    means = "Means over seeds; ratios" if any(len(own) > 1 for own in runs.values()) else "Ratios"
    note = f"{means} to {base} in this comparison. "
    note += f"Memory is {' or '.join(known)}. " if known else ""
    note += "These are not benchmark results if the machine was also used for other work."
    headers = ["variant", "s / iteration", "ratio", "peak memory (MB)", "ratio"]
    return Table(headers, rows, note)


def ratio(value: float | None, base: float | None) -> str:
    """Return a ratio, or a dash if there is none.

    >>> ratio(3.0, 2.0), ratio(None, 2.0)
    ('1.50', '-')
    """
    return number(None) if value is None or not base else f"{value / base:.2f}"


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [run[key] for run in runs if run.get(key) is not None]
    return float(np.mean(known)) if known else None


def _figures(context: Context, histories: Histories) -> list[Figure]:
    metric = context.study.metric
    every = [history for own in histories.values() for history in own]
    drawn = [_figure(context, histories, ap_curve, metric, f"{metric} on the evaluated images")]
    drawn += [
        _figure(context, histories, loss_curve, name, "Total loss" if name == "loss" else name)
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
    is_ap = read is ap_curve
    least = 2 if is_ap else 1  # one evaluation is in the table of results
    curves = {
        label: [curve for history in own if len((curve := read(history, name)).step) >= least]
        for label, own in histories.items()
    }
    curves = {label: own for label, own in curves.items() if own}
    if not curves:
        return None
    scale = 100 if is_ap else 1
    blocks = int(np.clip(_POINTS // sum(len(own) + 1 for own in curves.values()), 20, 150))
    longest = max(len(curve.step) for own in curves.values() for curve in own)

    def paint(axes: Axes) -> None:
        for label, own in curves.items():
            _draw_variant(axes, context.styles[label], own, blocks, scale)
        axes.margins(x=0.02)
        if is_ap:
            axes.set_ylim(bottom=0)

    several = any(len(own) > 1 for own in curves.values())
    caption = f"{title} during training"
    caption += "; thin lines: single seeds, thick lines: mean over seeds." if several else "."
    if longest > blocks:
        caption += f" Each point is the mean of about {longest / blocks:.0f} stored values."
    legend = context.legend(list(curves))
    alt = f"{title} of {len(curves)} variants against training steps"
    kind = "training-ap" if is_ap else "training-loss"
    return Figure(chart(paint, kind, alt, x="steps", y=clean(name, 30), legend=legend), caption)


def _draw_variant(
    axes: Axes, style: Style, curves: Sequence[Curve], blocks: int, scale: float
) -> None:
    """Draw the mean over seeds, and the single seeds if there are several."""
    for curve in curves if len(curves) > 1 else ():
        _draw_curve(axes, curve, blocks, scale, color=style.colour, alpha=0.4, linewidth=0.8)
    mean = mean_curve(curves)
    marker = style.marker if len(mean.step) < 3 else None
    line = dict(color=style.colour, linestyle=style.dash, marker=marker)
    _draw_curve(axes, mean, blocks, scale, **line)


def _draw_curve(axes: Axes, curve: Curve, blocks: int, scale: float, **line: Any) -> None:
    axes.plot(block_means(curve.step, blocks), scale * block_means(curve.value, blocks), **line)


def block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    """Shorten an array to means of consecutive values.

    >>> block_means(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist()
    [2.0, 6.0]

    Args:
        values: ``[N]``.
        blocks: length of the result, if ``values`` is longer.
    """
    if len(values) <= blocks:
        return values
    return np.array([part.mean() for part in np.array_split(values, blocks)])
