"""Intervals drawn in the rows of a table, all on one scale, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from det_losses.report import formats
from det_losses.statistics import Difference

HEIGHT, MARGIN = 34, 7  # CSS pixels; percent of the width, which the page decides


@dataclass(frozen=True)
class Scale:
    """From points of a metric to the x of a drawing, in percent of its width.

    Attributes:
        low: its left end, points.
        high: its right end, points.
        ticks: where numbers stand, points.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, differences: Sequence[Difference]) -> "Scale":
        """Return a scale that holds zero and all intervals, with few round ticks."""
        ends = [100 * end for d in differences for end in (d.low, d.high) if math.isfinite(end)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        if low == high:
            low, high = -1.0, 1.0
        return cls(low, high, _ticks(low, high))

    def x(self, value: float) -> str:
        """Return where a value in points stands."""
        inner = 100 - 2 * MARGIN
        return f"{MARGIN + inner * (value - self.low) / (self.high - self.low):.2f}%"


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Return the multiples of 1, 2 or 5 (times a power of ten) in a range, at least three.

    >>> _ticks(-4, 4.5), _ticks(0, 0.3), _ticks(-20.3, 32.5)
    ((-4.0, -2.0, 0.0, 2.0, 4.0), (0.0, 0.1, 0.2, 0.3), (-20.0, 0.0, 20.0))
    """
    exponent = math.floor(math.log10(high - low))
    for step in (m * 10.0**e for e in (exponent, exponent - 1) for m in (5, 2, 1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first >= 2:
            break
    return tuple(round(step * n, 9) for n in range(first, last + 1))


def axis(scale: Scale) -> str:
    """Return the scale's numbers, to stand above the rows."""
    digits = max(0, -math.floor(math.log10(scale.ticks[1] - scale.ticks[0]) + 1e-9))
    texts = "".join(
        f'<text x="{scale.x(tick)}" y="11" text-anchor="middle">{_signed(tick, digits)}</text>'
        f'<line x1="{scale.x(tick)}" x2="{scale.x(tick)}" y1="15" y2="18" class="tick"/>'
        for tick in scale.ticks
    )
    return f"{_open(18, 'scale in points')}{texts}</svg>"


def interval_plot(
    scale: Scale, difference: Difference | None, colour: str, significant: bool
) -> str:
    """Return a row's drawing: zero as a line, the interval, and a dot at the difference.

    Args:
        scale: of all rows.
        difference: what is drawn; None draws zero alone.
        colour: of interval and dot, ``#rrggbb``.
        significant: a filled dot; else an open one.
    """
    zero = scale.x(0.0)
    parts = [f'<line x1="{zero}" x2="{zero}" y1="0" y2="{HEIGHT}" class="zero"/>']
    name = "no difference"
    if difference is not None and math.isfinite(difference.low):
        low, value, high = (
            scale.x(100 * x) for x in (difference.low, difference.value, difference.high)
        )
        middle = HEIGHT / 2
        fill = colour if significant else "var(--paper)"
        parts += [
            f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="{colour}" '
            'stroke-width="2.5"/>',
            *(
                f'<line x1="{x}" x2="{x}" y1="{middle - 4}" y2="{middle + 4}" stroke="{colour}" '
                'stroke-width="2.5"/>'
                for x in (low, high)
            ),
            f'<circle cx="{value}" cy="{middle}" r="5" fill="{fill}" stroke="{colour}" '
            'stroke-width="2.5"/>',
        ]
        name = formats.difference(difference.value, difference.low, difference.high)
    return f"{_open(HEIGHT, name)}{''.join(parts)}</svg>"


def _open(height: int, name: str) -> str:
    return f'<svg class="interval" role="img" aria-label="{name}" height="{height}">'


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text if value and float(text) else "0"
