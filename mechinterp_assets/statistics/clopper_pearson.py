"""Exact confidence intervals of a proportion of independent cases.

Belongs here: the Clopper-Pearson interval, the one every share of independent cases in a table
uses. Does not belong here: cases that come in clusters (clustered_shares.py). DuckDB has no beta
quantile, so intervals are computed here and stored beside their counts.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05


def clopper_pearson(
    x: ArrayLike, n: ArrayLike, alpha: float = ALPHA
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bound of a proportion of which x of n were seen (Clopper & Pearson 1934).

    [Beta quantile(alpha/2; x, n - x + 1), Beta quantile(1 - alpha/2; x + 1, n - x)]; the lower
    bound is 0 where x = 0, the upper 1 where x = n, and both are NaN where n = 0. The two-sided
    interval covers the true proportion with probability of at least 1 - alpha. (K24 prints alpha =
    0.025, but the intervals of its Table 2 are those of alpha = 0.05.)

    Args:
        x: successes, integers, any shape.
        n: trials, integers, of a shape that broadcasts with x.
        alpha: 1 - confidence, between 0 and 1.

    Raises:
        ValueError: a count is not whole, x lies outside 0..n, or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; give a number between 0 and 1, such as 0.05")
    successes, trials = np.broadcast_arrays(
        np.asarray(x, dtype=np.float64), np.asarray(n, dtype=np.float64)
    )
    wrong = ~(
        (successes >= 0)
        & (successes <= trials)
        & (successes == np.floor(successes))
        & (trials == np.floor(trials))
    )
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{successes[place]:g} of {trials[place]:g} is not a count of successes among trials; "
            "give whole numbers with 0 <= x <= n"
        )
    low, high = beta_bounds(successes, trials, alpha)
    return np.where(trials == 0, np.nan, low), np.where(trials == 0, np.nan, high)


def beta_bounds(
    x: NDArray[np.float64], n: NDArray[np.float64], alpha: float = ALPHA
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same bounds for x of n cases that need not be whole numbers, 0 <= x <= n, 0 < n."""
    from scipy.special import betaincinv  # takes half a second to import

    # The quantiles of the ends are degenerate: any positive parameter stands in for them.
    none, every = x <= 0, x >= n
    low = betaincinv(np.where(none, 1.0, x), n - x + 1, alpha / 2)
    high = betaincinv(x + 1, np.where(every, 1.0, n - x), 1 - alpha / 2)
    return np.where(none, 0.0, low), np.where(every, 1.0, high)
