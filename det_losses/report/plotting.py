"""Figures drawn with matplotlib, as inline SVG in the page's text colour and font."""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from det_losses.report import formats
from det_losses.statistics import Difference

INK, PAPER = "#010203", "#040506"  # placeholders of the page's text and background colours
FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
WIDTH = 460  # of a chart, in SVG units: on a phone, 390 px wide, a text of 12 units is 9 px high
FONT = 12

_ROW = 17  # units per line of the legend
_CHARACTER = 6.6  # approximate units per character
_STRIP = (208, 34)  # width and height of an interval plot
_MARGIN = 0.07  # part of its width on each side

_BASELINE_COLOUR = "#808080"
# The palette of Okabe and Ito without yellow and black, then four colours of Tol: distinguishable
# with colour vision deficiency, and visible on white and on near-black.
_COLOURS = (
    *("#1a80c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#aa4499", "#999933", "#44aa99", "#cc6677"),
)
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
    """How a variant is drawn in all figures: by colour, dash and marker.

    Attributes:
        label: the variant.
        colour: ``#rrggbb``.
        dash: matplotlib's line style.
        marker: matplotlib's marker.
    """

    label: str
    colour: str
    dash: str | tuple
    marker: str


def styles(labels: Sequence[str], baseline: str | None = None) -> dict[str, Style]:
    """Return a style for each label, the baseline, if there is one, first and grey.

    Up to ten labels have different markers.
    """
    ordered = [label for label in labels if label != baseline]
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(ordered))]
    if baseline is not None:
        ordered, colours = [baseline, *ordered], [_BASELINE_COLOUR, *colours]
    return {
        label: Style(label, colour, _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])
        for i, (label, colour) in enumerate(zip(ordered, colours, strict=True))
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
        name: prefix of the ids in the SVG; a word without spaces.
        alt: text for screen readers.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        height: units, without the legend; the width is ``WIDTH``.
        grid: ``"x"``, ``"y"`` or ``"both"``; empty: no grid.
        legend: styles in the legend below the axes.
        lines: whether the legend shows their lines.
        markers: whether it shows their markers.

    Returns:
        An ``<svg>`` element.
    """
    columns, rows = _layout(legend)
    with canvas(WIDTH, height + rows * _ROW, layout="constrained") as figure:
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        if grid:
            axes.grid(True, axis=grid, color=INK, alpha=0.13, linewidth=0.7)
        axes.set_xlabel(clean(x))
        axes.set_ylabel(clean(y))
        paint(axes)
        _add_legend(figure, legend, columns, lines, markers)
        return inline(figure, name, clean(alt))


@dataclass(frozen=True)
class Intervals:
    """Interval plots for the rows of a table, all on one scale.

    Attributes:
        low: left end of the scale, points.
        high: right end, points.
        ticks: tick positions, points.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, differences: Sequence[Difference]) -> "Intervals":
        """Return a scale that contains zero and all intervals, with few round ticks."""
        ends = [100 * end for d in differences for end in (d.low, d.high) if math.isfinite(end)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        if low == high:
            low, high = -1.0, 1.0
        locator = MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=3)
        ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        return cls(low, high, tuple(ticks))

    def axis(self) -> str:
        """Return the axis with its numbers, for the head of the table."""
        step = self.ticks[1] - self.ticks[0]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        with self._strip(18) as (figure, axes):
            for tick in self.ticks:
                text = f"{tick:+.{digits}f}" if abs(tick) > step / 2 else "0"
                axes.text(tick, 7, text, ha="center", fontsize=FONT)
                axes.plot([tick, tick], [0, 4], color=INK, linewidth=1, clip_on=False)
            return inline(figure, "scale", "scale in points", css_class="interval")

    def plot(self, difference: Difference | None, colour: str, significant: bool) -> str:
        """Return a row's plot: a line at zero, the interval, and a dot at the difference.

        Args:
            difference: the difference to draw; None: only the line at zero.
            colour: colour of interval and dot, ``#rrggbb``.
            significant: whether the dot is filled.
        """
        height = _STRIP[1]
        alt = "no difference"
        with self._strip(height) as (figure, axes):
            axes.plot([0, 0], [0, height], color=INK, alpha=0.6, linewidth=1, clip_on=False)
            if difference is not None and difference.low < difference.high:
                d, middle = difference, height / 2
                line = dict(color=colour, linewidth=2.5, clip_on=False, solid_capstyle="butt")
                axes.plot([100 * d.low, 100 * d.high], [middle] * 2, **line)
                for end in (d.low, d.high):
                    axes.plot([100 * end] * 2, [middle - 4, middle + 4], **line)
                fill = colour if significant else PAPER
                dot = dict(marker="o", markersize=10, markeredgewidth=2.5, linestyle="none")
                axes.plot(
                    [100 * d.value],
                    [middle],
                    color=colour,
                    markerfacecolor=fill,
                    clip_on=False,
                    **dot,
                )
                alt = formats.difference(d.value, d.low, d.high)
            return inline(figure, "interval", alt, css_class="interval")

    @contextmanager
    def _strip(self, height: float) -> Iterator[tuple[Figure, Axes]]:
        with canvas(_STRIP[0], height) as figure:
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            margin = _MARGIN * (self.high - self.low) / (1 - 2 * _MARGIN)
            axes.set(xlim=(self.low - margin, self.high + margin), ylim=(0, height))
            yield figure, axes


