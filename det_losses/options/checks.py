"""Checks of the values of options, as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from det_losses.errors import InputError

Check = Callable[[str], Any]


def whole_number(low: int, high: int | None = None) -> Check:
    """Return a check of integers from ``low`` to ``high``."""
    expected = f"at least {low}" if high is None else f"from {low} to {high}"

    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise InputError(f"must be a whole number, got {text!r}") from None
        if number < low or (high is not None and number > high):
            raise InputError(f"must be {expected}, got {number}")
        return number

    return check


SEED = whole_number(0, 2**32 - 1)  # the range of numpy's seeds


RESAMPLES = whole_number(100)  # with fewer resamples, standard errors are too imprecise


def above_zero(text: str) -> float:
    """Return a finite number above 0.

    Raises:
        InputError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"must be a number, got {text!r}") from None
    if not 0 < number < float("inf"):
        raise InputError(f"must be above 0, got {text}")
    return number


def at_least_zero(text: str) -> float:
    """Return a finite number of at least 0.

    Raises:
        InputError: it is none.
    """
    return 0.0 if text.strip() in ("0", "0.0") else above_zero(text)


def fraction(text: str) -> float:
    """Return a number above 0 and below 1.

    Raises:
        InputError: it is none.
    """
    number = above_zero(text)
    if number >= 1:
        raise InputError(f"must be below 1, got {text}")
    return number


def one_of(*known: str) -> Check:
    """Return a check of texts that are one of the known ones."""

    def check(text: str) -> str:
        if text not in known:
            names = ", ".join(map(repr, known))
            raise InputError(f"invalid choice: {text!r} (choose from {names})")
        return text

    return check


_UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1, "": 3600}


def duration(text: str) -> float:
    """Return the seconds of ``"2h"``, ``"90min"``, ``"1h30min"``; a bare number is hours.

    >>> duration("1h30min"), duration("45 s"), duration("0.5")
    (5400.0, 45.0, 1800.0)

    Raises:
        InputError: not a duration, or not above zero.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s|)", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "") or not parts:
        raise InputError(f"expected a duration such as 2h, 90min or 1h30min, got {text!r}")
    if seconds <= 0:
        raise InputError(f"must be longer than zero, got {text!r}")
    return seconds
