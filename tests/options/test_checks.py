import pytest

from det_losses.options.checks import duration


@pytest.mark.parametrize("text", ["", "2 weeks", "h", "0h", "-1h", "1h30x"])
def test_an_invalid_duration_is_an_error(text):
    with pytest.raises(ValueError, match=r"expected a duration|longer than zero"):
        duration(text)
