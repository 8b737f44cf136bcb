"""Sparse activations of some features, by feature and cell.

Belongs here: access to the rows of feature_activations. Everything here holds whole features: a
layer too large for memory is given in blocks of features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import Cells, CorpusTokens

BLOCK_ROWS = 8_000_000


@dataclass(frozen=True)
class SparseActivations:
    """Activations above 0 of whole features.

    Attributes:
        features: [n] int64, the features that fired, ascending.
        starts: [n + 1] int64; rows of feature i are starts[i] : starts[i + 1].
        cell: [row] int64, ascending within a feature.
        activation: [row] float32.
    """

    features: NDArray[np.int64]
    starts: NDArray[np.int64]
    cell: Cells
    activation: NDArray[np.float32]

    @classmethod
    def of_frame(cls, activations: pl.DataFrame, tokens: CorpusTokens) -> "SparseActivations":
        """From rows feature, sequence, position, activation of whole features.

        Raises:
            ValueError: an activation lies at a token that was not read.
        """
        feature = activations["feature"].to_numpy().astype(np.int64)
        cell = tokens.cells(activations["sequence"].to_numpy(), activations["position"].to_numpy())
        activation = activations["activation"].to_numpy()
        key = feature * len(tokens.token_ids) + cell
        if not (key[1:] > key[:-1]).all():
            order = np.argsort(key)
            feature, cell, activation = feature[order], cell[order], activation[order]
        starts = np.flatnonzero(np.diff(feature, prepend=-1))
        return cls(
            features=feature[starts],
            starts=np.append(starts, len(feature)),
            cell=cell,
            activation=activation,
        )

    @property
    def n_active(self) -> NDArray[np.int64]:
        """[n] tokens at which each feature is active."""
        return np.diff(self.starts)

    @property
    def group(self) -> NDArray[np.int64]:
        """[row] index into `features` of each row."""
        return np.repeat(np.arange(len(self.features)), self.n_active)

    def cells_of(self, index: int) -> Cells:
        """Cells at which the index-th feature is active, ascending."""
        return self.cell[self.starts[index] : self.starts[index + 1]]

    def fires(self, index: int, cells: Cells) -> NDArray[np.bool_]:
        """Whether the index-th feature is active at each of some cells (any order, any shape)."""
        active = self.cells_of(index)
        place = np.searchsorted(active, cells).clip(max=len(active) - 1)
        fires: NDArray[np.bool_] = active[place] == cells
        return fires


def feature_blocks(
    n_active: pl.DataFrame,
    read: Callable[[int, int], pl.DataFrame],
    *,
    rows: int = BLOCK_ROWS,
) -> Iterator[pl.DataFrame]:
    """Frames of activations of whole features, ascending, of about `rows` rows each.

    Args:
        n_active: columns feature, n_active (feature_statistics).
        read: gives the activations of features first .. last, both included.
        rows: most rows of a frame; a feature with more comes alone.
    """
    counted = n_active.filter(pl.col("n_active") > 0).sort("feature")
    first: int | None = None
    last, held = -1, 0
    for feature, count in counted.select("feature", "n_active").iter_rows():
        if first is not None and held + count > rows:
            yield read(first, last)
            first, held = None, 0
        first = feature if first is None else first
        last, held = feature, held + count
    if first is not None:
        yield read(first, last)
