"""Statistics over prompts of scores that are sums of pairs of parts.

Belongs here: order of pairs, explained variance, shares by kinds, the frames. Does not belong here:
where contributions come from (qk_features.py).

Over n prompts with scores s, a pair contributes c (0 where one of its parts is inactive). Two
orders: by |mean c|, what the score is made of, and by |cov(c, s)|, what makes it vary: the shares
cov(c, s) / var(s) of all pairs sum to 1. With S_k the sum of the first k pairs,
  variance_explained = 1 - var(s - S_k) / var(s)    (below 0 where the rest undoes what S_k does)
  r_squared          = corr(s, S_k)^2
Pairs are ordered with the prompts that they are then measured on, so variance_explained_held_out
orders them with every other base prompt and measures on those left out.

Intervals: 95% percentile bootstrap over base prompts, the pairs being those chosen on all prompts.
Prompts that were varied from one base are drawn together, and fall in one half together.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.residual_parts import PartName, PartNumbers
from mechinterp_assets.statistics.bootstrap import resample_counts

REST = "rest"
ORDERS = ("mean", "covariance")
N_BOOTSTRAP = 1000

_PAIR = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "source_role": pl.String(),
    "query_kind": pl.String(),
    "query_layer": pl.Int32(),
}
PAIRS_SCHEMA = pl.Schema(
    {
        **_PAIR,
        "query_feature": pl.Int32(),
        "key_kind": pl.String(),
        "key_layer": pl.Int32(),
        "key_feature": pl.Int32(),
        "rank": pl.Int32(),
        "covariance_rank": pl.Int32(),
        "n_part_pairs": pl.Int64(),
        "n": pl.Int64(),
        "n_present": pl.Int64(),
        "mean": pl.Float64(),
        "sd": pl.Float64(),
        "score_share": pl.Float64(),
        "covariance_share": pl.Float64(),
        "mean_score": pl.Float64(),
        "identity_error": pl.Float64(),
    }
)
KINDS_SCHEMA = pl.Schema(
    {
        **_PAIR,
        "key_kind": pl.String(),
        "key_layer": pl.Int32(),
        "n_part_pairs": pl.Int64(),
        "n": pl.Int64(),
        "mean": pl.Float64(),
        "sd": pl.Float64(),
        "score_share": pl.Float64(),
        "covariance_share": pl.Float64(),
    }
)
SUMMARY_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "source_role": pl.String(),
        "ordered_by": pl.String(),
        "n_top_pairs": pl.Int32(),
        "n": pl.Int64(),
        "n_bases": pl.Int64(),
        "n_part_pairs": pl.Int64(),
        "mean_score": pl.Float64(),
        "sd_score": pl.Float64(),
        "mean_attention": pl.Float64(),
        "mean_part": pl.Float64(),
        **{
            f"{name}{end}": pl.Float64()
            for name in (
                *("score_share", "variance_explained", "r_squared"),
                "variance_explained_held_out",
            )
            for end in ("", "_ci_low", "_ci_high")
        },
        "identity_error": pl.Float64(),
    }
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RolePairs:
    """Contributions of pairs to one head's score to one role, float64, at most one per prompt.

    prompt, pair, value [n]; pair = query part * numbers.count + key part; score, attention [prompt]
    of the model's run.
    """

    layer: int
    head: int
    role: str
    prompt: Tensor
    pair: Tensor
    value: Tensor
    score: Tensor
    attention: Tensor

    def totals(self, n_prompts: int) -> Tensor:
        """Sum of all pairs of every prompt."""
        return self.value.new_zeros(n_prompts).index_add_(0, self.prompt, self.value)

    def minus(self, other: "RolePairs") -> "RolePairs":
        """The contrast of two roles, pair by pair."""
        prompt, pair, value = (
            np.concatenate([a.numpy(), b.numpy()])
            for a, b in (
                (self.prompt, other.prompt),
                (self.pair, other.pair),
                (self.value, -other.value),
            )
        )
        order = np.lexsort((pair, prompt))
        prompt, pair, value = prompt[order], pair[order], value[order]
        first = np.ones(len(pair), dtype=bool)
        first[1:] = (pair[1:] != pair[:-1]) | (prompt[1:] != prompt[:-1])
        starts = first.nonzero()[0]
        return RolePairs(
            self.layer,
            self.head,
            f"{self.role}-{other.role}",
            _tensor(prompt[starts]),
            _tensor(pair[starts]),
            _tensor(np.add.reduceat(value, starts)),
            self.score - other.score,
            self.attention - other.attention,
        )


@dataclass(frozen=True)
class PairTables:
    """Frames of PAIRS_SCHEMA, KINDS_SCHEMA and SUMMARY_SCHEMA."""

    pairs: pl.DataFrame
    kinds: pl.DataFrame
    summary: pl.DataFrame


def pair_tables(
    of_roles: Sequence[RolePairs],
    numbers: PartNumbers,
    *,
    top_pairs: int,
    top_k: Sequence[int],
    last: Collection[str] = (),
    bases: Sequence[int] | None = None,
    seed: int = 0,
) -> PairTables:
    """Tables of several heads and roles, in their order; see the frames' tables for columns.

    pairs: those among the first `top_pairs` by either order, then a row `rest` with all others.
    last: kinds of query parts whose pairs come behind all others in both orders.
    bases: base prompt of each prompt; None: each is its own. seed: of the bootstrap.
    """
    pairs: list[dict[str, object]] = []
    kinds: list[dict[str, object]] = []
    summary: list[dict[str, object]] = []
    for one in of_roles:
        base = np.arange(len(one.score)) if bases is None else np.array(bases, dtype=np.int64)
        counted = _Counted(one, numbers, last, base, seed)
        pairs += counted.pair_rows(top_pairs)
        kinds += counted.kind_rows()
        summary += counted.summary_rows(top_k)
    return PairTables(
        pl.DataFrame(pairs, schema=PAIRS_SCHEMA, orient="row"),
        pl.DataFrame(kinds, schema=KINDS_SCHEMA, orient="row"),
        pl.DataFrame(summary, schema=SUMMARY_SCHEMA, orient="row"),
    )


# ---- private -------------------------------------------------------------------------------------


class _Counted:
    """Statistics of one head's pairs at one role."""

    def __init__(
        self,
        one: RolePairs,
        numbers: PartNumbers,
        last: Collection[str],
        base: Ints,
        seed: int,
    ) -> None:
        found, number = np.unique(base, return_inverse=True)
        self._base: Ints = number.astype(np.int64)
        self._n_bases, self._seed = len(found), seed
        self._prompt: Ints = one.prompt.numpy()
        self._value: Floats = one.value.numpy()
        self._score: Floats = one.score.numpy()
        self._n = len(self._score)
        found, place = np.unique(one.pair.numpy(), return_inverse=True)
        self._place: Ints = place.astype(np.int64)
        query, key = np.divmod(found, numbers.count)
        self._names = numbers.names(set(query.tolist()) | set(key.tolist()))
        self._query: list[int] = query.tolist()
        self._key: list[int] = key.tolist()
        self._last = np.array([self._names[part][0] in last for part in self._query])
        self._all = _Groups(self._place, len(found), self._prompt, self._value, self._score)
        self._orders = {order: self._order(order, None) for order in ORDERS}
        self._head = {"layer": one.layer, "head": one.head, "source_role": one.role}
        self._mean_attention = float(one.attention.mean())
        self._error = float(np.abs(one.totals(self._n).numpy() - self._score).max())

    def pair_rows(self, top: int) -> list[dict[str, object]]:
        """The first pairs by either order, and the rest."""
        ranks = {order: _ranks(self._orders[order]) for order in ORDERS}
        listed = np.minimum(*ranks.values()) < top
        rows = []
        for i in sorted(listed.nonzero()[0].tolist(), key=lambda i: int(ranks["mean"][i])):
            query, key = self._names[self._query[i]], self._names[self._key[i]]
            rows.append(
                {
                    **self._head,
                    **_part("query", query),
                    **_part("key", key),
                    "rank": int(ranks["mean"][i]),
                    "covariance_rank": int(ranks["covariance"][i]),
                    "n_part_pairs": 1,
                    "n_present": int(self._all.count[i]),
                    **self._numbers(self._all, i),
                    **self._totals(),
                }
            )
        if not listed.all():
            kept = ~listed[self._place]
            rest = _Groups(
                np.zeros(self._n, dtype=np.int64),
                1,
                *_summed(self._prompt[kept], self._value[kept], self._n),
                self._score,
            )
            rows.append(
                {
                    **self._head,
                    "query_kind": REST,
                    "key_kind": REST,
                    "n_part_pairs": int((~listed).sum()),
                    **self._numbers(rest, 0),
                    **self._totals(),
                }
            )
        return rows

    def kind_rows(self) -> list[dict[str, object]]:
        """Pairs of the same kinds and layers together."""
        kinds = sorted({name[:2] for name in self._names.values()}, key=str)
        of_part = {part: kinds.index(name[:2]) for part, name in self._names.items()}
        query, key = (
            np.array([of_part[part] for part in parts], dtype=np.int64)
            for parts in (self._query, self._key)
        )
        groups, of_pair = np.unique(query * len(kinds) + key, return_inverse=True)
        size = len(groups)
        summed = _sums(of_pair[self._place] * self._n + self._prompt, self._value, size * self._n)
        together = _Groups(
            np.repeat(np.arange(size), self._n),
            size,
            np.tile(np.arange(self._n), size),
            summed,
            self._score,
        )
        n_pairs = np.bincount(of_pair, minlength=size)
        rows = []
        for i in np.argsort(-np.abs(together.mean), kind="stable").tolist():
            query_kind, key_kind = (kinds[g] for g in divmod(int(groups[i]), len(kinds)))
            rows.append(
                {
                    **self._head,
                    "query_kind": query_kind[0],
                    "query_layer": query_kind[1],
                    "key_kind": key_kind[0],
                    "key_layer": key_kind[1],
                    "n_part_pairs": int(n_pairs[i]),
                    **self._numbers(together, i),
                }
            )
        return rows

    def summary_rows(self, top_k: Sequence[int]) -> list[dict[str, object]]:
        """How far the first k pairs of each order go; all of them where there are fewer than k."""
        rows = []
        odd = self._base % 2 == 1
        for order in ORDERS:
            ranks = _ranks(self._orders[order])
            held_out = _ranks(self._order(order, ~odd))
            for k in sorted({min(k, len(self._query)) for k in top_k}):
                part = self._partial(ranks < k)
                unseen = self._partial(held_out < k)[odd]
                intervals = {
                    **self._intervals(self._score, part, self._base, _STATISTICS),
                    **self._intervals(self._score[odd], unseen, self._base[odd], _HELD_OUT),
                }
                rows.append(
                    {
                        **self._head,
                        "ordered_by": order,
                        "n_top_pairs": k,
                        "n_part_pairs": len(self._query),
                        "sd_score": float(self._score.std(ddof=1)),
                        "mean_attention": self._mean_attention,
                        "mean_part": float(part.mean()),
                        "score_share": _ratio(float(part.mean()), float(self._score.mean())),
                        "variance_explained": _explained(self._score, part),
                        "r_squared": _r_squared(self._score, part),
                        "variance_explained_held_out": _explained(self._score[odd], unseen),
                        "n_bases": self._n_bases,
                        **intervals,
                        "n": self._n,
                        **self._totals(),
                    }
                )
        return rows

    def _order(self, order: str, prompts: NDArray[np.bool_] | None) -> Ints:
        """Pairs, first the one that matters most, on some prompts or all; ties by number."""
        groups = self._all
        if prompts is not None:
            number = np.cumsum(prompts) - 1
            kept = prompts[self._prompt]
            groups = _Groups(
                self._place[kept],
                len(self._query),
                number[self._prompt[kept]],
                self._value[kept],
                self._score[prompts],
            )
        by = groups.mean if order == "mean" else groups.covariance
        return np.lexsort((-np.abs(by), self._last)).astype(np.int64)

    def _partial(self, chosen: NDArray[np.bool_]) -> Floats:
        """Sum of chosen pairs, per prompt."""
        kept = chosen[self._place]
        return _summed(self._prompt[kept], self._value[kept], self._n)[1]

    def _intervals(
        self, score: Floats, part: Floats, base: Ints, names: "dict[str, _Statistic]"
    ) -> dict[str, float | None]:
        """Bounds of statistics of (score, part) over resampled base prompts; None below two."""
        found, number = np.unique(base, return_inverse=True)
        bounds: dict[str, float | None] = {}
        drawn = None
        if len(found) >= 2:
            counts = resample_counts(len(found), N_BOOTSTRAP, self._seed).astype(np.float64)
            drawn = _Moments.of(counts[:, number], score, part)
        for name, statistic in names.items():
            values = np.full(1, np.nan) if drawn is None else statistic(drawn)
            values = values[~np.isnan(values)]
            low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (None, None)
            bounds[f"{name}_ci_low"] = None if low is None else float(low)
            bounds[f"{name}_ci_high"] = None if high is None else float(high)
        return bounds

    def _numbers(self, groups: "_Groups", i: int) -> dict[str, object]:
        variance = float(self._score.var(ddof=1))
        mean = float(groups.mean[i])
        return {
            "n": self._n,
            "mean": mean,
            "sd": float(groups.sd[i]),
            "score_share": _ratio(mean, float(self._score.mean())),
            "covariance_share": _ratio(float(groups.covariance[i]), variance),
        }

    def _totals(self) -> dict[str, object]:
        return {"mean_score": float(self._score.mean()), "identity_error": self._error}


