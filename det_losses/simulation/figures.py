"""Figures of simulations: error curves, the plane of anchor positions, boxes over time."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from det_losses.files import write_bytes
from det_losses.report.plotting import INK, canvas, clean, styles
from det_losses.simulation.protocol import PROTOCOLS
from det_losses.simulation.run import Result, Settings, descend, gradient_of, simulated_loss

_DPI = 110
_WIDTH = 640
_ROW, _LABEL = 13, 80  # least vertical and horizontal distance of two labels, points
# Anchors of the animation, as x, y, w, h: offsets in radii of the disc, sides in those of a square
# target with the same area.
_CASES = (
    ("apart, diagonal", (0.7, 0.6, 1.0, 1.0)),
    ("apart, horizontal", (0.8, 0.0, 0.8, 1.2)),
    ("overlapping", (0.15, 0.1, 0.6, 1.4)),
    ("around the target", (0.03, 0.02, 1.6, 2.0)),
)
_TARGET = (1.25, 0.8)  # width and height
_FRAMES = 40


def curves(results: Sequence[Result], path: Path) -> None:
    """Draw the sum of errors at each step, on a linear and a logarithmic scale, as SVG and PNG."""
    height = max(280, 60 + _ROW * len(results))
    with saved(path, _WIDTH, height) as figure:
        linear, log = figure.subplots(1, 2, width_ratios=(1, 1.5))
        for axes in (linear, log):
            axes.grid(True, color=INK, alpha=0.13, linewidth=0.7)
            axes.set_xlabel("step")
            for result, style in _styled(results):
                error = np.array(result.error) / 1e6
                axes.plot(error, color=style.colour, linestyle=style.dash, linewidth=1.5)
        linear.set_ylabel("sum of errors over all cases, millions")
        linear.set_ylim(bottom=0)
        log_axis(log.yaxis)
        log.yaxis.minorticks_off()
        linear.set_title("linear scale", loc="left", fontsize=11)
        log.set_title("logarithmic scale", loc="left", fontsize=11)
        spread(
            log,
            [
                (
                    len(result.error) - 1,
                    result.error[-1] / 1e6,
                    result.settings["loss"],
                    style.colour,
                )
                for result, style in _styled(results)
            ],
        )


def plane(results: Sequence[Result], path: Path) -> None:
    """Draw the mean final error of the anchors at each point, one panel per loss."""
    protocol = PROTOCOLS[results[0].settings["protocol"]]
    x, y = protocol.point_positions(results[0].settings["seed"]).T
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    planes = [np.array([np.nan if v is None else v for v in each.plane]) for each in results]
    highest = max(float(np.nanmax(each)) for each in planes)
    norm = LogNorm(1e-3, max(highest, 2e-3), clip=True)
    with saved(path, _WIDTH, 215 * rows + 20) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(results) :]:
            axes.set_axis_off()
        for axes, result, values in zip(grid.flat, results, planes, strict=False):
            seen = ~np.isnan(values)
            points = axes.hexbin(
                *(x[seen], y[seen], values[seen]),
                **dict(gridsize=24, cmap="cividis", norm=norm, linewidths=0.1),
            )
            side = protocol.target_area**0.5
            corner = [each - side / 2 for each in protocol.center]
            axes.add_patch(Rectangle(corner, side, side, fill=False, ec="white", lw=1.2))
            axes.set_aspect("equal")
            axes.tick_params(labelbottom=True)
            axes.set_title(clean(result.settings["loss"], 34), fontsize=10)
        bar = figure.colorbar(
            points, ax=grid, shrink=0.7, format=FuncFormatter(lambda v, _: f"{v:g}")
        )
        bar.set_label("mean final error of the anchors at a point")
        bar.outline.set_visible(False)


def animation(settings: Sequence[Settings], path: Path) -> None:
    """Animate four anchors under each loss, at most six losses, as GIF."""
    settings = settings[:6]
    protocol = PROTOCOLS[settings[0].protocol]
    steps = settings[0].steps or protocol.steps
    anchors, targets = _chosen_cases(settings[0].protocol)
    tracks = []
    for each in settings:
        gradient = gradient_of(each, simulated_loss(each), anchors, targets)
        moves = descend(gradient, anchors, targets, protocol, steps)
        tracks.append(torch.stack([boxes for boxes, _, _ in moves]).numpy())
    shown = np.unique(np.geomspace(1, steps + 1, _FRAMES).round().astype(int)) - 1
    with canvas(108 * len(settings) + 90, 108 * len(_CASES) + 40, layout="constrained") as figure:
        figure.patch.set(visible=True, facecolor="white")
        grid = figure.subplots(len(_CASES), len(settings), squeeze=False)
        movers = [
            _case_axes(grid[row, column], anchors[:, row], targets[:, row], track[..., row])
            for column, track in enumerate(tracks)
            for row in range(len(_CASES))
        ]
        for axes, each in zip(grid[0], settings, strict=True):
            axes.set_title(clean(each.loss, 22), fontsize=9)
        for axes, (name, _) in zip(grid[:, 0], _CASES, strict=True):
            axes.set_ylabel(name, fontsize=10)
        writer = PillowWriter(fps=8)
        with writer.saving(figure, str(path), dpi=80):
            for step in [*shown, *[shown[-1]] * 8]:
                figure.suptitle(
                    f"step {step}   black: target, dotted: anchor, blue: box",
                    x=0.02,
                    ha="left",
                    fontsize=11,
                )
                for index, mover in enumerate(movers):
                    column, row = divmod(index, len(_CASES))
                    _place(mover, tracks[column][step, :, row])
                writer.grab_frame()


def _chosen_cases(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    protocol = PROTOCOLS[name]
    side = protocol.target_area**0.5
    x, y = protocol.center
    anchors = [
        (x + dx * protocol.radius, y + dy * protocol.radius, w * side, h * side)
        for _, (dx, dy, w, h) in _CASES
    ]
    target = (x, y, _TARGET[0] * side, _TARGET[1] * side)
    return (
        torch.tensor(anchors, dtype=torch.float64).T.contiguous(),
        torch.tensor([target] * len(_CASES), dtype=torch.float64).T.contiguous(),
    )


def _case_axes(
    axes: Axes, anchor: torch.Tensor, target: torch.Tensor, track: np.ndarray
) -> Rectangle:
    """Draw anchor and target, fit the axes to the whole track, and return the moving box."""
    for box, style in ((anchor, dict(ls=":", ec="#808080")), (target, dict(ls="-", ec=INK))):
        _place(axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, lw=1.4, **style)), box.numpy())
    mover = axes.add_patch(Rectangle((0, 0), 1, 1, fc="#1a80c440", ec="#1a80c4", lw=1.6))
    every = np.concatenate([track, target.numpy()[None]])
    half = np.abs(every[:, 2:]) / 2
    low, high = (every[:, :2] - half).min(0), (every[:, :2] + half).max(0)
    middle, reach = (low + high) / 2, 0.55 * (high - low).max()
    axes.set(
        xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach)
    )
    axes.set(xticks=[], yticks=[], aspect="equal")
    return mover


def _place(patch: Rectangle, box: np.ndarray) -> None:
    x, y, w, h = box
    patch.set_bounds(x - w / 2, y - h / 2, w, h)


def _styled(results: Sequence[Result]) -> Iterator[tuple]:
    labels = [each.settings["loss"] for each in results]
    by_label = styles(labels, "")  # without a baseline, which is grey
    return zip(results, (by_label[label] for label in labels), strict=True)


def spread(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels (x, y, text, colour) to the right of points, moved apart where they overlap."""
    axes.figure.canvas.draw()
    points = np.array([axes.transData.transform(each[:2]) for each in labels])
    left, height = (points * 72 / axes.figure.dpi).T
    moved = height + np.linspace(0, 1e-3, len(labels))  # no two at one height
    near = np.abs(left[:, None] - left) < _LABEL
    for _ in range(1000):
        gap = moved[:, None] - moved
        close = near & (np.abs(gap) < _ROW - 0.1)
        push = np.where(close, np.sign(gap) * (_ROW - np.abs(gap)), 0).sum(1)
        if not push.any():
            break
        moved += push / 4
    for (x, y, text, colour), offset in zip(labels, moved - height, strict=True):
        axes.annotate(
            clean(text, 30),
            xy=(x, y),
            xytext=(10, offset),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops=dict(arrowstyle="-", color=colour, linewidth=0.5, shrinkA=0, shrinkB=2),
        )


def log_axis(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers at powers of ten."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def saved(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Provide a figure and save it as ``path`` with the suffixes .svg and .png."""
    with canvas(width, height, layout="constrained") as figure:
        figure.patch.set(visible=True, facecolor="white")
        yield figure
        for suffix in (".svg", ".png"):
            content, dpi = io.BytesIO(), _DPI * 2 if suffix == ".svg" else _DPI
            figure.savefig(content, format=suffix[1:], dpi=dpi)
            write_bytes(path.with_suffix(suffix), content.getvalue())
