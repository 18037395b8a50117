import pytest
from synthetic_comparison import write_comparison


@pytest.fixture
def make_comparison(tmp_path):
    """Factory of a comparison's directory: ``make_comparison(name="comparison", **planted)``.

    See ``synthetic_comparison.write_comparison`` for what can be planted.
    """

    def make(name="comparison", **planted):
        return write_comparison(tmp_path / name, **planted)

    return make
