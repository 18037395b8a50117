from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from det_losses.statistics.letters import letters


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
