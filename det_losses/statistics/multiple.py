"""Multiple tests: Holm's correction and the compact letter display."""

import string
from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    r"""Return Holm's adjusted p-values, in the given order.

    .. math::
        \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Rejecting the hypotheses with an adjusted value below alpha keeps the family-wise error rate
    below alpha, for any dependence between the tests.

    Args:
        p: [n] p-values. NaN stays NaN and is not counted in m.

    Raises:
        ValueError: a value is outside 0..1.

    Reference: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
    Journal of Statistics 6 (1979).
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError(f"p must be within 0..1, got {p.tolist()}")
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted


def letters(different: np.ndarray) -> list[str]:
    """Return a compact letter display: two items share a letter if and only if they do not differ.

    Insert and absorb: all items start in one group. Each differing pair splits every group that
    contains both into one without the first and one without the second item; subsets of another
    group are absorbed. The result is the maximal groups in which no two items differ. Then groups
    whose pairs are all in other groups are dropped, the smallest first, until every group is
    necessary. An item may be in several groups. Piepho's last step, which removes redundant letters
    of single items, is omitted, because it would hide that an item belongs to a group.

    Args:
        different: [n, n] bool, symmetric with a false diagonal: which items differ. If the items
            are sorted best first, "a" is the group of the best.

    Returns:
        n strings of letters: a to z, A to Z, then letters followed by a dot.

    Raises:
        ValueError: `different` is not such a matrix.

    Reference: H.-P. Piepho, "An Algorithm for a Letter-Based Representation of All-Pairwise
    Comparisons", Journal of Computational and Graphical Statistics 13 (2004).
    """
    different = np.asarray(different, dtype=bool)
    square = different.ndim == 2 and different.shape[0] == different.shape[1]
    if not square or (different != different.T).any() or different.diagonal().any():
        raise ValueError("different must be a symmetric matrix with a false diagonal")
    groups = [frozenset(range(len(different)))]
    for first, second in np.argwhere(np.triu(different)).tolist():
        groups = _absorb(_split(groups, first, second))
    display = [""] * len(different)
    for number, group in enumerate(sorted(map(sorted, _needed(groups)))):
        for item in group:
            display[item] += _letter(number)
    return display


def _split(groups: list[frozenset[int]], first: int, second: int) -> list[frozenset[int]]:
    parts = []
    for group in groups:
        both = first in group and second in group
        parts += [group - {first}, group - {second}] if both else [group]
    return parts


def _absorb(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    distinct = list(dict.fromkeys(groups))
    return [group for group in distinct if not any(group < other for other in distinct)]


def _needed(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    kept = list(groups)
    for group in sorted(groups, key=lambda group: (len(group), sorted(group))):
        others = [other for other in kept if other != group]
        if all(any({i, j} <= other for other in others) for i in group for j in group):
            kept = others
    return kept


def _letter(number: int) -> str:
    turns, index = divmod(number, len(string.ascii_letters))
    return string.ascii_letters[index] + "." * turns
