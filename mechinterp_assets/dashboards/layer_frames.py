"""The tables of one layer, as the pages read them.

Belongs here: which columns the pages need, and access by feature. No HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Frame of LayerFrames -> columns that pages show. The table is feature_<name> but for the last two.
_NEEDED = {
    "statistics": (
        "feature",
        "n_active",
        "n_tokens",
        "n_active_sequences",
        "density",
        "log10_density",
        "mean_activation",
        "max_activation",
        "decoder_norm",
        "encoder_decoder_cosine",
        "encoder_bias",
    ),
    "top_examples": (
        "feature",
        "rank",
        "sequence",
        "position",
        "activation",
        "token_id",
        "window_start",
        "window_activations",
    ),
    "intervals": (
        "feature",
        "interval",
        "low",
        "high",
        "n_active",
        "active_share",
    ),
    "interval_examples": (
        "feature",
        "interval",
        "sample",
        "rank",
        "sequence",
        "position",
        "activation",
    ),
    "logit_effects": ("feature", "extreme", "rank", "token_id", "logit_effect"),
    "head_attribution": ("feature", "head", "attribution"),
    "dfa": ("feature", "rank", "dfa_by_head", "dfa_by_source"),
    "dfa_matrix": ("feature", "rank", "head", "dfa_by_source"),
    "activations": ("feature", "sequence", "position", "activation"),
    "rdfa": (
        "feature",
        "rank",
        "sequence",
        "position",
        "node",
        "parent",
        "node_kind",
        "at_layer",
        "at_head",
        "at_feature",
        "at_position",
        "token_id",
        "strongest_token",
        "promoted_token",
        "strongest_head",
        "activation",
        "gain",
        "n_left_out",
        "dfa",
        "share_of_root",
        "identity_error",
    ),
    "ngrams": (
        "feature",
        "ngram_size",
        "rank",
        "token_ids",
        "active_share",
        "rate",
        "mean_activation",
    ),
    "neighbours": ("feature", "measure", "rank", "neighbour", "similarity", "n_coactive"),
    "families": (
        "feature",
        "family",
        "measure",
        "value",
        "n",
        "meets_threshold",
        "required",
        "text",
    ),
    "proxies": (
        "feature",
        "proxy",
        "definition",
        "n_tokens",
        "n_true",
        "n_active",
        "n_active_true",
    ),
    "proxy_histogram": (
        "feature",
        "proxy",
        "interval",
        "low",
        "high",
        "n_active",
        "n_active_true",
        "activation_sum",
        "activation_sum_true",
    ),
    "proxy_examples": (
        "feature",
        "proxy",
        "error_kind",
        "rank",
        "n_errors",
        "sequence",
        "position",
        "activation",
        "text",
    ),
    "labels": ("feature", "rater", "label", "verdict", "note"),
    "names": ("feature", "fires_on", "promotes", "suppresses"),
    "head_roles": ("head", "role", "value"),
    "ioi_edges": (
        "upstream_layer",
        "upstream_head",
        "downstream_layer",
        "downstream_head",
        "destination_role",
        "source_role",
        "side",
        "n_prompts",
    ),
}


@dataclass(frozen=True)
class LayerFrames:
    """Frames of one study and layer, each with at least the columns of its table that pages show.

    A block whose frame is None is left out of the pages.

    Attributes:
        statistics: feature_statistics, every feature that pages are made of or link to.
        top_examples: feature_top_examples.
        intervals: feature_intervals.
        interval_examples: feature_interval_examples.
        logit_effects: feature_logit_effects.
        head_attribution: feature_head_attribution.
        dfa: feature_dfa, of all or some of the top examples; may be empty.
        dfa_matrix: feature_dfa_matrix.
        rdfa: feature_rdfa, of the features that have a tree.
        activations: feature_activations in the sequences of interval_examples.
        ngrams: feature_ngrams.
        neighbours: feature_neighbours.
        families: feature_families.
        proxies: feature_proxies.
        proxy_histogram: feature_proxy_histogram.
        proxy_examples: feature_proxy_examples.
        labels: feature_labels.
        names: token ids by which the index and other features' pages describe a feature
            (`feature_names`); None: only the features in top_examples and logit_effects have some.
        head_roles: rows of the view head_roles of this layer.
        ioi_edges: rows of trace_graph in which a head of this layer takes part.
    """

    statistics: pl.DataFrame
    top_examples: pl.DataFrame
    intervals: pl.DataFrame
    interval_examples: pl.DataFrame
    logit_effects: pl.DataFrame
    head_attribution: pl.DataFrame
    dfa: pl.DataFrame
    dfa_matrix: pl.DataFrame | None = None
    rdfa: pl.DataFrame | None = None
    activations: pl.DataFrame | None = None
    ngrams: pl.DataFrame | None = None
    neighbours: pl.DataFrame | None = None
    families: pl.DataFrame | None = None
    proxies: pl.DataFrame | None = None
    proxy_histogram: pl.DataFrame | None = None
    proxy_examples: pl.DataFrame | None = None
    labels: pl.DataFrame | None = None
    names: pl.DataFrame | None = None
    head_roles: pl.DataFrame | None = None
    ioi_edges: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        for name, columns in _NEEDED.items():
            frame = getattr(self, name)
            missing = [c for c in columns if frame is not None and c not in frame.columns]
            if missing:
                raise ValueError(
                    f"frame {name} lacks {missing}; pass the whole table feature_{name}"
                )
        if self.statistics["feature"].n_unique() != len(self.statistics):
            raise ValueError("statistics has a feature twice; pass one study and one layer")

    def described(self) -> pl.DataFrame:
        """Frame `names`, made from the other frames where it was not given."""
        if self.names is not None:
            return self.names
        found = feature_names(self.top_examples.lazy(), self.logit_effects.lazy())
        return found.collect()

    def example_sequences(self) -> pl.Series:
        """Sequences whose tokens the pages show, unique."""
        shown = [self.top_examples["sequence"], self.interval_examples["sequence"]]
        if self.rdfa is not None:
            shown.append(self.rdfa["sequence"])
        return pl.concat(shown).unique().sort()


def feature_names(top_examples: pl.LazyFrame, logit_effects: pl.LazyFrame) -> pl.LazyFrame:
    """Columns feature, fires_on (token of the strongest example), promotes, suppresses (token ids).

    Features without an example and without a logit effect are left out.
    """
    first = logit_effects.filter(pl.col("rank") == 0).select("feature", "extreme", "token_id")
    fires_on = top_examples.filter(pl.col("rank") == 0).select("feature", fires_on="token_id")
    top = first.filter(pl.col("extreme") == "top").select("feature", promotes="token_id")
    bottom = first.filter(pl.col("extreme") == "bottom").select("feature", suppresses="token_id")
    effects = top.join(bottom, on="feature", how="full", coalesce=True)
    return fires_on.join(effects, on="feature", how="full", coalesce=True).sort("feature")


class ByFeature:
    """One frame, sorted, with quick access to the rows of a feature; without a frame, no rows."""

    def __init__(self, frame: pl.DataFrame | None, columns: Sequence[str], *order: str) -> None:
        if frame is None:
            frame = pl.DataFrame(schema={**dict.fromkeys([*columns, *order]), "feature": pl.Int32})
        ordered = frame.sort("feature", *order)
        self.frame = ordered.select(columns)
        self._feature = ordered["feature"].to_numpy()

    def columns(self, feature: int) -> list[pl.Series]:
        """Columns of the rows of `feature`, in the order given at the start."""
        return self._part(feature).get_columns()

    def rows(self, feature: int) -> list[dict[str, Any]]:
        """Rows of `feature` by column name."""
        return self._part(feature).to_dicts()

    def _part(self, feature: int) -> pl.DataFrame:
        low, high = np.searchsorted(self._feature, [feature, feature + 1])
        return self.frame.slice(int(low), int(high - low))


@dataclass(frozen=True)
class ExampleAttribution:
    """DFA of one example: by head [head], by source [position + 1]."""

    by_head: NDArray[np.float32]
    by_source: NDArray[np.float32]


class AttributionByFeature:
    """Frame feature_dfa, with quick access to the examples of a feature."""

    def __init__(self, frame: pl.DataFrame) -> None:
        ordered = frame.sort("feature", "rank")
        self._feature = ordered["feature"].to_numpy()
        self._rank = ordered["rank"].to_list()
        self._heads, self._head_starts = _flat(ordered["dfa_by_head"])
        self._sources, self._source_starts = _flat(ordered["dfa_by_source"])

    def examples(self, feature: int) -> dict[int, ExampleAttribution]:
        """Attribution by rank of the example."""
        low, high = np.searchsorted(self._feature, [feature, feature + 1]).tolist()
        return {
            self._rank[i]: ExampleAttribution(
                self._heads[self._head_starts[i] : self._head_starts[i + 1]],
                self._sources[self._source_starts[i] : self._source_starts[i + 1]],
            )
            for i in range(low, high)
        }


class MatrixByFeature:
    """Frame feature_dfa_matrix, with quick access to the examples of a feature."""

    def __init__(self, frame: pl.DataFrame | None) -> None:
        self._feature: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._rank: list[int] = []
        self._values: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._starts = [0]
        if frame is not None:
            ordered = frame.sort("feature", "rank", "head")
            self._feature = ordered["feature"].to_numpy()
            self._rank = ordered["rank"].to_list()
            self._values, self._starts = _flat(ordered["dfa_by_source"])

    def examples(self, feature: int) -> dict[int, NDArray[np.float32]]:
        """[head, source] by rank of the example."""
        low, high = np.searchsorted(self._feature, [feature, feature + 1]).tolist()
        rows: dict[int, list[NDArray[np.float32]]] = {}
        for i in range(low, high):
            rows.setdefault(self._rank[i], []).append(
                self._values[self._starts[i] : self._starts[i + 1]]
            )
        return {rank: np.stack(found) for rank, found in rows.items()}


class ActivationsByFeature:
    """Frame feature_activations, with the activations of a feature by sequence and position."""

    def __init__(self, frame: pl.DataFrame | None) -> None:
        columns = ("sequence", "position", "activation")
        self._rows = ByFeature(frame, columns, "sequence", "position")

    def sequences(self, feature: int) -> dict[int, dict[int, float]]:
        """Activation by position, by sequence; what is missing is silent or unknown."""
        found: dict[int, dict[int, float]] = {}
        columns = [column.to_list() for column in self._rows.columns(feature)]
        for sequence, position, activation in zip(*columns, strict=True):
            found.setdefault(sequence, {})[position] = activation
        return found


class SequenceTokens:
    """Token ids by sequence number."""

    def __init__(self, frame: pl.DataFrame) -> None:
        """Read a frame with the columns sequence and token_ids (tokenized_corpus)."""
        self._ids, self._starts = _flat(frame["token_ids"])
        self._rows = {sequence: row for row, sequence in enumerate(frame["sequence"].to_list())}

    @property
    def largest(self) -> int:
        """Largest token id; -1 without tokens."""
        return int(self._ids.max()) if len(self._ids) else -1

    def __getitem__(self, sequence: int) -> NDArray[np.integer]:
        row = self._rows[sequence]
        ids: NDArray[np.integer] = self._ids[self._starts[row] : self._starts[row + 1]]
        return ids

    def require(self, sequences: pl.Series) -> None:
        """Raise ValueError when one of `sequences` is not there."""
        missing = [s for s in sequences.to_list() if s not in self._rows]
        if missing:
            raise ValueError(
                f"{len(missing)} sequences of examples have no token ids (first: {missing[:5]}); "
                "pass the rows of tokenized_corpus that the examples come from"
            )


# ---- private -------------------------------------------------------------------------------------


def _flat(column: pl.Series) -> tuple[NDArray[Any], list[int]]:
    """Values of a list column one after the other, and where each row starts and the last ends."""
    lengths = column.list.len().to_numpy().astype(np.int64)
    values = column.explode(empty_as_null=False).to_numpy()
    return values, [0, *np.cumsum(lengths).tolist()]
