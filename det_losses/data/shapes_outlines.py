"""The outlines of the built-in set's classes, as polygons in a unit square round the origin."""

import numpy as np

# Contours of one shape; an area inside an even number of them is outside the shape.
Outline = list[np.ndarray]


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


def place(
    outline: Outline, center: np.ndarray, width: float, height: float, angle: float
) -> Outline:
    """Stretch to width and height, turn by ``angle`` (radians) and move to ``center`` (pixels)."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    return [(contour * (width, height)) @ turn + center for contour in outline]


def area(outline: Outline) -> float:
    """Area of the shape by the shoelace formula: the outer contour less the holes."""
    areas = []
    for x, y in (contour.T for contour in outline):
        areas.append(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    return areas[0] - sum(areas[1:])