@contextmanager
def canvas(width: float, height: float, layout: str | None = None) -> Iterator[Figure]:
    """Provide a transparent figure of the given size in SVG units, with this module's settings."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # matplotlib only measures text. The browser's fonts may have glyphs that its fonts lack.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=(width / 72, height / 72), layout=layout)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        yield figure


def clean(text: str, limit: int = 200) -> str:
    """Return ``text`` on one line, without characters that XML forbids, shortened in the middle.

    >>> clean("one" + chr(10) + "two" + chr(7)), clean("abcdefghij", 7)
    ('one two', 'abc…hij')
    """
    text = " ".join(re.sub(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text).split())
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def _layout(legend: Sequence[Style]) -> tuple[int, int]:
    """Return the columns and rows of a legend."""
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
    # matplotlib drops labels that start with "_", unless their text is set afterwards.
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
    """Return the labels, shortened to fit two columns if there are many."""
    for limit in (28, 44) if len(legend) > 5 else (44,):
        texts = [clean(style.label, limit) for style in legend]
        if len(set(texts)) == len(texts):
            break
    return texts


# From matplotlib's SVG to an element of the page

_SVG = "http://www.w3.org/2000/svg"
_SIZE = "width:100%;max-width:640px;height:auto"
_LINES = f"stroke-linejoin:round;stroke-linecap:butt;font-family:{FONT_FAMILY}"
_FONT = re.compile(r"font(?:-size)?: (?:\w+ )*([\d.]+)px[^;]*(; ?font-family: [^;]*)?")
_LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
_NUMERIC = ("d", "x", "y", "width", "height", "transform", "points")


def inline(
    figure: Figure,
    name: str,
    alt: str,
    *,
    css_class: str = "",
    style: str = "",
    behind: ElementTree.Element | None = None,
) -> str:
    """Return a figure as an SVG element that can be combined with others in one page.

    Placeholder colours are replaced by the page's, and fonts by the system's. Ids with references
    are prefixed with ``name`` and a hash of the figure; other ids are removed. Style sheets, which
    would affect the whole page, and metadata are removed too.

    Args:
        figure: a figure with an SVG canvas.
        name: a word without spaces.
        alt: text for screen readers.
        css_class: class that determines the size; by default the figure is as wide as its parent.
        style: further CSS declarations for the whole figure.
        behind: an SVG element to be placed behind the figure.

    Returns:
        ``<svg ...>...</svg>``: well-formed XML without prolog.
    """
    svg = _save(figure)
    root = ElementTree.fromstring(svg)
    prefix = f"{name}-{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "title"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _value(key.rpartition("}")[2], value, prefix)
            for key, value in element.attrib.items()
            if (key != "id" or value in used) and not value.startswith("rotate(-0 ")
        }
    _flatten(root)
    if behind is not None:
        root.insert(0, behind)
    size = {"class": css_class} if css_class else {}
    root.attrib = {
        "xmlns": _SVG,
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": alt,
        **size,
        "style": ";".join(filter(None, [_LINES, "" if css_class else _SIZE, style])),
    }
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _save(figure: Figure) -> str:
    """Return the figure as SVG. This calls the canvas directly, because savefig draws twice."""
    buffer = io.StringIO()
    figure.canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def _flatten(parent: ElementTree.Element) -> None:
    """Replace groups without attributes by their children, and drop empty definitions."""
    children = []
    for child in parent:
        _flatten(child)
        empty = child.tag == "defs" and not len(child)
        bare = child.tag == "g" and not child.attrib
        children += list(child) if bare or empty else [child]
    parent[:] = children


def _value(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key == "href":
        return value.replace("#", f"#{prefix}", 1)
    value = value.replace("url(#", f"url(#{prefix}").replace(INK, "currentColor")
    value = value.replace(PAPER, "var(--paper)")
    if key == "style":
        return _FONT.sub(r"font-size:\1px", value).replace(": ", ":").replace("; ", ";")
    return _LONG_NUMBER.sub(r"\1", " ".join(value.split())) if key in _NUMERIC else value
