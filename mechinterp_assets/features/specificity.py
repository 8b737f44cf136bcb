"""How well a proxy tells where a feature is active.

Belongs here: counts behind specificity, expected-value and sensitivity plots (K24 section 3.3 and
its appendix on proxies; Bricken et al. 2023). Does not belong here: when a proxy holds
(proxies.py).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.proxies import (
    PromotedByInduction,
    Proxy,
    TokenProxy,
    cells_by_induction,
)
from mechinterp_assets.features.sparse_activations import SparseActivations
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson

PROXIES_SCHEMA: dict[str, Any] = {
    "proxy": pl.String,
    "definition": pl.String,
    "feature": pl.Int32,
    "n_tokens": pl.Int64,
    "n_true": pl.Int64,
    "n_active": pl.Int64,
    "n_active_true": pl.Int64,
    "n_silent_true": pl.Int64,
    "activation_sum": pl.Float64,
    "activation_sum_true": pl.Float64,
    "specificity_low": pl.Float64,
    "specificity_high": pl.Float64,
    "sensitivity_low": pl.Float64,
    "sensitivity_high": pl.Float64,
}
HISTOGRAM_SCHEMA: dict[str, Any] = {
    "proxy": pl.String,
    "feature": pl.Int32,
    "interval": pl.Int32,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_active": pl.Int64,
    "n_active_true": pl.Int64,
    "activation_sum": pl.Float64,
    "activation_sum_true": pl.Float64,
    "specificity_low": pl.Float64,
    "specificity_high": pl.Float64,
}


@dataclass(frozen=True)
class ProxyTables:
    """Frames feature_proxies and feature_proxy_histogram of one layer (no study, no layer)."""

    proxies: pl.DataFrame
    histogram: pl.DataFrame


def compare_with_proxies(
    activations: Iterable[pl.DataFrame],
    proxies: Sequence[Proxy],
    tokens: CorpusTokens,
    token_strings: list[str],
    promoted: Mapping[int, int],
    *,
    n_intervals: int = 10,
    only: Mapping[str, Sequence[int]] | None = None,
) -> ProxyTables:
    """Counts of (feature active, proxy true) for every proxy and feature that fired.

    Args:
        activations: frames of feature_activations, each of whole features.
        proxies: rules with distinct names.
        tokens: the tokens that were read.
        token_strings: text of each token id.
        promoted: feature -> id of the token with its largest logit effect, for
            PromotedByInduction; features without one are left out of that proxy.
        n_intervals: intervals of (0, max] per feature, as in feature_intervals.
        only: proxy name -> features it is compared with; a proxy not named: all.

    Raises:
        ProxyError: a proxy does not fit the tokenizer.
    """
    for proxy in proxies:
        proxy.check(token_strings)
    holds = {
        proxy.name: proxy.holds(tokens, token_strings)
        for proxy in proxies
        if isinstance(proxy, TokenProxy)
    }
    summaries: list[pl.DataFrame] = []
    histograms: list[pl.DataFrame] = []
    for frame in activations if proxies else ():
        block = _Block.of(SparseActivations.of_frame(frame, tokens), n_intervals)
        for proxy in proxies:
            if isinstance(proxy, PromotedByInduction):
                true, n_true = _promoted(block.activations, promoted, tokens)
            else:
                true = holds[proxy.name][block.activations.cell]
                n_true = np.full(len(block.activations.features), holds[proxy.name].sum())
            wanted = n_true >= 0
            if only is not None and proxy.name in only:
                wanted &= np.isin(block.activations.features, list(only[proxy.name]))
            counts = block.count(true)
            summaries.append(counts.summary(proxy, n_true, tokens.n_tokens, wanted))
            histograms.append(counts.histogram(proxy, wanted))
    order = {proxy.name: place for place, proxy in enumerate(proxies)}
    return ProxyTables(
        _sorted(summaries, PROXIES_SCHEMA, order), _sorted(histograms, HISTOGRAM_SCHEMA, order)
    )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counts:
    """All [feature, interval]; sums of activations in float64."""

    features: NDArray[np.int64]
    edges: NDArray[np.float64]
    n_active: NDArray[np.int64]
    n_active_true: NDArray[np.int64]
    activation_sum: NDArray[np.float64]
    activation_sum_true: NDArray[np.float64]

    def summary(
        self, proxy: Proxy, n_true: NDArray[np.int64], n_tokens: int, wanted: NDArray[np.bool_]
    ) -> pl.DataFrame:
        active, both = self.n_active.sum(axis=1)[wanted], self.n_active_true.sum(axis=1)[wanted]
        true = n_true[wanted]
        specificity, sensitivity = clopper_pearson(both, active), clopper_pearson(both, true)
        return _frame(
            {
                "proxy": [proxy.name] * len(active),
                "definition": [proxy.definition] * len(active),
                "feature": self.features[wanted],
                "n_tokens": np.full(len(active), n_tokens),
                "n_true": true,
                "n_active": active,
                "n_active_true": both,
                "n_silent_true": true - both,
                "activation_sum": self.activation_sum.sum(axis=1)[wanted],
                "activation_sum_true": self.activation_sum_true.sum(axis=1)[wanted],
                "specificity_low": specificity[0],
                "specificity_high": specificity[1],
                "sensitivity_low": sensitivity[0],
                "sensitivity_high": sensitivity[1],
            },
            PROXIES_SCHEMA,
        )

    def histogram(self, proxy: Proxy, wanted: NDArray[np.bool_]) -> pl.DataFrame:
        n_intervals = self.n_active.shape[1]
        n = int(wanted.sum())
        active, both = self.n_active[wanted].reshape(-1), self.n_active_true[wanted].reshape(-1)
        low, high = clopper_pearson(both, active)
        return _frame(
            {
                "proxy": [proxy.name] * len(active),
                "feature": np.repeat(self.features[wanted], n_intervals),
                "interval": np.tile(np.arange(n_intervals), n),
                "low": self.edges[wanted, :-1].reshape(-1),
                "high": self.edges[wanted, 1:].reshape(-1),
                "n_active": active,
                "n_active_true": both,
                "activation_sum": self.activation_sum[wanted].reshape(-1),
                "activation_sum_true": self.activation_sum_true[wanted].reshape(-1),
                "specificity_low": low,
                "specificity_high": high,
            },
            HISTOGRAM_SCHEMA,
        )


@dataclass(frozen=True)
class _Block:
    """Whole features with the cell (feature, interval) of each of their activations.

    bin [row]; value [row] float64; n_active, activation_sum [feature, interval].
    """

    activations: SparseActivations
    edges: NDArray[np.float64]
    bin: NDArray[np.int64]
    value: NDArray[np.float64]
    n_active: NDArray[np.int64]
    activation_sum: NDArray[np.float64]

    @classmethod
    def of(cls, activations: SparseActivations, n_intervals: int) -> "_Block":
        value = activations.activation.astype(np.float64)
        maxima = np.maximum.reduceat(value, activations.starts[:-1])
        edges = np.linspace(0.0, maxima, n_intervals + 1, axis=-1)
        group = activations.group
        # (low, high], as in feature_intervals: a quotient that rounding may put one off, corrected.
        interval = np.ceil(value / maxima[group] * n_intervals).astype(np.int64) - 1
        interval = interval.clip(0, n_intervals - 1)
        flat, first = edges.reshape(-1), group * (n_intervals + 1)
        interval -= value <= flat[first + interval]
        interval += (value > flat[first + interval + 1]) & (interval < n_intervals - 1)
        place = group * n_intervals + interval
        shape = (len(maxima), n_intervals)
        size = len(maxima) * n_intervals
        return cls(
            activations,
            edges,
            place,
            value,
            np.bincount(place, minlength=size).reshape(shape),
            _sums(place, value, shape),
        )

    def count(self, true: NDArray[np.bool_]) -> _Counts:
        rows = np.flatnonzero(true)
        hit, shape = self.bin[rows], self.n_active.shape
        size = shape[0] * shape[1]
        return _Counts(
            features=self.activations.features,
            edges=self.edges,
            n_active=self.n_active,
            n_active_true=np.bincount(hit, minlength=size).reshape(shape),
            activation_sum=self.activation_sum,
            activation_sum_true=_sums(hit, self.value[rows], shape),
        )


def _sums(
    place: NDArray[np.int64], value: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Sum of the values at each place of an array of a shape."""
    sums = np.bincount(place, value, minlength=math.prod(shape)).astype(np.float64)
    return sums.reshape(shape)


