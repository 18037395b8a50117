"""Charts as inline SVG that follow the page: its text colour, its font, its width."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from det_losses.report.svg import INK, inline

WIDTH = 460  # user units: on a phone of 390 px a text of 12 units is still 9 px high
FONT = 12
_ROW = 17  # units a line of the legend takes
_CHARACTER = 6.6  # units a character takes, roughly
_DASHES = ("solid", (0, (5, 2)), (0, (1.3, 1.5)), (0, (6, 2, 1.3, 2)), (0, (10, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "det_losses",
    "font.family": "sans-serif",
    "font.size": FONT,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": FONT - 1,
    "ytick.labelsize": FONT - 1,
    "legend.frameon": False,
    "legend.fontsize": FONT - 1,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Style:
    """How a variant is drawn everywhere: by colour, dash and marker, so that no colour is needed.

    Attributes:
        label: the variant, as it is called.
        colour: ``#rrggbb``.
        dash: matplotlib's line style.
        marker: matplotlib's marker.
    """

    label: str
    colour: str
    dash: str | tuple
    marker: str


def styles(labels: Sequence[str], colour: Callable[[str], str]) -> dict[str, Style]:
    """Give each label a style of its own, for up to ten labels without a marker twice."""
    return {
        label: Style(
            label, colour(label), _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)]
        )
        for index, label in enumerate(labels)
    }


def chart(
    paint: Callable[[Axes], None],
    name: str,
    alt: str,
    *,
    x: str = "",
    y: str = "",
    height: float = 250,
    grid: str = "both",
    legend: Sequence[Style] = (),
    lines: bool = True,
    markers: bool = False,
) -> str:
    """Draw one pair of axes.

    Args:
        paint: draws the data into the axes.
        name: starts the ids in the SVG; a word without spaces.
        alt: what a screen reader says.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        height: units, without the legend; the width is ``WIDTH``.
        grid: ``"x"``, ``"y"`` or ``"both"``.
        legend: styles that the legend explains, below the axes.
        lines: whether the legend shows their lines.
        markers: whether it shows their markers.

    Returns:
        An ``<svg>`` element.
    """
    columns, rows = _layout(legend)
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser's fonts may have what matplotlib's lacks: here it only measures the text.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=(WIDTH / 72, (height + rows * _ROW) / 72), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(True, axis=grid, color=INK, alpha=0.13, linewidth=0.7)
        axes.set_xlabel(clean(x))
        axes.set_ylabel(clean(y))
        paint(axes)
        _add_legend(figure, legend, columns, lines, markers)
        return inline(_save(figure), name, clean(alt))


def clean(text: str, limit: int = 200) -> str:
    """Return ``text`` on one line, without characters that XML forbids, cut in its middle.

    >>> clean("one" + chr(10) + "two" + chr(7)), clean("abcdefghij", 7)
    ('one two', 'abc…hij')
    """
    text = " ".join(re.sub(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text).split())
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def _layout(legend: Sequence[Style]) -> tuple[int, int]:
    if not legend:
        return 1, 0
    widest = max(map(len, _texts(legend)))
    most = int(np.clip(WIDTH // (widest * _CHARACTER + 45), 1, min(4, len(legend))))
    rows = -(-len(legend) // most)
    return -(-len(legend) // rows), rows


def _add_legend(
    figure: Figure, legend: Sequence[Style], columns: int, lines: bool, markers: bool
) -> None:
    if not legend:
        return
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            linestyle=style.dash if lines else "none",
            marker=style.marker if markers else "none",
        )
        for style in legend
    ]
    # matplotlib drops labels that start with "_"; a text set afterwards is taken as it is.
    drawn = figure.legend(
        handles,
        [str(index) for index in range(len(handles))],
        loc="outside lower center",
        ncols=columns,
        handlelength=2.4,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
    for text, label in zip(drawn.get_texts(), _texts(legend), strict=True):
        text.set_text(label)


def _texts(legend: Sequence[Style]) -> list[str]:
    """Return the labels, short enough for two columns where there are many."""
    for limit in (28, 44) if len(legend) > 5 else (44,):
        texts = [clean(style.label, limit) for style in legend]
        if len(set(texts)) == len(texts):
            break
    return texts


def _save(figure: Figure) -> str:
    """Write the figure by its canvas: savefig would draw it twice."""
    buffer = io.StringIO()
    figure.canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()
