"""Colours and textures of the built-in set: backgrounds with clutter, and fillings of shapes."""

import cv2
import numpy as np
from numpy.random import Generator

TEXTURES = ("plain", "gradient", "stripes", "dots", "noise")


def draw_background(rng: Generator, size: int) -> np.ndarray:
    """Two muted colours along a gradient, noise at three scales, and open lines as distractors."""
    first, second = (_muted(rng) for _ in range(2))
    ramp = _ramp(rng, size)[..., None]
    image = first * (1 - ramp) + second * ramp
    for cells, strength in ((4, 22), (12, 14), (40, 8)):
        noise = rng.normal(0, strength * rng.uniform(0.3, 1), (cells, cells, 3))
        noise = 0.75 * noise.mean(2, keepdims=True) + 0.25 * noise  # more of light than of colour
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 6)):
        _draw_clutter(rng, image)
    return image.astype(np.float64)


def draw_texture(rng: Generator, size: int, behind: np.ndarray, hue: int) -> np.ndarray:
    """A square of texture whose first colour differs clearly from the mean colour ``behind``.

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
    """How much of the second colour shows, in [0, 1]."""
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
