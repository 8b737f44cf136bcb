"""Clopper-Pearson intervals against scipy's exact binomial test, coverage and published counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mechinterp_assets.statistics.clopper_pearson import clopper_pearson


@given(n=st.integers(1, 2000), share=st.floats(0, 1), alpha=st.sampled_from([0.01, 0.025, 0.05]))
def test_agrees_with_scipys_exact_interval(n: int, share: float, alpha: float) -> None:
    x = round(n * share)
    low, high = clopper_pearson(x, n, alpha)
    expected = binomtest(x, n).proportion_ci(1 - alpha, method="exact")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bounds_are_where_the_tails_have_half_of_alpha() -> None:
    x, n = np.array([1, 5, 19]), 20
    low, high = clopper_pearson(x, n, 0.05)
    np.testing.assert_allclose(binom.sf(x - 1, n, low), 0.025, rtol=1e-9)
    np.testing.assert_allclose(binom.cdf(x, n, high), 0.025, rtol=1e-9)


def test_ends() -> None:
    n = 30
    low, high = clopper_pearson([0, n], n)
    assert low[0] == 0
    assert high[1] == 1
    # x = 0: the upper bound u solves (1 - u)^n = alpha / 2; x = n mirrors it.
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-12)
    assert low[1] == pytest.approx(0.025 ** (1 / n), rel=1e-12)


def test_nothing_tried_has_no_interval() -> None:
    low, high = clopper_pearson(0, 0)
    assert np.isnan(low)
    assert np.isnan(high)


def test_induction_features_of_kissane_et_al() -> None:
    """450 of 586 selected features pass and 3 of 500 in the control group: disjoint by far."""
    low, high = clopper_pearson([450, 3], [586, 500])
    assert (low[0], high[0]) == pytest.approx((0.7317, 0.8015), abs=1e-3)
    assert (low[1], high[1]) == pytest.approx((0.0012, 0.0174), abs=1e-3)
    assert high[1] < low[0]


@pytest.mark.parametrize(("x", "n"), [(3, 2), (-1, 2), (0.5, 2), (1, 2.5)])
def test_counts_that_are_none_are_refused(x: float, n: float) -> None:
    with pytest.raises(ValueError, match="not a count of successes"):
        clopper_pearson(x, n)


def test_alpha_is_checked() -> None:
    with pytest.raises(ValueError, match="alpha is 5"):
        clopper_pearson(1, 2, alpha=5)
