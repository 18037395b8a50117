"""Drawing one image of the built-in set, with boxes that are exact by construction."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from det_losses.data.shapes_outlines import OUTLINES, Outline, area, place
from det_losses.data.shapes_textures import draw_background, draw_texture

SCALE = 4  # shapes are drawn that much larger and averaged down, which smooths their edges
MIN_VISIBLE = 0.5
OWN_HUE = 0.9  # share of the shapes that have their class's own hue
_COUNTS = (0.02, 0.06, 0.1, 0.16, 0.2, 0.22, 0.24)  # how often an image has 0 to 6 shapes
_TRIES = 20


class Drawing(NamedTuple):
    """An image with its objects.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        classes: Class name of each object, from back to front.
        masks: bool [objects, SCALE * size, SCALE * size], what is visible of each.
    """

    image: np.ndarray
    classes: list[str]
    masks: np.ndarray


def draw(rng: Generator, size: int) -> Drawing:
    """Draw an image of 1 to 6 objects, or (one in 50) of none.

    A later shape covers earlier ones. Each keeps at least half of its own area visible: a shape
    that would break this, for itself at the image's edge or for one behind it, is placed anew. So
    all that can be seen of any shape is annotated.

    Args:
        rng: The only source of chance.
        size: Height and width of the image, pixels.
    """
    count = int(rng.choice(7, p=_COUNTS))
    image = draw_background(rng, size)
    # which object is in front at each point: 1 is the first, 0 the background
    owner = np.zeros((SCALE * size, SCALE * size), np.uint8)
    classes: list[str] = []
    areas: list[float] = []
    for _ in range(count):
        for _ in range(_TRIES):
            name, outline = _random_shape(rng, size)
            covered, own = _cover(owner, outline, len(classes) + 1), area(outline)
            if _all_visible(covered, [*areas, own]):
                image = _paint(rng, image, covered == len(classes) + 1, _hue(rng, name))
                owner = covered
                classes.append(name)
                areas.append(own)
                break
    image = image + rng.normal(0, rng.uniform(1, 6), image.shape)
    masks = owner == np.arange(1, len(classes) + 1)[:, None, None]
    return Drawing(image.clip(0, 255).round().astype(np.uint8), classes, masks)


def box_and_area(mask: np.ndarray) -> tuple[list[float], float]:
    """Return the tight box [x, y, w, h] and the area of a mask, in pixels of the image.

    Both are exact to the mask's resolution, a quarter of a pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = columns[0], rows[0]
    w, h = columns[-1] + 1 - x, rows[-1] + 1 - y
    return [float(v) / SCALE for v in (x, y, w, h)], float(mask.sum()) / SCALE**2


def _random_shape(rng: Generator, size: int) -> tuple[str, Outline]:
    """A class, and its outline 8 to 100 pixels long (in an image of 128), up to 4:1 in aspect."""
    name = list(OUTLINES)[rng.integers(len(OUTLINES))]
    length = size / 128 * 8 * (100 / 8) ** rng.beta(3, 2)
    # narrower than 6 pixels, a star and a cross look alike
    thinnest = max(0.25, min(1, size / 128 * 6 / length))
    sides = [length, length * thinnest ** rng.random() ** 2]
    width, height = rng.permutation(sides)
    angle = rng.uniform(0, 2 * np.pi)
    center = rng.uniform(0.12 * size, 0.88 * size, 2)
    return name, place(OUTLINES[name], center, width, height, angle)


def _cover(owner: np.ndarray, outline: Outline, index: int) -> np.ndarray:
    covered = owner.copy()
    # fillPoly puts the centre of a pixel at whole coordinates; 4 fractional bits
    points = [np.round((c * SCALE - 0.5) * 16).astype(np.int32) for c in outline]
    cv2.fillPoly(covered, points, index, shift=4)
    return covered


def _all_visible(owner: np.ndarray, areas: list[float]) -> bool:
    points = [np.count_nonzero(owner == number) for number in range(1, len(areas) + 1)]
    return all(p / SCALE**2 >= MIN_VISIBLE * a for p, a in zip(points, areas, strict=True))


def _hue(rng: Generator, name: str) -> int:
    """A hint of the class: without one, a small detector hardly tells the classes apart."""
    if rng.random() > OWN_HUE:
        return int(rng.integers(180))
    return round(list(OUTLINES).index(name) * 180 / len(OUTLINES) + rng.uniform(-10, 10)) % 180


def _paint(rng: Generator, image: np.ndarray, mask: np.ndarray, hue: int) -> np.ndarray:
    size = len(image)
    alpha = cv2.resize(mask.astype(np.float64), (size, size), interpolation=cv2.INTER_AREA)[
        ..., None
    ]
    behind = (image * alpha).sum((0, 1)) / alpha.sum()
    return image * (1 - alpha) + draw_texture(rng, size, behind, hue) * alpha
