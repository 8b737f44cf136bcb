"""Sorting more rows than memory holds: sorted runs on disk, merged block by block.

Belongs here: the spilling and the merge by one integer column. What the rows mean, and where they
are published, is the caller's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray


class SortedRuns:
    """Frames that arrive one by one and leave as one sequence of frames sorted by `key`.

    Rows with equal keys keep the order in which they arrived, within a frame and between frames.
    Each frame becomes an uncompressed Arrow file, which is memory-mapped when it is read, so that
    memory holds one arriving frame or one block of the merge, however many rows there are.
    """

    def __init__(self, folder: Path, key: str, schema: pl.Schema) -> None:
        """Start without rows.

        Args:
            folder: existing folder for the runs; whoever made it removes it.
            key: integer column to sort by.
            schema: columns and types of every frame.

        Raises:
            ValueError: there is no such column, or it holds no integers.
        """
        if key not in schema or not schema[key].is_integer():
            raise ValueError(f"key {key!r} is not an integer column of {dict(schema)}")
        self.key = key
        self.schema = schema
        self.rows = 0
        self._folder = folder
        self._runs: list[Path] = []
        # Distinct keys of each run and the row at which each ends.
        self._keys: list[NDArray[np.int64]] = []
        self._ends: list[NDArray[np.int64]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Spill one frame, sorted by the key.

        Raises:
            ValueError: the frame has other columns, nulls in its key, or is not sorted by it.
        """
        if frame.schema != self.schema:
            raise ValueError(f"frame has {dict(frame.schema)}, the runs have {dict(self.schema)}")
        if frame.is_empty():
            return
        keys = frame[self.key]
        if keys.null_count():
            raise ValueError(f"{keys.null_count()} values of the key {self.key!r} are null")
        values = keys.to_numpy()
        steps = values[1:] != values[:-1]
        if (values[1:] < values[:-1]).any():
            raise ValueError(f"frame is not sorted by {self.key!r}; sort it before adding it")
        ends = np.append(np.flatnonzero(steps) + 1, len(values))
        path = self._folder / f"run-{len(self._runs):05d}.arrow"
        frame.write_ipc(path, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
        self._runs.append(path)
        self._keys.append(values[ends - 1].astype(np.int64))
        self._ends.append(ends)
        self.rows += len(values)

    def frames(self, rows: int = 1_000_000) -> Iterator[pl.DataFrame]:
        """All rows in order, in frames of whole keys; can be called again.

        A frame holds about `rows` rows, more only where a single key has more.
        """
        if rows < 1:
            raise ValueError(f"frames of {rows} rows cannot be made; give at least 1")
        runs = [_mapped(path) for path in self._runs]
        starts = [0] * len(runs)
        for last in self._block_ends(rows):
            parts: list[pl.DataFrame] = []
            for i, run in enumerate(runs):
                position = int(np.searchsorted(self._keys[i], last, side="right"))
                end = int(self._ends[i][position - 1]) if position else 0
                if end > starts[i]:
                    parts.append(pl.DataFrame(run.slice(starts[i], end - starts[i])))
                    starts[i] = end
            block = pl.concat(parts).cast(self.schema)
            yield block.sort(self.key, maintain_order=True)

    def _block_ends(self, rows: int) -> list[int]:
        """The last key of each block."""
        if not self._runs:
            return []
        keys, place = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([np.diff(e, prepend=0) for e in self._ends]))
        last: list[int] = []
        filled = 0
        for i, count in enumerate(counts):
            if filled and filled + count > rows:
                last.append(int(keys[i - 1]))
                filled = 0
            filled += int(count)
        return [*last, int(keys[-1])]


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