class _Groups:
    """Mean, sd and covariance with the score, over prompts, of values in groups.

    A prompt without a value in a group counts as 0; with at most one value per prompt and group.
    """

    def __init__(self, group: Ints, size: int, prompt: Ints, value: Floats, score: Floats) -> None:
        n = len(score)
        self.count = np.bincount(group, minlength=size)
        self.mean: Floats = _sums(group, value, size) / n
        squares = _sums(group, (value - self.mean[group]) ** 2, size)
        squares += (n - self.count) * self.mean**2
        self.sd: Floats = np.sqrt(squares / (n - 1))
        self.covariance: Floats = _sums(group, value * (score - score.mean())[prompt], size) / (
            n - 1
        )


@dataclass(frozen=True)
class _Moments:
    """Means and central moments of score and part in every resample [resample]."""

    score: Floats
    part: Floats
    score_variance: Floats
    part_variance: Floats
    covariance: Floats

    @classmethod
    def of(cls, weights: Floats, score: Floats, part: Floats) -> "_Moments":
        """weights [resample, prompt]: how often each prompt is drawn."""
        # About the means of all prompts, so that squares do not cancel.
        s, p = score - score.mean(), part - part.mean()
        total = weights.sum(axis=1)
        first_s, first_p, ss, pp, sp = (
            weights @ np.stack([s, p, s * s, p * p, s * p], axis=1) / total[:, None]
        ).T
        return cls(
            score=score.mean() + first_s,
            part=part.mean() + first_p,
            score_variance=_positive(ss - first_s**2, ss),
            part_variance=_positive(pp - first_p**2, pp),
            covariance=sp - first_s * first_p,
        )

    def share(self) -> Floats:
        """Mean part / mean score; nowhere where resampled mean scores have both signs."""
        if not ((self.score > 0).all() or (self.score < 0).all()):
            return np.full_like(self.score, np.nan)
        return self.part / self.score

    def explained(self) -> Floats:
        """1 - var(score - part) / var(score)."""
        return (2 * self.covariance - self.part_variance) / self.score_variance

    def r_squared(self) -> Floats:
        """Squared correlation."""
        return self.covariance**2 / (self.score_variance * self.part_variance)


