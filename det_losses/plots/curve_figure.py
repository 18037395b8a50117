"""The figure of curves: one row for each question, gradient and value, names at their ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.plots import probe
from det_losses.plots.curves import Curve, Question, curves, questions, remarks
from det_losses.plots.sheet import (
    LINE,
    add_axes,
    add_text,
    check_new,
    file_name,
    save,
    sheet,
    text_width,
)
from det_losses.report.plotting import FONT, INK, Style, clean, styles

MOST = 10  # losses in one figure: as many as there are styles

_PANEL, _GAP, _LEFT = 160, 54, 56  # widths of a panel, between and before panels
_HEAD, _FOOT = 24, 42  # heights above and below a panel
_STEEP = 2.2  # limit of an axis in units of the 90th percentile of the second largest curve


def draw_curves(
    losses: Mapping[str, Loss], out: Path, *, overwrite: bool = False
) -> tuple[list[Path], list[str]]:
    """Draw one figure for each kind of loss.

    Args:
        losses: by label, as :func:`~det_losses.plots.probe.named_losses` returns them.
        out: folder of the files.
        overwrite: whether existing files are replaced.

    Returns:
        The files, and remarks on what the curves depend on.

    Raises:
        InputError: more than ``MOST`` losses of one kind.
        ExistingFileError: a file exists.
    """
    groups: dict[str, dict[str, Loss]] = {}
    for label, loss in losses.items():
        groups.setdefault(probe.kind_of(loss), {})[label] = loss
    for kind, group in groups.items():
        if len(group) > MOST:
            raise InputError(f"{len(group)} {probe.KINDS[kind]}: one figure shows up to {MOST}")
    names = {kind: file_name(list(group), f"curves_{kind}") for kind, group in groups.items()}
    check_new(out, list(names.values()), overwrite)
    files, notes = [], []
    for kind, group in groups.items():
        found = remarks(kind, group)
        data = [(question, curves(question, group)) for question in questions(kind)]
        with curve_figure(probe.KINDS[kind], data, found) as figure:
            files += save(figure, out, names[kind])
        notes += found
    return files, notes


@contextmanager
def curve_figure(
    title: str, data: Sequence[tuple[Question, Mapping[str, Curve]]], notes: Sequence[str] = ()
) -> Iterator[Figure]:
    """Draw the curves of the same losses for one or more questions."""
    style = styles(list(data[0][1]))
    shown = {label: clean(label, 32) for label in data[0][1]}
    height = max(190 if len(data) == 1 else 128, LINE * len(shown))
    width = _LEFT + 2 * _PANEL + _GAP + 36 + max(map(text_width, shown.values()))
    row = _HEAD + height + _FOOT
    with sheet(width, 26 + row * len(data), notes) as figure:
        add_text(figure, 8, 17, title[0].upper() + title[1:], fontsize=FONT + 1, weight="bold")
        for index, (question, found) in enumerate(data):
            top = 26 + index * row + _HEAD
            add_text(figure, 8, top - 9, question.title)
            for column, what in enumerate(("gradient", "value")):
                axes = add_axes(figure, _LEFT + column * (_PANEL + _GAP), top, _PANEL, height)
                lines = {label: getattr(curve, what) for label, curve in found.items()}
                paint(axes, question, lines, style)
                if question.disjoint_from is not None:
                    shade_disjoint(axes, question, 0.92 if what == "gradient" else 0.3)
                axes.set_ylabel("loss" if what == "value" else question.gradient_label, labelpad=2)
            _name_lines(axes, (_PANEL, height), lines, style, shown)
        yield figure


def paint(
    axes: Axes, question: Question, lines: Mapping[str, np.ndarray], style: Mapping[str, Style]
) -> None:
    """Draw the lines of a panel, its axes and the label of the horizontal one."""
    low, high = question.limits
    if question.log2:
        axes.set_xscale("log", base=2)
        powers = 2.0 ** np.arange(np.log2(low), np.log2(high) + 1)
        axes.set_xticks(powers, [as_ratio(each) for each in powers])
    for label, y in lines.items():
        axes.plot(question.x, y, color=style[label].colour, linestyle=style[label].dash)
    axes.set(xlim=(low, high), ylim=_limits(list(lines.values())), xlabel=question.x_label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.grid(True, color=INK, alpha=0.13, linewidth=0.7)


def shade_disjoint(axes: Axes, question: Question, y: float) -> None:
    """Shade where the boxes are disjoint, with a text at a height where few curves are."""
    start, end = question.disjoint_from, question.limits[1]
    axes.axvspan(start, end, color=INK, alpha=0.07, linewidth=0)
    place = dict(ha="center", va="center", transform=axes.get_xaxis_transform())
    axes.text((start + end) / 2, y, "disjoint", fontsize=FONT - 2, **place)


def _limits(lines: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return limits of the vertical axis; only the ends of very steep curves lie outside.

    A constant is not enlarged until its rounding fills the axis.
    """
    finite = [line[np.isfinite(line)] for line in lines]
    finite = [line for line in finite if line.size] or [np.zeros(1)]
    low, high = min(line.min() for line in finite), max(line.max() for line in finite)
    typical = sorted(np.percentile(np.abs(line), 90) for line in finite)[-2:][0]
    if typical > 0:
        low, high = max(low, -_STEEP * typical), min(high, _STEEP * typical)
    margin = 0.05 * (high - low)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        margin = 0.5 * max(abs(low), abs(high)) or 0.5
    return low - margin, high + margin


