"""Numbers and lists as text. Metrics are in points: an AP of 0.393 is 39.3.

This module imports nothing heavy, because command-line tools use it too.
"""

import math
from collections.abc import Sequence

from det_losses.errors import counted

OF_TRAINER = "default of the trainer"  # how a loss weight was chosen that only the trainer knows
NONE = "-"
NO_INTERVAL = (
    "Difference n/a: the scores are equal on every resample of the images, as where all AP are 0, "
    "so there is no variation from which to estimate an interval."
)


def points(value: float | None, digits: int = 1) -> str:
    """Return a metric in points.

    >>> points(0.3934), points(-0.0001), points(None), points(float("nan"))
    ('39.3', '0.0', 'n/a', 'n/a')
    """
    if value is None or math.isnan(value):
        return "n/a"
    return f"{round(100 * value, digits) + 0.0:.{digits}f}"


def at_most(value: float) -> str:
    """Return an upper bound in points, rounded up.

    >>> at_most(0.0113), at_most(0.012), at_most(0.00004)
    ('1.2', '1.2', '0.1')
    """
    return f"{math.ceil(1000 * value - 1e-6) / 10:.1f}"


def interval(low: float, high: float) -> str:
    """Return an interval of differences in points, with enough decimals to show if it excludes 0.

    >>> interval(0.004, 0.0223), interval(-0.0123, 0.0001), interval(0.0002, 0.01)
    ('[0.4, 2.2]', '[-1.2, 0.0]', '[0.02, 1.00]')
    >>> interval(-0.0002, 0.0001)
    '[-0.02, 0.01]'
    """
    digits = decimals(low, high)
    return f"[{points(low, digits)}, {points(high, digits)}]"


def difference(value: float, low: float, high: float) -> str:
    """Return a difference of metrics in points with its interval.

    >>> difference(0.0134, 0.004, 0.0223), difference(-0.0134, -0.02, 0.01)
    ('+1.3 [0.4, 2.2]', '-1.3 [-2.0, 1.0]')
    >>> difference(0.0, 0.0, 0.0)
    'n/a'
    """
    if no_interval(low, high):
        return "n/a"
    text = points(value, decimals(low, high))
    sign = "+" if value > 0 and text.strip("0.") else ""
    return "n/a" if text == "n/a" else f"{sign}{text} {interval(low, high)}"


def no_interval(low: float, high: float) -> bool:
    """Return whether nothing varies, so that an interval would be a single value."""
    return high - low < 5e-6  # less than all decimals show


def decimals(low: float, high: float) -> int:
    """Return how many decimals (1 to 3) show whether an interval excludes zero, and its width."""
    ends = abs(low), abs(high)
    shown = 100 * (min(ends) if low * high > 0 else max(ends))
    return next((digits for digits in (1, 2) if round(shown, digits) > 0), 3)


def spread(value: float | None, sd: float | None) -> str:
    """Return a mean with its standard deviation over seeds.

    >>> spread(0.393, 0.0051), spread(0.393, None), spread(None, None)
    ('39.3 ± 0.5', '39.3', 'n/a')
    """
    if sd is None or math.isnan(sd):
        return points(value)
    return f"{points(value)} ± {100 * sd:.1f}"


def p_value(value: float) -> str:
    """Return a p-value.

    >>> p_value(0.04), p_value(0.00004), p_value(float("nan"))
    ('0.040', '<0.001', 'n/a')
    """
    if math.isnan(value):
        return "n/a"
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits; a dash for None.

    >>> number(0.123456), number(512.25), number(2.0), number(None)
    ('0.123', '512', '2', '-')
    """
    if value is None:
        return NONE
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if abs(rounded) >= 10**digits else f"{rounded:.{digits}g}"


def duration(seconds: float | None) -> str:
    """Return a duration in seconds, minutes or hours.

    >>> duration(42), duration(125), duration(7384), duration(None)
    ('42 s', '2 min 05 s', '2 h 03 min', '-')
    """
    if seconds is None:
        return NONE
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def rough_duration(seconds: float) -> str:
    """Return an estimated duration, rounded.

    >>> rough_duration(20), rough_duration(2400), rough_duration(16000), rough_duration(400_000)
    ('1 minute', '40 minutes', '4.4 hours', '4.6 days')
    """
    if seconds < 5400:
        return counted(max(1, round(seconds / 60)), "minute")
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.2g} hours"
    return f"{seconds / 86400:.2g} days"


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Return names as an enumeration for a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], limit=2)
    ('a', 'a, b and c', 'a, b and 2 more')
    """
    if len(names) > limit:
        names = [*names[:limit], f"{len(names) - limit} more"]
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
