"""Percentile bootstrap intervals: of a mean over prompts, of many means over clusters.

Belongs here: the draws, which are the same for all statistics of n values and a seed, and intervals
of means. Does not belong here: what a value is, and ratios of means (the packages that define
them), which are taken over `resample_weights`.
"""

import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def resample_counts(n: int, n_bootstrap: int, seed: int) -> NDArray[np.int64]:
    """How often each of n values is drawn in every resample: [n_bootstrap, n].

    Draws depend on the seed and n alone. Raises ValueError where nothing can be drawn.
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; draw at least 1 resample")
    generator = np.random.default_rng([seed, n])
    return generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)


@lru_cache(maxsize=64)
def resample_weights(n: int, n_bootstrap: int, seed: int) -> Values:
    """The same over n, so that `weights @ values` are means: [n_bootstrap, n]."""
    weights: Values = resample_counts(n, n_bootstrap, seed) / n
    weights.setflags(write=False)
    return weights


def mean_interval(
    values: Values, *, n_bootstrap: int, seed: int
) -> tuple[float | None, float | None]:
    """95% percentile bootstrap interval of the mean of `values` [n]; (None, None) below 2."""
    if len(values) < 2:
        return None, None
    means = resample_weights(len(values), n_bootstrap, seed) @ values
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def cluster_bootstrap(
    sums: Values, counts: Values, *, n_bootstrap: int, seed: int
) -> tuple[Values, Values]:
    """95% percentile bootstrap interval of sum(sums) / sum(counts) over resampled clusters.

    sums, counts [cluster, ...] of one shape, or counts that broadcast to it: the total and the
    number of the cases in each cluster (a sequence). All means share one set of resamples. Returns
    low and high [...]; NaN where fewer than two clusters have a case.
    Raises ValueError where nothing can be drawn.
    """
    if len(sums) != len(counts):
        raise ValueError(f"{len(sums)} clusters have sums and {len(counts)} counts; give both")
    counts = np.broadcast_to(counts, sums.shape)
    n, shape = len(sums), sums.shape[1:]
    if n < 2:
        nothing = np.full(shape, np.nan)
        return nothing, nothing.copy()
    weights = resample_counts(n, n_bootstrap, seed).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        # A mean without cases has no resample either: NaN is its answer, not a mistake.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = (weights @ sums.reshape(n, -1)) / (weights @ counts.reshape(n, -1))
        low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    enough = (counts > 0).sum(axis=0).reshape(-1) >= 2
    return (
        np.where(enough, low, np.nan).reshape(shape),
        np.where(enough, high, np.nan).reshape(shape),
    )
