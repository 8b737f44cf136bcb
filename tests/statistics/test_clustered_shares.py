"""Intervals of shares over clusters: coverage, a loop, and the limits they must have."""

import numpy as np
import pytest

from mechinterp_assets.statistics.clopper_pearson import clopper_pearson
from mechinterp_assets.statistics.clustered_shares import ClusteredShares, Floats
from tests.statistics.clustered_reference import share_interval


def intervals(x: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Of rows of clusters [share, cluster]."""
    size, clusters = x.shape
    share = np.repeat(np.arange(size), clusters)
    return ClusteredShares.of_clusters(share, size, x.ravel(), n.ravel()).interval()


@pytest.mark.parametrize(
    ("clusters", "tokens", "share", "correlation"),
    [(40, 20, 0.3, 0.3), (12, 10, 0.5, 0.5), (200, 10, 0.98, 0.5), (60, 5, 0.05, 0.3)],
)
def test_coverage_where_tokens_of_a_document_resemble_each_other(
    clusters: int, tokens: int, share: float, correlation: float
) -> None:
    """Documents have shares of their own (beta). Taken as independent, tokens say too much."""
    random = np.random.default_rng(0)
    n = random.poisson(tokens, (2000, clusters)) + 1
    scale = 1 / correlation - 1
    x = random.binomial(n, random.beta(share * scale, (1 - share) * scale, n.shape))
    low, high = intervals(x, n)
    naive_low, naive_high = clopper_pearson(x.sum(1), n.sum(1))
    assert ((low <= share) & (share <= high)).mean() > 0.925
    assert ((naive_low <= share) & (share <= naive_high)).mean() < 0.8


def test_independent_tokens_lose_little() -> None:
    random = np.random.default_rng(1)
    n = np.full((1000, 100), 10)
    x = random.binomial(n, 0.3)
    low, high = intervals(x, n)
    naive = clopper_pearson(x.sum(1), n.sum(1))
    assert ((low <= 0.3) & (high >= 0.3)).mean() == pytest.approx(0.95, abs=0.02)
    assert (low <= naive[0] + 1e-12).all()
    assert (high >= naive[1] - 1e-12).all()
    assert (high - low).mean() < 1.1 * (naive[1] - naive[0]).mean()


def test_against_a_loop() -> None:
    random = np.random.default_rng(2)
    n = random.integers(0, 6, (300, 7)).astype(float)
    x = random.binomial(n.astype(int), random.choice([0, 0.1, 0.6, 1], (300, 1))).astype(float)
    low, high = intervals(x, n)
    for i in range(300):
        expected = share_interval(list(zip(x[i], n[i], strict=True)))
        if expected[0] is None:
            assert np.isnan([low[i], high[i]]).all()
        else:
            assert (low[i], high[i]) == pytest.approx(expected, abs=1e-9)
    assert (low <= x.sum(1) / n.sum(1)).all()
    assert (high >= x.sum(1) / n.sum(1)).all()


def test_clusters_that_are_whole_or_empty_count_once() -> None:
    """All tokens of a document alike: as many cases as documents, however many tokens they have."""
    x = np.array([[1.0] * 9 + [0.0] * 21])
    once = intervals(x, np.ones((1, 30)))
    np.testing.assert_allclose(intervals(50 * x, np.full((1, 30), 50.0)), once, rtol=0.05)


def test_agreement_is_as_sure_as_there_are_documents() -> None:
    """A bootstrap of these has no width."""
    whole = np.array([[100.0, 300.0, 5.0], [400.0, 0.0, 0.0]])
    low, high = intervals(whole, whole)
    assert (low[0], high[0]) == (clopper_pearson(3, 3)[0], 1.0)
    assert np.isnan([low[1], high[1]]).all()
    low, high = intervals(np.zeros((1, 3)), whole[:1])
    assert (low[0], high[0]) == (0.0, clopper_pearson(0, 3)[1])
