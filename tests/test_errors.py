"""Errors of the user: hints at the nearest name, and the key of a config entry."""

import copy
import pickle

import pytest

from det_losses.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    NotRegisteredError,
    did_you_mean,
    located,
    one_line,
)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("giuloss", ["GIoULoss", "L1Loss"], "Did you mean 'GIoULoss'?"),
        ("--los", ["--loss", "--launcher", "--losses"], "Did you mean '--loss'?"),
        # Equally near names are all given.
        ("ab_x", ["ab_y", "ab_z", "other"], "Did you mean 'ab_y' or 'ab_z'?"),
        ("zebra", ["cat", "dog"], "It has two."),
        ("zebra", [], "It has two."),
    ],
)
def test_the_nearest_names_are_suggested(name, known, hint):
    assert did_you_mean(name, known, "It has two.") == hint


@pytest.mark.parametrize("kind", [InputError, InputTypeError, MissingFileError, NotRegisteredError])
def test_keys_are_joined_from_the_inside_out(kind):
    with pytest.raises(kind) as raised, located("model"), located(""), located("backbone"):
        raise kind("it's wrong")
    for error in (raised.value, copy.copy(raised.value), pickle.loads(pickle.dumps(raised.value))):
        assert str(error) == "model.backbone: it's wrong"


def test_other_errors_keep_their_message():
    with pytest.raises(ValueError, match=r"^a bug$"), located("model"):
        raise ValueError("a bug")


def test_a_long_text_becomes_one_short_line():
    assert one_line("a\n  b", 10) == "a b"
    assert one_line("x" * 50, 10) == "xxxxxx ..."
