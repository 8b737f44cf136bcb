"""Activation intervals of features and their examples, from sparse activations.

Belongs here: edges, membership, exact counts, and the strongest and random examples per interval.
Published dashboards put activations of 0 into the lowest interval; here 0 belongs to none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.activation_stream import TokenGrid, whole_features
from mechinterp_assets.attribution.frames import token_texts

# Groups (feature, interval) sorted at a time: few enough to be packed into one sort key.
_GROUPS_AT_ONCE = 2**13
_KEY_BITS = 31


@dataclass(frozen=True)
class IntervalTables:
    """Intervals of one layer's features and their examples.

    Attributes:
        intervals: feature_intervals without study and layer.
        examples: feature_interval_examples without study, layer, token_id and token.
    """

    intervals: pl.DataFrame
    examples: pl.DataFrame


def interval_tables(
    activations: Iterable[pl.DataFrame],
    max_activation: Tensor,
    *,
    n_intervals: int = 10,
    n_top: int = 3,
    n_random: int = 3,
    seed: int = 0,
) -> IntervalTables:
    """Intervals of all features of a layer, with examples.

    Edges are linspace(0, max, n_intervals + 1) in float64, membership is (low, high]. The top
    examples of an interval are its strongest tokens, of equals the earliest. The random ones are
    those with the smallest hash of (seed, sequence, position): a uniform sample that does not
    depend on how the frames are cut.

    Args:
        activations: frames with feature, sequence, position, activation (> 0), sorted by feature,
            sequence and position, cut anywhere.
        max_activation: [d_sae] maxima of exactly these activations, 0 where a feature never fired.
        n_intervals: intervals per feature.
        n_top: strongest examples per interval.
        n_random: random examples per interval.
        seed: of the hash.

    Raises:
        ValueError: a setting is out of range, the frames are not sorted, or an activation lies
            outside (0, max of its feature].
    """
    if n_intervals < 1 or n_top < 0 or n_random < 0:
        raise ValueError(
            f"n_intervals {n_intervals}, n_top {n_top} and n_random {n_random} must be >= 1, >= 0 "
            "and >= 0"
        )
    maxima = max_activation.double().cpu().numpy()
    edges = np.linspace(0.0, maxima, n_intervals + 1, axis=-1)
    counts = np.zeros((len(maxima), n_intervals), dtype=np.int64)
    examples = [pl.DataFrame(schema=_EXAMPLES)]
    for block in _blocks(activations, max(1, _GROUPS_AT_ONCE // n_intervals)):
        feature = block["feature"].to_numpy().astype(np.int64)
        activation = block["activation"].to_numpy()
        interval = _interval(activation.astype(np.float64), feature, edges)
        first, end = int(feature[0]), int(feature[-1]) + 1
        group = (feature - first) * n_intervals + interval
        n_groups = (end - first) * n_intervals
        counts[first:end] += np.bincount(group, minlength=n_groups).reshape(-1, n_intervals)
        # Positive floats sort like their bits.
        weakness = np.uint32(2**_KEY_BITS - 1) - activation.view(np.uint32)
        if n_top:
            examples.append(_examples("top", block, interval, group, weakness, n_top))
        if n_random:
            hashes = _hash(block["sequence"].to_numpy(), block["position"].to_numpy(), seed)
            chance = (hashes >> np.uint64(64 - _KEY_BITS)).astype(np.uint32)
            examples.append(_examples("random", block, interval, group, chance, n_random))
    chosen = pl.concat(examples).sort("feature", "interval", "sample", "rank")
    return IntervalTables(_frame(counts, edges), chosen)


def with_tokens(
    examples: pl.DataFrame, tokens: TokenGrid, token_strings: list[str]
) -> pl.DataFrame:
    """Examples with the id and the text of the token at their sequence and position.

    Raises:
        ValueError: a token that was not read, or one without a text.
    """
    cells = tokens.cells(examples["sequence"].to_numpy(), examples["position"].to_numpy())
    token_ids = tokens.token_ids.ravel()[cells]
    return examples.with_columns(
        pl.Series("token_id", token_ids), token_texts(token_strings, token_ids).alias("token")
    )


# ---- private -------------------------------------------------------------------------------------

_EXAMPLES = pl.Schema(
    {
        "feature": pl.Int32,
        "interval": pl.Int32,
        "sample": pl.String,
        "rank": pl.Int32,
        "sequence": pl.Int64,
        "position": pl.Int32,
        "activation": pl.Float32,
    }
)


def _blocks(activations: Iterable[pl.DataFrame], n_features: int) -> Iterator[pl.DataFrame]:
    """Frames of whole features whose numbers lie within `n_features` of each other."""
    for frame in whole_features(activations):
        feature = frame["feature"].to_numpy()
        start = 0
        while start < len(feature):
            end = int(np.searchsorted(feature, feature[start] + n_features))
            yield frame.slice(start, end - start)
            start = end


def _interval(
    activation: NDArray[np.float64], feature: NDArray[np.int64], edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[n] interval of each activation: how many inner edges lie strictly below it."""
    n_intervals = edges.shape[1] - 1
    largest = edges[feature, -1]
    outside = ~((activation > 0) & (activation <= largest))
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(
            f"activation {activation[i]} of feature {feature[i]} is not in (0, {largest[i]}]; "
            "pass the maxima of the same feature pass"
        )
    # Rounding moves this by one interval at most; the edges themselves decide.
    guess = np.ceil(activation * (n_intervals / largest)).astype(np.int64) - 1
    guess = guess.clip(0, n_intervals - 1)
    flat = edges.ravel()
    low = feature * (n_intervals + 1) + guess
    interval: NDArray[np.int64] = guess + (activation > flat[low + 1]) - (activation <= flat[low])
    return interval


