import pytest

from det_losses.statistics import LOOKS, look_error, next_look


def test_the_looks_spend_the_whole_error():
    assert [look_error(seeds) for seeds in LOOKS] == pytest.approx([0.01, 0.015, 0.025])
    assert sum(look_error(seeds, level=0.9) for seeds in LOOKS) == pytest.approx(0.1)


def test_only_scheduled_looks_have_an_error():
    with pytest.raises(ValueError, match="a look at 4 seeds is not one of 3, 5, 8"):
        look_error(4)
    assert look_error(4, looks={4: 1.0}) == pytest.approx(0.05)


def test_the_next_look():
    assert [next_look(seeds) for seeds in (0, 3, 4, 5, 8)] == [3, 5, 5, 8, None]
