"""Draw one image of the built-in dataset, with boxes that are exact by construction."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

SCALE = 4  # shapes are drawn at this multiple of the size and averaged down: smooth edges
MIN_VISIBLE = 0.5  # of a shape's area
_TRIES = 20  # attempts to place a shape before it is left out
TEXTURES = ("plain", "gradient", "stripes", "dots", "noise")

# Contours of one shape, filled by the even-odd rule.
Outline = list[np.ndarray]


class Level(NamedTuple):
    """How difficult detection is.

    Attributes:
        classes: Names of the classes.
        counts: Probabilities of 0, 1, 2, ... shapes.
        lengths: The least and the greatest length of a shape, as fractions of the image's size.
        thinnest: The least ratio of a shape's width to its length.
        own_hue: Fraction of the shapes that have the hue of their class.
        clutter: The greatest number of lines and arcs in the background.
    """

    classes: tuple[str, ...]
    counts: tuple[float, ...]
    lengths: tuple[float, float]
    thinnest: float
    own_hue: float
    clutter: int


class Drawing(NamedTuple):
    """An image with its objects.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        classes: Class name of each object, from back to front.
        masks: bool [objects, SCALE * size, SCALE * size], the visible part of each object.
    """

    image: np.ndarray
    classes: list[str]
    masks: np.ndarray


def draw(rng: Generator, size: int, level: str = "full") -> Drawing:
    """Draw an image with 1 to 6 objects, or (one in 50) with none; with 1 to 3 at level "easy".

    A later shape covers earlier ones. At least half of the area of each shape remains visible. A
    shape that would violate this, because it is cut off by the image border or covers another one,
    is placed again. So all visible parts of shapes are annotated.

    Args:
        rng: The only source of random numbers.
        size: Height and width of the image, pixels.
        level: A key of LEVELS.
    """
    chosen = LEVELS[level]
    count = int(rng.choice(len(chosen.counts), p=chosen.counts))
    image = draw_background(rng, size, chosen.clutter)
    # the front object at each point: 1 is the first object, 0 the background
    owner = np.zeros((SCALE * size, SCALE * size), np.uint8)
    classes: list[str] = []
    areas: list[float] = []
    for _ in range(count):
        for _ in range(_TRIES):
            name, outline = _random_shape(rng, size, chosen)
            covered, own = _cover(owner, outline, len(classes) + 1), area(outline)
            if _all_visible(covered, [*areas, own]):
                image = _paint(rng, image, covered == len(classes) + 1, _hue(rng, name, chosen))
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


def _random_shape(rng: Generator, size: int, level: Level) -> tuple[str, Outline]:
    """Draw a class and an outline."""
    name = level.classes[rng.integers(len(level.classes))]
    least, greatest = level.lengths
    length = size * least * (greatest / least) ** rng.beta(3, 2)
    # narrower than 6 pixels (at image size 128), a star and a cross look alike
    thinnest = max(level.thinnest, min(1, size / 128 * 6 / length))
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


def _hue(rng: Generator, name: str, level: Level) -> int:
    """Draw a hue that correlates with the class; otherwise small detectors confuse the classes."""
    if rng.random() > level.own_hue:
        return int(rng.integers(180))
    names = level.classes
    return round(names.index(name) * 180 / len(names) + rng.uniform(-10, 10)) % 180


def _paint(rng: Generator, image: np.ndarray, mask: np.ndarray, hue: int) -> np.ndarray:
    size = len(image)
    alpha = cv2.resize(mask.astype(np.float64), (size, size), interpolation=cv2.INTER_AREA)[
        ..., None
    ]
    behind = (image * alpha).sum((0, 1)) / alpha.sum()
    return image * (1 - alpha) + draw_texture(rng, size, behind, hue) * alpha


def _circle(radius: float = 0.5, corners: int = 72) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _star(points: int = 5, inner: float = 0.21) -> np.ndarray:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, 0.5)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


def _cross(arm: float = 0.16) -> np.ndarray:
    a, b = arm, 0.5
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    return np.array(corners + [(-x, -y) for x, y in corners])


OUTLINES: dict[str, Outline] = {
    "ellipse": [_circle()],
    "rectangle": [np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])],
    "triangle": [np.array([(0, -0.5), (0.5, 0.5), (-0.5, 0.5)])],
    "star": [_star()],
    "ring": [_circle(), _circle(0.29)],
    "cross": [_cross()],
}
LEVELS = {
    "full": Level(
        classes=tuple(OUTLINES),
        counts=(0.02, 0.06, 0.1, 0.16, 0.2, 0.22, 0.24),
        lengths=(8 / 128, 100 / 128),
        thinnest=0.25,
        own_hue=0.9,
        clutter=5,
    ),
    "easy": Level(
        classes=("ellipse", "rectangle", "triangle"),
        counts=(0.0, 0.4, 0.35, 0.25),
        lengths=(0.2, 0.8),
        thinnest=0.4,
        own_hue=1.0,
        clutter=0,
    ),
}


def place(
    outline: Outline, center: np.ndarray, width: float, height: float, angle: float
) -> Outline:
    """Scale to width and height, rotate by ``angle`` (radians), move to ``center`` (pixels)."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    return [(contour * (width, height)) @ turn + center for contour in outline]


