"""Boxes on photographs, as SVG over a JPEG: sharp at any size, and each photograph stored once."""

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from det_losses.data.images import read_image
from det_losses.report.plotting import clean
from det_losses.report.svg import FONT_FAMILY

COLOURS = {"truth": "#ffd92f", "right": "#56b4e9", "wrong": "#ff8c1a"}
_CHARACTER = 0.58  # width of a character, in font sizes, roughly


@dataclass(frozen=True)
class DrawnBox:
    """A box on an image.

    Attributes:
        box: x, y, width, height in pixels of the image that the annotations speak of.
        name: its class.
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
        size: width and height in the annotation file, which say how the image is to be turned.
        longest: pixels.
        quality: of the JPEG.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no readable image, or has another size.
    """
    image = Image.fromarray(read_image(path, size).permute(1, 2, 0).numpy())
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def side_by_side(
    jpeg: bytes, size: tuple[int, int], panels: Sequence[Panel], caption: str, name: str
) -> str:
    """Draw the same image once a panel, each with its boxes.

    The panels stand in a row where the page is wide enough, else below each other. A name that
    would lie upon another is left out, that of the smaller box.

    Args:
        jpeg: the image.
        size: width and height that the boxes refer to, pixels.
        panels: what to draw.
        caption: text below them.
        name: starts the id of the image; a word without spaces.

    Returns:
        A ``<div>`` with an ``<svg>`` a panel, well-formed XML.
    """
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    digest = hashlib.sha256(jpeg + repr((size, panels)).encode()).hexdigest()[:8]
    key = f"{name}-{digest}"
    width, height = size
    first = f'<image id="{key}" href="{source}" width="{width}" height="{height}"/>'
    parts = []
    for index, panel in enumerate(panels):
        picture = f'<use href="#{key}"/>' if index else first
        parts.append(_panel(panel, picture, size))
    style = (
        "display:grid;gap:8px;align-items:end;"
        "grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr))"
    )
    below = f'<div style="font-size:0.85em;margin:2px 0 18px">{_escaped(caption)}</div>'
    return f'<div><div style="{style}">{"".join(parts)}</div>{below}</div>'


def _panel(panel: Panel, picture: str, size: tuple[int, int]) -> str:
    width, height = size
    title = _escaped(panel.title)
    unit = width / 320  # a panel is about 320 px wide
    shown = sorted(panel.boxes, key=lambda drawn: -drawn.box[2] * drawn.box[3])
    boxes = "".join(_box(drawn, unit) for drawn in shown)
    return (
        f'<div><div style="font-size:0.85em">{title}</div>'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title}" style="display:block;width:100%;height:auto">'
        f"{picture}{boxes}{_names(shown, size, 12 * unit)}</svg></div>"
    )


def _box(drawn: DrawnBox, unit: float) -> str:
    x, y, w, h = drawn.box
    at = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="none"'
    dark = f'<rect {at} stroke="#000" stroke-opacity="0.6" stroke-width="{3.6 * unit:.1f}"/>'
    line = f'<rect {at} stroke="{COLOURS[drawn.kind]}" stroke-width="{1.8 * unit:.1f}"'
    dash = f' stroke-dasharray="{6 * unit:.1f} {4 * unit:.1f}"' if drawn.kind == "wrong" else ""
    return f"{dark}{line}{dash}/>"


def _names(boxes: Sequence[DrawnBox], size: tuple[int, int], font: float) -> str:
    style = (
        f"font:600 {font:.1f}px {FONT_FAMILY};paint-order:stroke;stroke:#000;"
        f"stroke-width:{0.25 * font:.1f}px;stroke-linejoin:round"
    )
    texts, taken = [], []
    for drawn in boxes:
        text = clean(drawn.name, 30)
        place = _free_place(drawn.box, len(text) * _CHARACTER * font, font, size, taken)
        if place is not None:
            taken.append(place)
            at = f'x="{place[0]:.1f}" y="{place[3] - 0.25 * font:.1f}"'
            texts.append(f'<text {at} fill="{COLOURS[drawn.kind]}">{_escaped(text)}</text>')
    return f'<g style="{style}">{"".join(texts)}</g>'


def _free_place(
    box: tuple[float, float, float, float],
    width: float,
    font: float,
    size: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    """Return x0, y0, x1, y1 of a name above, in or below its box that covers no other name."""
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


def _escaped(text: str) -> str:
    return html.escape(clean(text), quote=True)
