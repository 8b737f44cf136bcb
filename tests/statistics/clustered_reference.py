"""The interval of a share over clusters, written down again: loops, float64, scipy's distributions.

From Korn & Graubard (1998): the variance of a ratio of sums over clusters, the number of
independent cases that has it, less for the few clusters it is estimated from, in Clopper &
Pearson's interval.
"""

from collections.abc import Sequence

from scipy import stats


def share_interval(
    clusters: Sequence[tuple[float, float]], n: float | None = None
) -> tuple[float | None, float | None]:
    """95% interval of sum x / sum n over clusters (x, n); n: cases, where weights are summed."""
    seen = [(x, size) for x, size in clusters if size > 0]
    if len(seen) < 2:
        return None, None
    whole = sum(size for _, size in seen)
    part = sum(x for x, _ in seen)
    cases = whole if n is None else n
    share = part / whole
    if part in (0, whole):
        trials = min(cases, len(seen))
        return (
            (0.0, float(stats.beta.ppf(0.975, 1, trials)))
            if part == 0
            else (float(stats.beta.ppf(0.025, trials, 1)), 1.0)
        )
    squared = 0.0
    for x, size in seen:
        squared += (x - share * size) ** 2
    variance = len(seen) / (len(seen) - 1) * squared / whole**2
    trials = cases
    if variance > 1e-30:
        fewer = stats.t.ppf(0.975, max(cases - 1, 1)) / stats.t.ppf(0.975, len(seen) - 1)
        trials = min(cases, share * (1 - share) / variance * fewer**2)
    x = share * trials
    return (
        float(stats.beta.ppf(0.025, x, trials - x + 1)),
        float(stats.beta.ppf(0.975, x + 1, trials - x)),
    )
