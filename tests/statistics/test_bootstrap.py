"""Bootstrap intervals against the normal interval, a loop over draws, and their own limits."""

import numpy as np
import pytest

from mechinterp_assets.statistics.bootstrap import (
    cluster_bootstrap,
    mean_interval,
    resample_counts,
)


def test_interval_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = mean_interval(values, n_bootstrap=4000, seed=0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert mean_interval(values[:1], n_bootstrap=100, seed=0) == (None, None)


def test_all_intervals_are_of_the_same_draws() -> None:
    """A loop that draws each value as often as counted; clusters of one case are values."""
    values = np.random.default_rng(1).normal(size=7)
    means = []
    for counts in resample_counts(7, 300, 5):
        assert counts.sum() == 7
        means.append(np.mean(np.repeat(values, counts)))
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(mean_interval(values, n_bootstrap=300, seed=5), expected)
    np.testing.assert_allclose(
        cluster_bootstrap(values, np.ones(7), n_bootstrap=300, seed=5), expected
    )
    assert mean_interval(values, n_bootstrap=300, seed=6) != tuple(expected)


def test_cluster_bootstrap_covers_and_keeps_clusters_together() -> None:
    generator = np.random.default_rng(0)
    cluster = generator.normal(size=(60, 1)) + np.zeros((60, 5))
    together = cluster_bootstrap(cluster.sum(axis=1), np.full(60, 5.0), n_bootstrap=2000, seed=0)
    one_each = cluster_bootstrap(cluster[:, 0], np.ones(60), n_bootstrap=2000, seed=0)
    np.testing.assert_allclose(together, one_each)
    half = (together[1] - together[0]) / 2
    assert float(half) == pytest.approx(1.96 * cluster[:, 0].std(ddof=1) / 60**0.5, rel=0.1)


def test_cluster_bootstrap_without_cases() -> None:
    sums = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    counts = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    low, high = cluster_bootstrap(sums, counts, n_bootstrap=100, seed=0)
    assert (low[0], high[0]) == (1.0, 3.0)
    assert np.isnan([low[1], high[1], low[2], high[2]]).all()
    assert np.isnan(cluster_bootstrap(sums[:1], counts[:1], n_bootstrap=5, seed=0)).all()
    with pytest.raises(ValueError, match="n_bootstrap is 0"):
        cluster_bootstrap(sums, counts, n_bootstrap=0, seed=0)
