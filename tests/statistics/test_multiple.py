import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from det_losses.statistics import holm, letters


def test_holm_of_the_usual_worked_example():
    """Encyclopedias' four hypotheses at 5%, p = .01, .04, .03, .005: the 4th and 1st are rejected.

    .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, and .04 x 1 is raised to the .06 before it.
    """
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_benjamini_and_hochbergs_data():
    """Benjamini and Hochberg (1995), table of 15 p-values: at 5% three are rejected."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert (holm(p) < 0.05).tolist() == [True] * 3 + [False] * 12


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferronis(p):
    """H is rejected if Bonferroni rejects every intersection of hypotheses that contains it."""
    expected = [
        max(
            min(1.0, len(subset) * min(p[j] for j in subset))
            for size in range(1, len(p) + 1)
            for subset in combinations(range(len(p)), size)
            if i in subset
        )
        for i in range(len(p))
    ]
    assert holm(p) == pytest.approx(expected)


def test_holm_leaves_nan_out_of_the_family():
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
    assert holm([]).tolist() == []


@pytest.mark.parametrize("p", [[-0.1], [0.5, 1.5]])
def test_holm_checks_its_input(p):
    with pytest.raises(ValueError, match=r"p must be within 0\.\.1, got"):
        holm(p)


def relation(size, pairs):
    matrix = np.zeros((size, size), dtype=bool)
    for i, j in pairs:
        matrix[i, j] = matrix[j, i] = True
    return matrix


@pytest.mark.parametrize(
    ("size", "pairs", "expected"),
    [
        (0, [], []),
        (1, [], ["a"]),
        (3, [], ["a", "a", "a"]),
        (3, [(0, 1), (0, 2), (1, 2)], ["a", "b", "c"]),
        # only the ends differ: the middle one is in both groups
        (3, [(0, 2)], ["a", "ab", "b"]),
        # neighbours alike, a chain of four
        (4, [(0, 2), (0, 3), (1, 3)], ["a", "ab", "bc", "c"]),
        # alike are 0-3, 1-4 and 2-5: groups stay whole
        (6, [(0, 4), (0, 5), (1, 5)], ["a", "ab", "abc", "abc", "bc", "c"]),
    ],
)
def test_letters(size, pairs, expected):
    assert letters(relation(size, pairs)) == expected


def test_letters_of_piephos_third_example():
    """8 treatments, of which T1-T7, T1-T8, T2-T4, T2-T5 and T3-T5 differ (Piepho 2004)."""
    pairs = [(0, 6), (0, 7), (1, 3), (1, 4), (2, 4)]
    different = relation(8, pairs)
    display = letters(different)
    for i, j in combinations(range(8), 2):
        assert bool(set(display[i]) & set(display[j])) == (not different[i, j])
    assert len(set("".join(display))) == smallest_number_of_groups(different)


@st.composite
def relations(draw, most):
    size = draw(st.integers(1, most))
    pairs = list(combinations(range(size), 2))
    chosen = draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    return relation(size, [pair for pair, is_in in zip(pairs, chosen, strict=True) if is_in])


def largest_groups(different):
    """All sets without a differing pair to which no item can be added, by trying all sets."""
    items = range(len(different))
    alike = [
        set(group)
        for size in range(1, len(different) + 1)
        for group in combinations(items, size)
        if not different[np.ix_(group, group)].any()
    ]
    return [group for group in alike if not any(group < other for other in alike)]


def covers(groups, different):
    """Whether every item and every pair that does not differ is in one of the groups."""
    return all(
        different[i, j] or any({i, j} <= group for group in groups)
        for i in range(len(different))
        for j in range(len(different))
    )


def smallest_number_of_groups(different):
    candidates = largest_groups(different)
    return next(
        size
        for size in range(1, len(candidates) + 1)
        if any(covers(chosen, different) for chosen in combinations(candidates, size))
    )


@settings(max_examples=80, deadline=None)
@given(relations(most=7))
def test_letters_are_correct_and_all_are_necessary(different):
    display = letters(different)
    names = sorted(set("".join(display)))
    groups = [{i for i, own in enumerate(display) if name in own} for name in names]
    for i, j in combinations(range(len(different)), 2):
        assert bool(set(display[i]) & set(display[j])) == (not different[i, j])
    assert all(display)
    largest = largest_groups(different)
    assert all(group in largest for group in groups)
    for group in groups:
        assert not covers([other for other in groups if other != group], different)
    # best first: the first item has the first letter, and letters begin in the items' order
    assert names == list(dict.fromkeys("".join(display)))
    assert names == [chr(ord("a") + k) for k in range(len(names))]


@settings(max_examples=60, deadline=None)
@given(relations(most=5))
def test_letters_of_few_items_are_as_few_as_can_be(different):
    assert len(set("".join(letters(different)))) == smallest_number_of_groups(different)


def test_more_groups_than_letters():
    display = letters(~np.eye(54, dtype=bool))
    assert display[25:28] == ["z", "A", "B"]
    assert display[51:] == ["Z", "a.", "b."]


@pytest.mark.parametrize(
    "different",
    [np.zeros((2, 3), bool), np.eye(2, dtype=bool), np.array([[0, 1], [0, 0]]), np.zeros(3, bool)],
)
def test_letters_check_their_input(different):
    with pytest.raises(ValueError, match="symmetric matrix with a false diagonal"):
        letters(different)
