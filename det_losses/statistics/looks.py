"""When a comparison may be looked at, and how much of the error each look may spend."""

from collections.abc import Mapping
from types import MappingProxyType

from det_losses.errors import InputError

LOOKS: Mapping[int, float] = MappingProxyType({3: 0.2, 5: 0.3, 8: 0.5})
"""Number of seeds -> the share of the family-wise error that a look at it spends.

At a level of 95% these are .01, .015 and .025. They sum to 1, so the probability of any false
positive at any look is at most the whole error (Bonferroni), whatever is done between the looks.
"""


def look_error(seeds: int, level: float = 0.95, looks: Mapping[int, float] = LOOKS) -> float:
    """Return the family-wise error of the look at a comparison with that many seeds.

    Intervals and tests of that look have the level 1 - error.

    Args:
        seeds: number of seeds of the losses that have most.
        level: 1 - level is the error of all looks together.
        looks: number of seeds -> share of the error.

    Raises:
        InputError: no look is scheduled at that many seeds.
    """
    if seeds not in looks:
        raise InputError(f"a look at {seeds} seeds is not one of {', '.join(map(str, looks))}")
    return looks[seeds] * (1 - level)


def next_look(seeds: int, looks: Mapping[int, float] = LOOKS) -> int | None:
    """Return the number of seeds of the next look, with more seeds than now; None after the last.

    >>> next_look(1), next_look(3), next_look(4), next_look(8)
    (3, 5, 5, None)
    """
    return min((look for look in looks if look > seeds), default=None)