def area(outline: Outline) -> float:
    """Return the area by the shoelace formula: the outer contour minus the holes."""
    areas = []
    for x, y in (contour.T for contour in outline):
        areas.append(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    return areas[0] - sum(areas[1:])


def draw_background(rng: Generator, size: int, clutter: int = 5) -> np.ndarray:
    """Draw a gradient of two muted colours, noise at three scales, and lines as distractors."""
    first, second = (_muted(rng) for _ in range(2))
    ramp = _ramp(rng, size)[..., None]
    image = first * (1 - ramp) + second * ramp
    for cells, strength in ((4, 22), (12, 14), (40, 8)):
        noise = rng.normal(0, strength * rng.uniform(0.3, 1), (cells, cells, 3))
        # mostly brightness, little colour
        noise = 0.75 * noise.mean(2, keepdims=True) + 0.25 * noise
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, clutter + 1)):
        _draw_clutter(rng, image)
    return image.astype(np.float64)


def draw_texture(rng: Generator, size: int, behind: np.ndarray, hue: int) -> np.ndarray:
    """Draw a square texture whose first colour differs clearly from the mean colour ``behind``.

    ``hue`` is OpenCV's, 0 to 179.
    """
    first = _vivid(rng, hue)
    while np.abs(first - behind).max() < 70:
        first = _vivid(rng, hue)
    second = first + rng.choice([-1, 1]) * rng.uniform(40, 90)
    kind = TEXTURES[rng.integers(len(TEXTURES))]
    image = np.broadcast_to(first, (size, size, 3))
    if kind == "noise":
        cells = int(rng.integers(size // 8, size // 2))
        noise = rng.normal(0, 28, (cells, cells, 1)).repeat(3, 2)
        image = image + cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR)
    elif kind != "plain":
        mix = _mix(rng, size, kind)[..., None]
        image = first * (1 - mix) + second * mix
    return image.clip(0, 255)


def _mix(rng: Generator, size: int, kind: str) -> np.ndarray:
    """Return the weight of the second colour, in [0, 1]."""
    if kind == "gradient":
        return _ramp(rng, size)
    period, angle = rng.uniform(5, 14), rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] * (2 * np.pi / period)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    wave = np.sin(u) if kind == "stripes" else np.sin(u) + np.sin(v) - 0.8
    return (wave * period / 4 + 0.5).clip(0, 1)  # edges about one pixel wide


def _ramp(rng: Generator, size: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return ((x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2) + 0.5).clip(0, 1)


def _draw_clutter(rng: Generator, image: np.ndarray) -> None:
    size = len(image)
    colour = tuple(int(c) for c in rng.integers(30, 226, 3))
    thickness = int(rng.integers(1, 3))
    start, stop = rng.integers(-size // 4, size + size // 4, (2, 2)).tolist()
    if rng.random() < 0.6:
        cv2.line(image, start, stop, colour, thickness, cv2.LINE_AA)
        return
    axes = rng.integers(size // 16, size // 3, 2).tolist()
    turn, begin = rng.uniform(0, 360, 2)
    end = begin + rng.uniform(40, 150)
    cv2.ellipse(image, start, axes, turn, begin, end, colour, thickness, cv2.LINE_AA)


def _muted(rng: Generator) -> np.ndarray:
    return rng.uniform(50, 205) + rng.uniform(-25, 25, 3)


def _vivid(rng: Generator, hue: int) -> np.ndarray:
    hsv = np.uint8([[[hue, rng.integers(90, 256), rng.integers(80, 256)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)
