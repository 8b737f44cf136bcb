"""Polars frames from tensors.

Belongs here: conversions that every table of this package shares. No computation.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray


def list_column(name: str, values: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
    """List column whose row i holds the next `lengths[i]` entries of `values`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if offsets[-1] != len(values):
        raise ValueError(f"lengths sum to {offsets[-1]}, {name} has {len(values)} values")
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), values.to_arrow())
    column = pl.from_arrow(lists)
    assert isinstance(column, pl.Series)
    return column.alias(name).cast(pl.List(values.dtype))


def token_texts(token_strings: list[str], token_ids: NDArray[np.integer[Any]]) -> pl.Series:
    """Text of each token id.

    Raises:
        ValueError: an id has no text.
    """
    if token_ids.size and (token_ids.min() < 0 or token_ids.max() >= len(token_strings)):
        raise ValueError(
            f"token ids lie in {token_ids.min()}..{token_ids.max()}, but there are texts for "
            f"{len(token_strings)} tokens; pass LanguageModel.token_strings() of the same model"
        )
    return pl.Series(token_strings, dtype=pl.String).gather(token_ids)
