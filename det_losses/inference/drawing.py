"""Boxes with class and score, drawn on an image."""

from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

# Okabe and Ito's colours, which remain distinct in all common kinds of colour blindness.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
_DARK = frozenset({"#d55e00", "#0072b2", "#009e73"})  # with white text


def draw(image: Tensor, detection: dict[str, Any], *, scale: int = 1) -> Tensor:
    """Return an image with the boxes of :func:`~det_losses.inference.predict`.

    Line width and text grow with the image. A label is above its box, or inside at the upper edge
    of the image.

    Args:
        image: uint8 ``[3, H, W]``, RGB.
        detection: ``boxes``, ``scores``, ``labels`` and ``names`` of the image.
        scale: enlarge the image by this factor, so that labels fit into a small one.

    Returns:
        uint8 ``[3, scale H, scale W]``.
    """
    image = image.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    if not len(detection["boxes"]):
        return image
    longest = max(image.shape[1:])
    order = detection["scores"].argsort()  # the highest score on top
    boxes, labels = scale * detection["boxes"][order], detection["labels"][order].tolist()
    colours = [COLOURS[label % len(COLOURS)] for label in labels]
    line = max(2, round(longest / 300))
    image = draw_bounding_boxes(image, boxes, colors=colours, width=line)
    picture = F.to_pil_image(image)
    canvas, font = ImageDraw.Draw(picture), _font(max(10, round(longest / 45)))
    for row, box, colour in zip(order.tolist(), boxes.tolist(), colours, strict=True):
        text = f"{detection['names'][row]} {detection['scores'][row]:.2f}"
        _write(canvas, font, text, box, colour, picture.size)
    return F.pil_to_tensor(picture)


def _write(
    canvas: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    text: str,
    box: list[float],
    colour: str,
    size: tuple[int, int],
) -> None:
    """Write a label above the upper left corner of a box, shifted into the image."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    pad = max(1, font.size // 8)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(box[0], size[0] - width))
    y = box[1] - height if box[1] >= height else max(0, min(box[1], size[1] - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    place = (x + pad - left, y + pad - top)
    canvas.text(place, text, font=font, fill="white" if colour in _DARK else "black")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font: Latin, Greek and Cyrillic, on every machine."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)
