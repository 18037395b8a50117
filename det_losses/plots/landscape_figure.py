"""The figure of landscapes: one row for each loss, its value, descent directions and marks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.plots.curve_figure import MOST, as_ratio
from det_losses.plots.landscape import EXTENT, PLANES, Landscape, landscape
from det_losses.plots.sheet import add_axes, add_text, check_new, file_name, save, sheet
from det_losses.report.plotting import FONT, INK, clean

AWAY = "#d55e00"
NOTES = (
    "Darker: larger loss. Arrows: direction of gradient descent, longer where the gradient is "
    "larger. Grey dots: the gradient is zero. Orange crosses: descent moves away from the target."
)

_SIDE, _GAP, _LEFT = 200, 92, 50  # of a panel, between and before panels
_ROW = 44 + _SIDE + 42
_EVERY, _FIRST = 5, 2  # cells with an arrow
_LABELS = {
    "position": ("centre offset / target width", "centre offset / target height"),
    "size": ("width / target width", "height / target height"),
}


def draw_landscapes(
    losses: Mapping[str, Loss], out: Path, *, overwrite: bool = False
) -> tuple[list[Path], list[str]]:
    """Draw the landscapes of box losses in one figure.

    Args:
        losses: by label, as :func:`~det_losses.plots.probe.named_losses` returns them.
        out: folder of the files.
        overwrite: whether existing files are replaced.

    Returns:
        The files, and the numbers of marked cells of each loss and plane.

    Raises:
        InputError: a loss is not a box loss, or more than ``MOST`` losses.
        ExistingFileError: a file exists.
    """
    if len(losses) > MOST:
        raise InputError(f"{len(losses)} losses: one figure shows up to {MOST}")
    data = {label: [landscape(loss, plane) for plane in PLANES] for label, loss in losses.items()}
    name = file_name(list(losses), "landscapes", "_landscape")
    check_new(out, [name], overwrite)
    with landscape_figure(data) as figure:
        files = save(figure, out, name)
    return files, [f"{label}, {each.counts()}" for label, both in data.items() for each in both]


@contextmanager
def landscape_figure(data: Mapping[str, Sequence[Landscape]]) -> Iterator[Figure]:
    """Draw one row for each loss, both planes."""
    width = _LEFT + len(PLANES) * (_SIDE + _GAP) - 38
    with sheet(width, len(data) * _ROW, [NOTES]) as figure:
        for index, (label, planes) in enumerate(data.items()):
            top = index * _ROW + 44
            add_text(figure, 8, top - 27, clean(label, 70), fontsize=FONT + 1, weight="bold")
            for column, each in enumerate(planes):
                left = _LEFT + column * (_SIDE + _GAP)
                add_text(figure, left, top - 7, _marks(each), fontsize=FONT - 1)
                axes = add_axes(figure, left, top, _SIDE, _SIDE)
                bar = add_axes(figure, left + _SIDE + 6, top, 7, _SIDE)
                _paint(axes, bar, each)
        yield figure


def _marks(data: Landscape) -> str:
    counts = [
        f"{name} {max(mask.mean(), 0.01):.0%}"
        for name, mask in (("no gradient", data.zero), ("away", data.away))
        if mask.any()
    ]
    return f"{data.plane}: {', '.join(counts)}" if counts else data.plane


def _paint(axes: Axes, bar: Axes, data: Landscape) -> None:
    half = EXTENT[data.plane]
    low, high = np.nanmin(data.value), np.nanmax(data.value)
    high = high if high > low else low + 1
    # The upper half of the colours would hide arrows and marks.
    colours = dict(cmap="Blues", vmin=low, vmax=low + 1.9 * (high - low))
    extent = (-half, half, -half, half)
    axes.imshow(data.value, origin="lower", extent=extent, interpolation="nearest", **colours)
    for mask, hatch, colour in ((data.zero, "..", "#666666"), (data.away, "xx", AWAY)):
        if mask.any():
            marked = axes.contourf(data.axis, data.axis, mask, [0.5, 1.5], colors="none")
            marked.set(hatch=hatch, edgecolor=colour, linewidth=0)
    _arrows(axes, data, 2 * half / len(data.axis))
    axes.plot(0, 0, marker="+", color=INK, markersize=10)
    x, y = _LABELS[data.plane]
    axes.set(xlabel=x, ylabel=y)
    ticks = (-2, -1, 0, 1, 2)
    at, texts = ticks, list(map(str, ticks))
    if data.plane == "size":
        at, texts = np.array(ticks) * np.log(2), [as_ratio(2.0**tick) for tick in ticks]
    axes.set_xticks(at, texts)
    axes.set_yticks(at, texts)
    steps = np.linspace(low, high, 64)[:, None]
    bar.imshow(steps, origin="lower", extent=(0, 1, low, high), aspect="auto", **colours)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.locator_params(axis="y", nbins=5)


def _arrows(axes: Axes, data: Landscape, cell: float) -> None:
    """Draw descent directions; the length grows with the square root of the gradient's norm."""
    some = slice(_FIRST, None, _EVERY)
    descent, visible = -data.gradient[some, some], ~data.zero[some, some]
    x, y = np.meshgrid(data.axis[some], data.axis[some])
    x, y, descent = x[visible], y[visible], descent[visible]
    if not len(descent):
        return
    norm = np.linalg.norm(descent, axis=1, keepdims=True)
    length = (_EVERY - 1) * cell * np.clip(np.sqrt(norm / np.nanmax(norm)), 0.35, 1)
    axes.quiver(
        *(x, y, *(descent * length / norm).T),
        **dict(color=INK, pivot="mid", angles="xy", scale_units="xy", scale=1, width=0.008),
    )
