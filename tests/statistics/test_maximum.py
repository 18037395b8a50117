import time

import numpy as np
import pytest
from scipy import stats

from det_losses.statistics.maximum import Family, critical, survival

DF = np.array([1.0, 1.6, 3.2, 5.6, 14, 60, 1e4])


@pytest.mark.parametrize(
    ("others", "df", "expected"),
    [(2, 3.2, 3.715), (2, 4, 3.310), (3, 4, 3.617), (7, 5.6, 3.658), (7, 14, 2.972)],
)
def test_two_sided_dunnett_values(others, df, expected):
    """Computed independently, by simulation and by another quadrature; Dunnett's table has 3.31."""
    assert critical(0.05, Family.BASELINE, others + 1, df) == pytest.approx(expected, abs=1.1e-3)


@pytest.mark.parametrize(("others", "df", "expected"), [(2, 3.2, 2.850), (7, 5.6, 3.055)])
def test_one_sided_dunnett_values(others, df, expected):
    assert critical(0.05, Family.BEST, others + 1, df) == pytest.approx(expected, abs=1.1e-3)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        # Dunnett (1955), tables 2a and 1a, 10 degrees of freedom, 1 to 4 treatments
        (Family.BASELINE, [2.23, 2.57, 2.76, 2.89]),
        (Family.BEST, [1.81, 2.15, 2.34, 2.47]),
    ],
)
def test_dunnetts_table(family, expected):
    found = [float(critical(0.05, family, others + 1, 10)) for others in (1, 2, 3, 4)]
    assert found == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize("two_sided", [True, False])
def test_p_values_are_those_of_scipys_dunnett(two_sided):
    """scipy integrates by quasi-Monte Carlo. Three groups of five against one: 16 df."""
    rng = np.random.default_rng(0)
    groups = [rng.standard_normal(5) + shift for shift in (0, 0.5, 1.0, 2.0)]
    alternative = "two-sided" if two_sided else "greater"
    expected = stats.dunnett(*groups[1:], control=groups[0], rng=rng, alternative=alternative)
    pooled = np.mean([group.var(ddof=1) for group in groups])
    t = np.array([group.mean() - groups[0].mean() for group in groups[1:]])
    t /= np.sqrt(2 * pooled / 5)
    family = Family.BASELINE if two_sided else Family.BEST
    positive = t > 0
    found = survival(abs(t) if two_sided else t, family, 4, 16)
    assert found[positive] == pytest.approx(expected.pvalue[positive], abs=2e-3)


@pytest.mark.parametrize("losses", [2, 3, 8])
@pytest.mark.parametrize("df", [1.6, 5.6, 40])
def test_all_pairs_are_tukeys_studentized_range(losses, df):
    """The range of L means in units of one mean's standard error is sqrt 2 times the largest t."""
    c = critical(0.05, Family.PAIRS, losses, df)
    assert np.sqrt(2) * c == pytest.approx(stats.studentized_range.ppf(0.95, losses, df), rel=1e-5)
    p = stats.studentized_range.sf(np.sqrt(2) * 2.5, losses, df)
    assert survival(2.5, Family.PAIRS, losses, df) == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("family", [Family.BASELINE, Family.PAIRS])
def test_two_losses_are_students_t(family):
    assert critical(0.05, family, 2, DF) == pytest.approx(stats.t.ppf(0.975, DF))
    assert survival(2.0, family, 2, DF) == pytest.approx(2 * stats.t.sf(2.0, DF))
    assert critical(0.05, Family.BEST, 2, DF) == pytest.approx(stats.t.ppf(0.95, DF))


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("losses", [3, 8, 30])
@pytest.mark.parametrize("error", [0.3, 0.05, 0.01, 0.001])
def test_critical_values_are_the_inverse_of_p(family, losses, error):
    found = survival(critical(error, family, losses, DF), family, losses, DF)
    assert found == pytest.approx(np.full(len(DF), error), rel=1e-4)


def test_many_values_at_once_and_undefined_ones():
    df = np.array([[2.0, np.nan], [5.0, 2.0]])
    found = critical(0.05, Family.BASELINE, 4, df)
    assert np.isnan(found).tolist() == [[False, True], [False, False]]
    assert found[0, 0] == found[1, 1] == critical(0.05, Family.BASELINE, 4, 2.0)
    t = np.array([3.0, np.nan, 3.0])
    assert np.isnan(survival(t, Family.PAIRS, 4, [2.0, 2.0, np.nan])).tolist() == [
        False,
        True,
        True,
    ]
    assert survival(0.0, Family.BASELINE, 4, 5.0) == pytest.approx(1)


def test_a_critical_value_takes_less_than_ten_milliseconds():
    critical(0.05, Family.BASELINE, 8, 5.0)
    start = time.process_time()
    for df in np.linspace(2, 9, 20):
        critical(0.05, Family.BASELINE, 8, df)
    assert (time.process_time() - start) / 20 < 0.01
