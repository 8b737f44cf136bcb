"""Confidence intervals of shares whose cases come in clusters, as tokens come in documents.

Belongs here: the interval of Korn & Graubard (1998) and the sums over clusters that it needs. Does
not belong here: what a case or a cluster is, and means or ratios that are no shares (bootstrap.py).

A share p = sum_c x_c / sum_c n_c over D clusters has the variance that resampling whole clusters
gives it (in closed form, to first order):
  v = D / (D - 1) sum_c (x_c - p n_c)^2 / (sum_c n_c)^2
As many independent cases as have this variance are n_eff = p (1 - p) / v. The interval is Clopper &
Pearson's for p n* of n* cases with
  n* = min(n, n_eff (t(n - 1) / t(D - 1))^2),
t the 97.5% quantile of Student's distribution: D clusters tell the variance only so well. It never
is narrower than that of n independent cases. Percentiles of a bootstrap are not used here: where
all cases agree, every resample does too, and the interval would have no width.

Where all agree nothing tells how much cases of a cluster resemble each other: n* is then the number
of clusters, as if they were alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp_assets.statistics.clopper_pearson import ALPHA, beta_bounds

# Sums of weights in two orders differ by this share of themselves; no share is meant so exactly.
_ROUNDING = 1e-12

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ClusteredShares:
    """Shares part / whole by sums over clusters; all arrays [share].

    part, whole: sums of x_c and n_c. part_squares, products, whole_squares: sums of x_c^2, x_c n_c
    and n_c^2. n: cases, were they independent. n_clusters: clusters with n_c > 0.
    """

    part: Floats
    whole: Floats
    part_squares: Floats
    products: Floats
    whole_squares: Floats
    n: Floats
    n_clusters: Ints

    @classmethod
    def of_clusters(
        cls,
        share: NDArray[Any],
        size: int,
        part: NDArray[Any],
        whole: NDArray[Any],
        n: NDArray[Any] | None = None,
    ) -> "ClusteredShares":
        """From one entry per share and cluster.

        Args:
            share: [entry] which share, below `size`.
            part, whole: [entry] x_c and n_c, 0 <= x_c <= n_c.
            n: [share] cases, where they are not counted by whole: of weighted cases
                (sum of weights)^2 / sum of their squares (Kish 1965).
        """

        def summed(values: NDArray[Any]) -> Floats:
            return np.bincount(share, values, size).astype(np.float64, copy=False)

        x, total = part.astype(np.float64), whole.astype(np.float64)
        all_of_it = summed(total)
        return cls(
            part=summed(x),
            whole=all_of_it,
            part_squares=summed(x * x),
            products=summed(x * total),
            whole_squares=summed(total * total),
            n=all_of_it if n is None else n.astype(np.float64),
            n_clusters=np.bincount(share[total > 0], minlength=size),
        )

    @classmethod
    def of_terms(
        cls, share: NDArray[Any], size: int, cluster: NDArray[Any], part: NDArray[Any]
    ) -> "ClusteredShares":
        """From one entry per share and case: its cluster, from 0, and whether it counts."""
        width = int(cluster.max(initial=-1)) + 1
        found, place = np.unique(share * width + cluster, return_inverse=True)
        n = len(found)
        counts = np.bincount(place[part.astype(bool)], minlength=n)
        return cls.of_clusters(
            found // max(width, 1), size, counts, np.bincount(place, minlength=n)
        )

    def interval(self, alpha: float = ALPHA) -> tuple[Floats, Floats]:
        """Lower and upper bound of each share; NaN with cases of fewer than two clusters."""
        from scipy.special import stdtrit  # takes half a second to import

        known = self.n_clusters >= 2
        whole, clusters = np.where(known, self.whole, 1.0), np.where(known, self.n_clusters, 2)
        p = np.where(known, self.part, 0.0) / whole
        p = np.where(p > 1 - _ROUNDING, 1.0, p)
        spread = self.part_squares - 2 * p * self.products + p * p * self.whole_squares
        variance = clusters / (clusters - 1) * np.maximum(spread, 0.0) / whole**2
        n = np.where(known, self.n, 1.0)
        quantiles = stdtrit(np.maximum(n - 1, 1.0), 1 - alpha / 2) / stdtrit(
            clusters - 1.0, 1 - alpha / 2
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = p * (1 - p) / variance * quantiles**2
        effective = np.where((p == 0) | (p == 1), clusters, effective)
        # No variance between clusters: the cases of a cluster resemble each other no more than
        # others do.
        trials = np.fmin(n, effective)
        low, high = beta_bounds(p * trials, trials, alpha)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)
