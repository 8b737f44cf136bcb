"""How well a proxy tells where a feature is active.

Belongs here: counts behind specificity, expected-value and sensitivity plots (K24 section 3.3 and
its appendix on proxies; Bricken et al. 2023), and the shares' intervals. Does not belong here: when
a proxy holds (proxies.py).

Tokens of one document are not independent: intervals are over documents (clustered_shares.py).
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
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

PROXIES_SCHEMA: dict[str, Any] = {
    "proxy": pl.String,
    "definition": pl.String,
    "feature": pl.Int32,
    "n_tokens": pl.Int64,
    "n_true": pl.Int64,
    "n_active": pl.Int64,
    "n_active_true": pl.Int64,
    "n_silent_true": pl.Int64,
    "n_active_documents": pl.Int64,
    "n_true_documents": pl.Int64,
    "activation_sum": pl.Float64,
    "activation_sum_true": pl.Float64,
    "specificity_low": pl.Float64,
    "specificity_high": pl.Float64,
    "sensitivity_low": pl.Float64,
    "sensitivity_high": pl.Float64,
    "mass_specificity_low": pl.Float64,
    "mass_specificity_high": pl.Float64,
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
    "n_active_documents": pl.Int64,
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
        block = _Block.of(SparseActivations.of_frame(frame, tokens), tokens, n_intervals)
        for proxy in proxies:
            if isinstance(proxy, PromotedByInduction):
                holding = _promoted(block, promoted, tokens)
            else:
                holding = _everywhere(block, holds[proxy.name], tokens)
            wanted = holding.n_true >= 0
            if only is not None and proxy.name in only:
                wanted &= np.isin(block.activations.features, list(only[proxy.name]))
            counts = block.count(holding)
            summaries.append(counts.summary(proxy, tokens.n_tokens, wanted))
            histograms.append(counts.histogram(proxy, wanted))
    order = {proxy.name: place for place, proxy in enumerate(proxies)}
    return ProxyTables(
        _sorted(summaries, PROXIES_SCHEMA, order), _sorted(histograms, HISTOGRAM_SCHEMA, order)
    )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Holding:
    """Where a proxy holds, as the features of a block need it.

    true [row]; n_true, n_true_documents, squares [feature]: tokens at which it holds, documents
    with any, and the sum of squares of tokens per document; -1 tokens: not defined for the feature.
    here [(feature, document)]: tokens of that document at which it holds.
    """

    true: NDArray[np.bool_]
    n_true: NDArray[np.int64]
    n_true_documents: NDArray[np.int64]
    squares: NDArray[np.int64]
    here: NDArray[np.int64]


@dataclass(frozen=True)
class _Counts:
    """All [feature, interval]; sums of activations in float64.

    specificity: of [feature * n_intervals + interval]; of_features, mass, sensitivity [feature].
    """

    features: NDArray[np.int64]
    edges: NDArray[np.float64]
    n_active: NDArray[np.int64]
    n_active_true: NDArray[np.int64]
    activation_sum: NDArray[np.float64]
    activation_sum_true: NDArray[np.float64]
    n_true: NDArray[np.int64]
    specificity: ClusteredShares
    of_features: ClusteredShares
    mass: ClusteredShares
    sensitivity: ClusteredShares

    def summary(self, proxy: Proxy, n_tokens: int, wanted: NDArray[np.bool_]) -> pl.DataFrame:
        active, both = self.n_active.sum(axis=1)[wanted], self.n_active_true.sum(axis=1)[wanted]
        true = self.n_true[wanted]
        columns: dict[str, Any] = {
            "proxy": [proxy.name] * len(active),
            "definition": [proxy.definition] * len(active),
            "feature": self.features[wanted],
            "n_tokens": np.full(len(active), n_tokens),
            "n_true": true,
            "n_active": active,
            "n_active_true": both,
            "n_silent_true": true - both,
            "n_active_documents": self.of_features.n_clusters[wanted],
            "n_true_documents": self.sensitivity.n_clusters[wanted],
            "activation_sum": self.activation_sum.sum(axis=1)[wanted],
            "activation_sum_true": self.activation_sum_true.sum(axis=1)[wanted],
        }
        for name, shares in (
            ("specificity", self.of_features),
            ("sensitivity", self.sensitivity),
            ("mass_specificity", self.mass),
        ):
            low, high = shares.interval()
            columns |= {f"{name}_low": low[wanted], f"{name}_high": high[wanted]}
        return _frame(columns, PROXIES_SCHEMA)

    def histogram(self, proxy: Proxy, wanted: NDArray[np.bool_]) -> pl.DataFrame:
        n_intervals = self.n_active.shape[1]
        n = int(wanted.sum())
        cells = np.repeat(wanted, n_intervals)
        low, high = self.specificity.interval()
        return _frame(
            {
                "proxy": [proxy.name] * (n * n_intervals),
                "feature": np.repeat(self.features[wanted], n_intervals),
                "interval": np.tile(np.arange(n_intervals), n),
                "low": self.edges[wanted, :-1].reshape(-1),
                "high": self.edges[wanted, 1:].reshape(-1),
                "n_active": self.n_active[wanted].reshape(-1),
                "n_active_true": self.n_active_true[wanted].reshape(-1),
                "activation_sum": self.activation_sum[wanted].reshape(-1),
                "activation_sum_true": self.activation_sum_true[wanted].reshape(-1),
                "n_active_documents": self.specificity.n_clusters[cells],
                "specificity_low": low[cells],
                "specificity_high": high[cells],
            },
            HISTOGRAM_SCHEMA,
        )


@dataclass(frozen=True)
class _Block:
    """Whole features with the cell (feature, interval) of each of their activations.

    bin [row]; value [row] float64; n_active, activation_sum [feature, interval].

    Clusters are the documents with an activation, of a feature or of one of its intervals:
    in_interval [row] cluster (feature, interval, document) of each activation, interval_place its
    feature and interval, interval_feature its cluster (feature, document); of_feature [(feature,
    document)] the feature, document its document.
    """

    activations: SparseActivations
    edges: NDArray[np.float64]
    bin: NDArray[np.int64]
    value: NDArray[np.float64]
    n_active: NDArray[np.int64]
    activation_sum: NDArray[np.float64]
    in_interval: NDArray[np.int64]
    interval_place: NDArray[np.int64]
    interval_feature: NDArray[np.int64]
    of_feature: NDArray[np.int64]
    document: NDArray[np.int64]

    @classmethod
    def of(cls, activations: SparseActivations, tokens: CorpusTokens, n_intervals: int) -> "_Block":
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
        n_documents = tokens.n_documents
        fine, in_interval = np.unique(
            place * n_documents + tokens.document[activations.cell], return_inverse=True
        )
        interval_place, of_document = np.divmod(fine, n_documents)
        coarse, interval_feature = np.unique(
            interval_place // n_intervals * n_documents + of_document, return_inverse=True
        )
        of_feature, document = np.divmod(coarse, n_documents)
        return cls(
            activations,
            edges,
            place,
            value,
            np.bincount(place, minlength=size).reshape(shape),
            _sums(place, value, shape),
            in_interval,
            interval_place,
            interval_feature,
            of_feature,
            document,
        )

    def count(self, holding: _Holding) -> _Counts:
        rows = np.flatnonzero(holding.true)
        hit, shape = self.bin[rows], self.n_active.shape
        size = shape[0] * shape[1]
        fine, n_fine = self.in_interval, len(self.interval_place)
        n_coarse = len(self.of_feature)

        def coarse(values: NDArray[Any]) -> NDArray[np.float64]:
            return _sums(self.interval_feature, values.astype(np.float64), (n_coarse,))

        active = np.bincount(fine, minlength=n_fine)
        both = np.bincount(fine[rows], minlength=n_fine)
        weight = coarse(_sums(fine, self.value, (n_fine,)))
        weight_true = coarse(_sums(fine[rows], self.value[rows], (n_fine,)))
        squares = _sums(self.activations.group, self.value**2, (shape[0],))
        in_documents = coarse(both)
        return _Counts(
            features=self.activations.features,
            edges=self.edges,
            n_active=self.n_active,
            n_active_true=np.bincount(hit, minlength=size).reshape(shape),
            activation_sum=self.activation_sum,
            activation_sum_true=_sums(hit, self.value[rows], shape),
            n_true=holding.n_true,
            specificity=ClusteredShares.of_clusters(self.interval_place, size, both, active),
            of_features=ClusteredShares.of_clusters(
                self.of_feature, shape[0], in_documents, coarse(active)
            ),
            mass=ClusteredShares.of_clusters(
                self.of_feature,
                shape[0],
                weight_true,
                weight,
                self.activation_sum.sum(axis=1) ** 2 / squares,
            ),
            sensitivity=self._sensitivity(holding, in_documents),
        )

    def _sensitivity(self, holding: _Holding, both: NDArray[np.float64]) -> ClusteredShares:
        """Documents in which the feature is silent count too: in the sums over n_c alone."""

        def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return _sums(self.of_feature, values, (len(holding.n_true),))

        n = np.maximum(holding.n_true, 0).astype(np.float64)
        return ClusteredShares(
            part=summed(both),
            whole=n,
            part_squares=summed(both * both),
            products=summed(both * holding.here),
            whole_squares=holding.squares.astype(np.float64),
            n=n,
            n_clusters=holding.n_true_documents,
        )


def _sums(
    place: NDArray[np.int64], value: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Sum of the values at each place of an array of a shape."""
    sums = np.bincount(place, value, minlength=math.prod(shape)).astype(np.float64)
    return sums.reshape(shape)