def _name_lines(
    axes: Axes,
    size: tuple[float, float],
    lines: Mapping[str, np.ndarray],
    style: Mapping[str, Style],
    shown: Mapping[str, str],
) -> None:
    """Write the names to the right of the axes, each joined to the end of its line."""
    (width, height), (low, high) = size, axes.get_ylim()

    def end(label: str) -> float:
        last = np.nan_to_num(lines[label][-1], nan=low)
        return height * (np.clip(last, low, high) - low) / (high - low)

    # Names of lines with the same end have the order of the lines.
    ordered = sorted(lines, key=lambda label: (round(end(label) / 4), np.nanmean(lines[label])))
    places = spread([end(label) for label in ordered], LINE, height)
    for label, place in zip(ordered, places, strict=True):
        x = [1 + each / width for each in (0, 14, 26, 30)]
        y = [end(label) / height, place / height, place / height]
        line = dict(color=style[label].colour, linestyle=style[label].dash, linewidth=1.5)
        axes.plot(x[:3], y, transform=axes.transAxes, clip_on=False, **line)
        axes.text(x[3], place / height, shown[label], va="center", transform=axes.transAxes)


def spread(wanted: Sequence[float], distance: float, height: float) -> list[float]:
    """Return positions near the wanted ones, in their order, at least ``distance`` apart.

    Args:
        wanted: in ascending order.
        distance: between two positions.
        height: positions stay half a distance away from 0 and ``height``, if there is room.

    >>> spread([10, 12, 80], 10, 100)
    [6.0, 16.0, 80.0]
    """
    blocks: list[tuple[float, int]] = []  # middle and number of positions, from below
    for position in wanted:
        middle, count = float(position), 1
        while True:
            half = distance * count / 2
            middle = min(max(middle, half), max(half, height - half))
            if not blocks or middle - blocks[-1][0] >= half + distance * blocks[-1][1] / 2:
                break
            below, others = blocks.pop()
            middle = (middle * count + below * others) / (count + others)
            count += others
        blocks.append((middle, count))
    return [
        middle + distance * (index - (count - 1) / 2)
        for middle, count in blocks
        for index in range(count)
    ]


def as_ratio(x: float) -> str:
    """Return a power of two as text.

    >>> as_ratio(0.25), as_ratio(4)
    ('1/4', '4')
    """
    return f"{x:g}" if x >= 1 else f"1/{1 / x:g}"
