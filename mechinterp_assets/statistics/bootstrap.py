"""Bootstrap intervals of many means at once, over clusters.

Belongs here: resampling of sequences whose cases are not independent. Does not belong here: what a
case is. Intervals of single interventions are in interventions/summary.py.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def cluster_bootstrap(
    sums: Values, counts: Values, *, n_bootstrap: int, seed: int
) -> tuple[Values, Values]:
    """95% percentile bootstrap interval of sum(sums) / sum(counts) over resampled clusters.

    sums, counts [cluster, ...] of one shape, or counts that broadcast to it: the total and the
    number of the cases in each cluster (a sequence). All means share one set of resamples. Returns
    low and high [...]; NaN where fewer than two clusters have a case.
    Raises ValueError where nothing can be drawn.
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; draw at least 1 resample")
    if len(sums) != len(counts):
        raise ValueError(f"{len(sums)} clusters have sums and {len(counts)} counts; give both")
    counts = np.broadcast_to(counts, sums.shape)
    n, shape = len(sums), sums.shape[1:]
    if n < 2:
        nothing = np.full(shape, np.nan)
        return nothing, nothing.copy()
    generator = np.random.default_rng([seed, n])
    weights = generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64)
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