_Statistic = Callable[[_Moments], Floats]
_STATISTICS: dict[str, _Statistic] = {
    "score_share": _Moments.share,
    "variance_explained": _Moments.explained,
    "r_squared": _Moments.r_squared,
}
_HELD_OUT: dict[str, _Statistic] = {"variance_explained_held_out": _Moments.explained}


def _positive(variance: Floats, squares: Floats) -> Floats:
    """Variances, NaN where a resample has one value only and rounding is all there is."""
    return np.where(variance > 1e-12 * squares, variance, np.nan)


def _sums(group: Ints, value: Floats, size: int) -> Floats:
    """Sum of the values of each group below `size`."""
    return np.bincount(group, value, size).astype(np.float64, copy=False)


def _summed(prompt: Ints, value: Floats, n: int) -> tuple[Ints, Floats]:
    """Every prompt, and the sum of its values."""
    return np.arange(n), _sums(prompt, value, n)


def _ranks(order: Ints) -> Ints:
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks


def _part(side: str, name: PartName) -> dict[str, object]:
    kind, layer, feature = name
    return {f"{side}_kind": kind, f"{side}_layer": layer, f"{side}_feature": feature}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole != 0 else None


def _explained(score: Floats, part: Floats) -> float | None:
    variance = float(score.var()) if len(score) else 0.0
    return 1 - float((score - part).var()) / variance if variance > 0 else None


def _r_squared(score: Floats, part: Floats) -> float | None:
    if score.var() == 0 or part.var() == 0:
        return None
    return float(np.corrcoef(score, part)[0, 1] ** 2)


def _tensor(values: NDArray[np.int64] | NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values)