def _examples(
    kind: str,
    block: pl.DataFrame,
    interval: NDArray[np.int64],
    group: NDArray[np.int64],
    key: NDArray[np.uint32],
    k: int,
) -> pl.DataFrame:
    """The k rows of each group with the smallest keys below 2^31, of equal keys the first rows."""
    index_bits, group_bits = len(key).bit_length(), int(group.max()).bit_length()
    if index_bits + group_bits + _KEY_BITS <= 64:
        # One sort of plain numbers is several times faster than one of indices by two keys.
        packed = group.astype(np.uint64) << np.uint64(_KEY_BITS + index_bits)
        packed |= key.astype(np.uint64) << np.uint64(index_bits)
        packed |= np.arange(len(key), dtype=np.uint64)
        packed.sort()
        order = (packed & np.uint64(2**index_bits - 1)).astype(np.int64)
    else:
        order = np.lexsort((key, group))
    by_group = group[order]
    starts = np.flatnonzero(np.diff(by_group, prepend=-1))
    lengths = np.diff(starts, append=len(order))
    rank = np.arange(len(order)) - np.repeat(starts, lengths)
    order, rank = order[rank < k], rank[rank < k]
    return block[order].select(
        "feature",
        pl.Series("interval", interval[order], dtype=pl.Int32),
        pl.lit(kind).alias("sample"),
        pl.Series("rank", rank, dtype=pl.Int32),
        "sequence",
        "position",
        "activation",
    )


def _hash(
    sequence: NDArray[np.int64], position: NDArray[np.int32], seed: int
) -> NDArray[np.uint64]:
    """Hash of (seed, sequence, position): three rounds of the splitmix64 finaliser."""
    state = np.full(len(sequence), seed % 2**64, dtype=np.uint64)
    for value in (np.zeros_like(sequence), sequence, position):
        state ^= value.astype(np.uint64)
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _frame(counts: NDArray[np.int64], edges: NDArray[np.float64]) -> pl.DataFrame:
    n_intervals = counts.shape[1]
    fired = counts.sum(axis=1) > 0
    n_features = int(fired.sum())
    return pl.DataFrame(
        {
            "feature": np.repeat(np.flatnonzero(fired).astype(np.int32), n_intervals),
            "interval": np.tile(np.arange(n_intervals, dtype=np.int32), n_features),
            "low": edges[fired, :-1].reshape(-1),
            "high": edges[fired, 1:].reshape(-1),
            "n_active": counts[fired].reshape(-1),
            "active_share": (counts[fired] / counts[fired].sum(axis=1, keepdims=True)).reshape(-1),
        }
    )