def _promoted(
    activations: SparseActivations, promoted: Mapping[int, int], tokens: CorpusTokens
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """[row] whether each feature's own token is next by induction; [feature] at how many tokens.

    -1 tokens for a feature without a promoted token.
    """
    true = np.zeros(len(activations.cell), dtype=bool)
    n_true = np.full(len(activations.features), -1, dtype=np.int64)
    mask = np.zeros(len(tokens.token_ids), dtype=bool)
    of_token: dict[int, list[int]] = {}
    for index, feature in enumerate(activations.features.tolist()):
        if feature in promoted:
            of_token.setdefault(promoted[feature], []).append(index)
    for token, indices in of_token.items():
        cells = cells_by_induction(tokens, token)
        mask[cells] = True
        for index in indices:
            rows = slice(activations.starts[index], activations.starts[index + 1])
            true[rows] = mask[activations.cell[rows]]
            n_true[index] = len(cells)
        mask[cells] = False
    return true, n_true


def _frame(columns: Mapping[str, Any], schema: Mapping[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame(columns).select(pl.col(name).cast(kind) for name, kind in schema.items())
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _sorted(
    frames: list[pl.DataFrame], schema: Mapping[str, Any], order: Mapping[str, int]
) -> pl.DataFrame:
    if not frames:
        return pl.DataFrame(schema=schema)
    place = pl.col("proxy").replace_strict(order, return_dtype=pl.Int32)
    keys = [place, "feature", *(["interval"] if "interval" in schema else [])]
    return pl.concat(frames).sort(keys)
