"""Photographs with boxes as SVG over a JPEG, which is stored only once per photograph."""

import base64
import hashlib
import html
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from det_losses.data.images import read_image
from det_losses.errors import InputError
from det_losses.report.plotting import canvas, clean, inline

COLOURS = {"truth": "#ffd92f", "right": "#56b4e9", "wrong": "#ff8c1a"}

_WIDTH, _FONT = 320, 12  # of a panel and of a class name, in SVG units
_CHARACTER = 0.58  # approximate width of a character, in font sizes
_OUTLINE = "font-weight:600;paint-order:stroke;stroke:#000;stroke-width:3px"  # of the class names


@dataclass(frozen=True)
class DrawnBox:
    """A box on an image.

    Attributes:
        box: x, y, width, height in pixels of the original image.
        name: the text beside it, such as its class.
        kind: ``"truth"``, ``"right"`` (solid) or ``"wrong"`` (dashed).
    """

    box: tuple[float, float, float, float]
    name: str
    kind: str


@dataclass(frozen=True)
class Panel:
    """An image with boxes under a title."""

    title: str
    boxes: Sequence[DrawnBox]


def read_jpeg(path: Path, size: tuple[int, int], longest: int, quality: int = 78) -> bytes:
    """Read an image file and return it as a JPEG whose sides are at most ``longest`` pixels.

    Args:
        path: the image file.
        size: width and height in the annotation file, which determine the orientation.
        longest: pixels.
        quality: of the JPEG.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable image, or has another size.
    """
    image = Image.fromarray(read_image(path, size).permute(1, 2, 0).numpy())
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


class Jpegs:
    """Reads image files as JPEGs for a limited time.

    A decoder can take minutes for a damaged or enormous file. It runs in a thread that is given up
    after that time and does not keep the process from ending.

    Args:
        seconds: for all files together.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._left = seconds

    def read(self, path: Path, size: tuple[int, int], longest: int) -> bytes:
        """Return what :func:`read_jpeg` returns.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a readable image, has another size, or the time is over.
        """
        if path.exists() and not path.is_file():  # reading from a FIFO or a device may never end
            raise InputError(f"{path}: not a regular file")
        found: list[bytes | Exception] = []

        def decode() -> None:
            try:
                found.append(read_jpeg(path, size, longest))
            except Exception as error:
                found.append(error)

        begin = time.monotonic()
        thread = threading.Thread(target=decode, daemon=True)
        thread.start()
        thread.join(max(0.0, self._left))
        self._left -= time.monotonic() - begin
        if not found:
            raise InputError(f"{path}: not decoded in time, so it is left out")
        if isinstance(found[0], FileNotFoundError | ValueError):
            raise found[0]
        if isinstance(found[0], Exception):  # of the decoder: too many pixels, no memory
            raise InputError(f"{path}: {found[0]}")
        return found[0]


def side_by_side(
    jpeg: bytes, size: tuple[int, int], panels: Sequence[Panel], caption: Sequence[str], name: str
) -> str:
    """Draw the same image once per panel, each with its boxes.

    The panels are in a row if the page is wide enough, otherwise one below the other. A text that
    would overlap another one is left out; those of larger boxes have priority.

    Args:
        jpeg: the image.
        size: width and height of the original image, pixels.
        panels: the titles and boxes to draw.
        caption: lines below the panels.
        name: prefix of the ids; a word without spaces.

    Returns:
        A ``<div>`` with an ``<svg>`` per panel, well-formed XML.
    """
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    digest = hashlib.sha256(jpeg + repr((size, panels)).encode()).hexdigest()[:8]
    key = f"{name}-{digest}"
    units = (_WIDTH, _WIDTH * size[1] / size[0])
    width, height = (f"{side:.6g}" for side in units)
    parts = []
    for index, panel in enumerate(panels):
        photo = (
            ElementTree.Element("use", href=f"#{key}")
            if index
            else ElementTree.Element("image", id=key, href=source, width=width, height=height)
        )
        parts.append(_panel(panel, photo, size, units, name))
    style = (
        "display:grid;gap:8px;align-items:end;"
        "grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr))"
    )
    lines = "".join(f"<div>{_escaped(line, 1000)}</div>" for line in caption)
    below = f'<div style="font-size:0.85em;margin:2px 0 22px;overflow-wrap:anywhere">{lines}</div>'
    return f'<div><div style="{style}">{"".join(parts)}</div>{below}</div>'


def _panel(
    panel: Panel,
    photo: ElementTree.Element,
    size: tuple[int, int],
    units: tuple[float, float],
    name: str,
) -> str:
    shown = sorted(panel.boxes, key=lambda drawn: -drawn.box[2] * drawn.box[3])
    with canvas(*units) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
        for drawn in shown:
            _add_box(axes, drawn)
        _add_names(axes, shown, size)
        svg = inline(
            figure, name, clean(panel.title), style=f"display:block;{_OUTLINE}", behind=photo
        )
    return f'<div><div style="font-size:0.85em">{_escaped(panel.title)}</div>{svg}</div>'


def _add_box(axes: Axes, drawn: DrawnBox) -> None:
    """Draw a box over a wider dark one, so that it is visible on any image."""
    x, y, w, h = drawn.box
    dash = (0, (6 / 1.8, 4 / 1.8)) if drawn.kind == "wrong" else "solid"
    for style in (
        dict(edgecolor="#000000", alpha=0.6, linewidth=3.6),
        dict(edgecolor=COLOURS[drawn.kind], linewidth=1.8, linestyle=dash),
    ):
        axes.add_patch(Rectangle((x, y), w, h, fill=False, clip_on=False, **style))


def _add_names(axes: Axes, boxes: Sequence[DrawnBox], size: tuple[int, int]) -> None:
    font = _FONT * size[0] / _WIDTH  # in pixels of the original image
    taken: list[tuple[float, float, float, float]] = []
    for drawn in boxes:
        text = clean(drawn.name, 40)
        place = _free_place(drawn.box, len(text) * _CHARACTER * font, font, size, taken)
        if place is not None:
            taken.append(place)
            axes.text(
                place[0],
                place[3] - 0.25 * font,
                text,
                color=COLOURS[drawn.kind],
                fontsize=_FONT,
            )


def _free_place(
    box: tuple[float, float, float, float],
    width: float,
    font: float,
    size: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    """Return x0, y0, x1, y1 of a free place for a name above, in or below its box."""
    x, y, w, h = box
    left, right = max(0.0, min(x, size[0] - width)), max(0.0, min(x + w, size[0]) - width)
    inside = (y, y + h - font) if h > 2 * font else ()
    for top in (y - font, *inside, y + h):
        for start in (left, right):
            place = (start, top, start + width, top + font)
            if 0 <= top <= size[1] - font and not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )


def _escaped(text: str, longest: int = 200) -> str:
    return html.escape(clean(text, longest), quote=True)
