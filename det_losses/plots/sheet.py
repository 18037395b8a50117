"""A white sheet with axes and texts at given places, and its SVG and PNG files."""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from det_losses.errors import ExistingFileError
from det_losses.files import write_bytes
from det_losses.report.plotting import FONT, canvas, clean

LINE = 15  # units per line of text
FORMATS = ("svg", "png")

_RESOLUTION = 100  # pixels of a PNG per 72 units
_COLOURS = 64  # of a PNG: a quarter of the size of one with all colours
_CHARACTER = 7.2  # units of a character, on average


@contextmanager
def sheet(width: float, height: float, notes: Sequence[str] = ()) -> Iterator[Figure]:
    """Provide a white figure with notes below; its height grows by those.

    Args:
        width: in units of 1/72 inch, as all sizes here.
        height: without the notes.
        notes: sentences, one paragraph each.
    """
    lines = [line for note in notes for line in textwrap.wrap(clean(note, 1000), int(width / 6.6))]
    total = height + (LINE * len(lines) + 8 if lines else 0)
    with canvas(width, total) as figure:
        figure.patch.set(visible=True, facecolor="white")
        for index, line in enumerate(lines):
            add_text(figure, 8, height + LINE * (index + 0.5), line, fontsize=FONT - 1)
        yield figure


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place measured from the top left corner."""
    across, down = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def add_text(figure: Figure, x: float, y: float, text: str, **options) -> None:
    """Add text with its base line at a place measured from the top left corner."""
    across, down = figure.get_size_inches() * 72
    figure.text(x / across, 1 - y / down, text, **options)


def text_width(text: str) -> float:
    """Return the approximate width of a text."""
    return _CHARACTER * len(text)


def file_name(labels: Sequence[str], several: str, suffix: str = "") -> str:
    """Return the name of a figure's files without extension: that of its only loss, or ``several``.

    >>> file_name(["InnerIoU(CIoULoss, ratio=0.7)"], "curves")
    'InnerIoU-CIoULoss-ratio=0.7'
    """
    if len(labels) > 1:
        return several
    return re.sub(r"[^\w.=]+", "-", labels[0]).strip("-")[:100] + suffix


def check_new(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Check that no file of these figures exists.

    Raises:
        ExistingFileError: one does, and ``overwrite`` is false.
    """
    for path in (out / f"{name}.{each}" for name in names for each in FORMATS):
        if path.exists() and not overwrite:
            raise ExistingFileError(f"{path} exists; choose another --out, or --overwrite")


def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG; return the files."""
    png, small = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=_RESOLUTION)
    image = Image.open(png).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    files = [out / f"{name}.{each}" for each in FORMATS]
    for file, content in zip(files, (as_svg(figure), small.getvalue()), strict=True):
        write_bytes(file, content)
    return files


def as_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