def _everywhere(block: _Block, holds: NDArray[np.bool_], tokens: CorpusTokens) -> _Holding:
    """A proxy that is the same for all features; holds [cell]."""
    per_document = np.bincount(tokens.document[holds], minlength=tokens.n_documents)
    n = len(block.activations.features)
    return _Holding(
        true=holds[block.activations.cell],
        n_true=np.full(n, per_document.sum()),
        n_true_documents=np.full(n, (per_document > 0).sum()),
        squares=np.full(n, (per_document**2).sum()),
        here=per_document[block.document],
    )


def _promoted(block: _Block, promoted: Mapping[int, int], tokens: CorpusTokens) -> _Holding:
    """Where each feature's own token is next by induction.

    -1 tokens for a feature without a promoted token.
    """
    activations = block.activations
    n = len(activations.features)
    true = np.zeros(len(activations.cell), dtype=bool)
    n_true = np.full(n, -1, dtype=np.int64)
    n_documents, squares = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    here = np.zeros(len(block.document), dtype=np.int64)
    clusters = np.searchsorted(block.of_feature, np.arange(n + 1))
    mask = np.zeros(len(tokens.token_ids), dtype=bool)
    of_token: dict[int, list[int]] = {}
    for index, feature in enumerate(activations.features.tolist()):
        if feature in promoted:
            of_token.setdefault(promoted[feature], []).append(index)
    for token, indices in of_token.items():
        cells = cells_by_induction(tokens, token)
        mask[cells] = True
        per_document = np.bincount(tokens.document[cells], minlength=tokens.n_documents)
        for index in indices:
            rows = slice(activations.starts[index], activations.starts[index + 1])
            true[rows] = mask[activations.cell[rows]]
            own = slice(clusters[index], clusters[index + 1])
            here[own] = per_document[block.document[own]]
        n_true[indices] = len(cells)
        n_documents[indices] = (per_document > 0).sum()
        squares[indices] = (per_document**2).sum()
        mask[cells] = False
    return _Holding(true, n_true, n_documents, squares, here)


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
