"""Activation intervals of features, counted from sparse activations.

Belongs here: edges, membership, exact counts and the sample of examples per interval.
Published dashboards put activations of 0 into the lowest interval; here 0 belongs to none.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.frames import list_column
from mechinterp_assets.attribution.ranking import GroupedTopK

_BLOCK_ROWS = 2_000_000


def feature_intervals(
    activations: Iterable[pl.DataFrame],
    max_activation: Tensor,
    *,
    n_intervals: int = 10,
    n_examples: int = 3,
    seed: int = 0,
) -> pl.DataFrame:
    """Frame `feature_intervals` of one layer (without study and layer).

    Edges are linspace(0, max, n_intervals + 1) in float64, membership is (low, high]. The examples
    of an interval are the tokens with the smallest hash of (seed, sequence, position): a uniform
    sample that depends neither on the order nor on the cutting of the frames.

    Args:
        activations: frames with feature, sequence, position, activation (> 0), as `feature_pass`
            hands them over.
        max_activation: [d_sae] maxima of exactly these activations, 0 where a feature never fired.
        n_intervals: intervals per feature.
        n_examples: examples per interval, 0 for none.
        seed: of the hash.

    Raises:
        ValueError: an activation lies outside (0, max of its feature].
    """
    if n_intervals < 1 or n_examples < 0:
        raise ValueError(
            f"n_intervals {n_intervals} and n_examples {n_examples} must be >= 1 and >= 0"
        )
    maxima = max_activation.double().cpu().numpy()
    edges = np.linspace(0.0, maxima, n_intervals + 1, axis=-1)
    n_groups = len(maxima) * n_intervals
    counts = np.zeros(n_groups, dtype=np.int64)
    examples = GroupedTopK(
        n_groups,
        max(1, n_examples),
        key_dtype=torch.int64,
        payload=[(torch.int64, ()), (torch.int32, ())],
        device=torch.device("cpu"),
    )
    for frame in activations:
        for block in frame.iter_slices(_BLOCK_ROWS):
            feature = block["feature"].to_numpy().astype(np.int64)
            group = feature * n_intervals + _interval(block, feature, edges)
            counts += np.bincount(group, minlength=n_groups)
            if n_examples:
                _sample(examples, block, group, seed)
    return _frame(counts.reshape(len(maxima), n_intervals), edges, examples, n_examples)


# ---- private -------------------------------------------------------------------------------------


def _interval(
    block: pl.DataFrame, feature: NDArray[np.int64], edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[n] interval of each activation: how many inner edges lie strictly below it."""
    activation = block["activation"].to_numpy().astype(np.float64)
    outside = ~((activation > 0) & (activation <= edges[feature, -1]))
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(
            f"activation {activation[i]} of feature {feature[i]} is not in (0, "
            f"{edges[feature[i], -1]}]; pass the maxima of the same feature pass"
        )
    interval = np.zeros(len(feature), dtype=np.int64)
    for inner in range(1, edges.shape[1] - 1):
        interval += activation > edges[feature, inner]
    return interval


def _sample(
    examples: GroupedTopK, block: pl.DataFrame, group: NDArray[np.int64], seed: int
) -> None:
    sequence = block["sequence"].to_numpy()
    position = block["position"].to_numpy()
    # 63 bits of hash, negated: the largest keys are the smallest hashes.
    smallest = -(_hash(sequence, position, seed) >> np.uint64(1)).astype(np.int64)
    sequences, positions = torch.tensor(sequence), torch.tensor(position)
    examples.update(
        torch.from_numpy(group),
        torch.from_numpy(smallest),
        lambda chosen: [sequences[chosen], positions[chosen]],
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


def _frame(
    counts: NDArray[np.int64],
    edges: NDArray[np.float64],
    examples: GroupedTopK,
    n_examples: int,
) -> pl.DataFrame:
    n_intervals = counts.shape[1]
    fired = counts.sum(axis=1) > 0
    rows = np.repeat(fired, n_intervals)
    filled = examples.filled & (torch.arange(examples.k) < n_examples)
    lengths = filled.sum(dim=1).numpy()[rows]
    sequence, position = (p.numpy() for p in examples.entries(filled))
    n_features = int(fired.sum())
    return pl.DataFrame(
        {
            "feature": np.repeat(np.flatnonzero(fired).astype(np.int32), n_intervals),
            "interval": np.tile(np.arange(n_intervals, dtype=np.int32), n_features),
            "low": edges[fired, :-1].reshape(-1),
            "high": edges[fired, 1:].reshape(-1),
            "n_active": counts[fired].reshape(-1),
            "share": (counts[fired] / counts[fired].sum(axis=1, keepdims=True)).reshape(-1),
            "example_sequences": list_column("example_sequences", pl.Series(sequence), lengths),
            "example_positions": list_column("example_positions", pl.Series(position), lengths),
        }
    )
