"""Sparse activations of a layer as a stream of frames, feature by feature.

Belongs here: how a stream that is sorted by feature is cut into frames of whole features, so that
what is computed per feature needs memory for a few features only, and which tokens the positions of
a stream name. What is computed is the caller's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """The tokens that a feature pass read, to look them up by sequence and position.

    Attributes:
        sequences: [sequence] int64, ascending.
        token_ids: [sequence, position] int32.
        read: [sequence, position] bool: valid positions that the pass read.
    """

    sequences: NDArray[np.int64]
    token_ids: NDArray[np.int32]
    read: NDArray[np.bool_]

    @classmethod
    def of(cls, sequences: Tensor, token_ids: Tensor, valid: Tensor, n_tokens: int) -> "TokenGrid":
        """Grid of the first `n_tokens` valid tokens.

        Args:
            sequences: [sequence] numbers in the corpus, ascending.
            token_ids: [sequence, position].
            valid: [sequence, position] bool, positions that a feature pass may read.
            n_tokens: tokens that it read.

        Raises:
            ValueError: there are fewer valid tokens.
        """
        mask = valid.cpu().numpy()
        so_far = mask.ravel().cumsum().reshape(mask.shape)
        if n_tokens > so_far.max(initial=0):
            raise ValueError(
                f"{n_tokens} tokens were read, but the sequences have {so_far.max(initial=0)} "
                "valid ones; give the sequences of the same feature pass"
            )
        return cls(
            sequences.cpu().numpy().astype(np.int64),
            token_ids.cpu().numpy().astype(np.int32),
            mask & (so_far <= n_tokens),
        )

    @property
    def n_tokens(self) -> int:
        """Tokens read."""
        return int(self.read.sum())

    def cells(self, sequence: NDArray[np.int64], position: NDArray[np.int32]) -> NDArray[np.int64]:
        """[n] index into the flattened grid.

        Raises:
            ValueError: a token that was not read.
        """
        row = np.searchsorted(self.sequences, sequence)
        known = row < len(self.sequences)
        row = np.where(known, row, 0)
        length = self.token_ids.shape[1]
        known &= (self.sequences[row] == sequence) & (position >= 0) & (position < length)
        cell = np.where(known, row * length + position, 0)
        known &= self.read.ravel()[cell]
        if not known.all():
            i = int((~known).argmax())
            raise ValueError(
                f"position {position[i]} of sequence {sequence[i]} was not read; give the tokens "
                "and the activations of the same feature pass"
            )
        return cell


def whole_features(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, cut so that no feature lies in two frames.

    Args:
        frames: feature_activations (without study and layer) sorted by feature, sequence and
            position, cut anywhere.

    Raises:
        ValueError: the frames do not ascend by feature.
    """
    waiting: list[pl.DataFrame] = []
    last = -1
    for frame in frames:
        if frame.is_empty():
            continue
        feature = frame["feature"].to_numpy()
        if feature[0] < last or (feature[1:] < feature[:-1]).any():
            raise ValueError(
                f"activations do not ascend by feature (feature {feature.min()} after "
                f"{max(last, int(feature.max()))}); sort them by feature, sequence and position"
            )
        if waiting and feature[0] > last:
            yield pl.concat(waiting)
            waiting = []
        last = int(feature[-1])
        cut = int(np.searchsorted(feature, last))
        if cut:
            yield pl.concat([*waiting, frame.head(cut)])
            waiting = []
        waiting.append(frame.slice(cut))
    if waiting:
        yield pl.concat(waiting)
