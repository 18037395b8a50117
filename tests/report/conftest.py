import pytest
from synthetic_comparison import write_comparison

from det_losses.report.study import Study


@pytest.fixture(scope="session")
def planted_root(tmp_path_factory):
    """Directory of a comparison of four losses and three seeds with planted differences."""
    return write_comparison(tmp_path_factory.mktemp("planted") / "comparison")


@pytest.fixture(scope="session")
def planted(planted_root):
    """Study of ``planted_root``, which is not to be changed."""
    return Study.load([planted_root])


@pytest.fixture
def make_comparison(tmp_path):
    """Factory of a comparison's directory: ``make_comparison(name="comparison", **planted)``.

    See ``synthetic_comparison.write_comparison`` for what can be planted.
    """

    def make(name="comparison", **planted):
        return write_comparison(tmp_path / name, **planted)

    return make
