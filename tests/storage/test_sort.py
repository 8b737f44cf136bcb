"""Sorted runs give one stable sort, whatever arrives and however it is cut."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp_assets.storage.sort import SortedRuns

SCHEMA = pl.Schema({"key": pl.Int32, "place": pl.Int64})


def frame(keys: list[int], start: int = 0) -> pl.DataFrame:
    places = range(start, start + len(keys))
    return pl.DataFrame({"key": keys, "place": places}, schema=SCHEMA).sort(
        "key", maintain_order=True
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 5), max_size=12), max_size=5), st.integers(1, 12))
def test_the_merge_is_a_stable_sort_in_frames_of_whole_keys(
    keys: list[list[int]], rows: int
) -> None:
    arriving = [frame(part, start=100 * i) for i, part in enumerate(keys)]
    with TemporaryDirectory() as folder:
        runs = SortedRuns(Path(folder), "key", SCHEMA)
        for part in arriving:
            runs.add(part)
        for _ in range(2):  # it can be read again
            frames = list(runs.frames(rows))
            expected = pl.concat([frame([]), *arriving]).sort("key", maintain_order=True)
            assert pl.concat([frame([]), *frames]).equals(expected)
            assert runs.rows == expected.height
            ends = [(f["key"][0], f["key"][-1]) for f in frames]
            assert all(one[1] < two[0] for one, two in pairwise(ends))
            assert all(f.height <= rows or f["key"].n_unique() == 1 for f in frames)


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key 'place' is not an integer column"):
        SortedRuns(tmp_path, "place", pl.Schema({"place": pl.Float32}))
    runs = SortedRuns(tmp_path, "key", SCHEMA)
    with pytest.raises(ValueError, match="not sorted by 'key'"):
        runs.add(frame([1, 2]).reverse())
    with pytest.raises(ValueError, match="1 values of the key 'key' are null"):
        runs.add(pl.DataFrame({"key": [1, None], "place": [0, 1]}, schema=SCHEMA))
    with pytest.raises(ValueError, match="the runs have"):
        runs.add(frame([1]).drop("place"))
    with pytest.raises(ValueError, match="frames of 0 rows"):
        list(runs.frames(0))
