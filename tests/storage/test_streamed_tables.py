"""Tables larger than memory: sorted on disk, written piece by piece, published like any other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from mechinterp_assets.storage.conform import FrameError
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance

ROOT = Path(__file__).resolve().parents[2]


def counts(rows: int, start: int = 0) -> pl.DataFrame:
    return pl.select(
        role=pl.format("role {}", pl.int_range(start, start + rows)),
        n=pl.int_range(start, start + rows, dtype=pl.Int64),
    )


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_streamed_table_is_the_table_written_at_once(
    lake: Lake, provenance: Provenance, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("mechinterp_assets.storage.table_writer._ROW_GROUP_ROWS", 10)
    frame = counts(95)
    whole = lake.write("role_counts", "p", frame, provenance)
    pieces = (part.to_dict(as_series=True) for part in frame.iter_slices(piece))
    streamed = lake.write_many(
        {"role_counts": map(pl.DataFrame, pieces)}, "q", provenance, {"x": "1"}
    )["role_counts"]
    assert (streamed.data_version, streamed.rows) == (whole.data_version, 95)
    read = [lake.read("role_counts", name).collect() for name in "pq"]
    assert read[0].equals(read[1])
    assert read[1].select("role", "n").equals(frame)
    metadata = pq.read_metadata(streamed.path)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [10] * 9 + [5]


def test_a_stream_that_fails_publishes_nothing(
    lake: Lake, provenance: Provenance, scores: object
) -> None:
    lake.write("role_counts", "p", counts(3), provenance)

    def broken() -> Iterator[pl.DataFrame]:
        yield counts(5)
        raise RuntimeError("the source ran dry")

    with pytest.raises(RuntimeError, match="ran dry"):
        lake.write_many({"role_counts": broken()}, "p", provenance)
    misfit = iter([counts(5), counts(5).rename({"n": "m"})])
    with pytest.raises(FrameError, match=r"lacks \['n'\]"):
        lake.write_many({"role_counts": misfit}, "p", provenance)
    assert lake.read("role_counts", "p").collect().height == 3
    assert lake.current("role_counts", "p").version == 1
    assert list((lake.root / ".work").iterdir()) == []


def test_a_stream_without_frames_is_an_empty_version(lake: Lake, provenance: Provenance) -> None:
    empty = lake.write_many({"role_counts": iter([])}, "p", provenance)["role_counts"]
    assert empty.rows == 0
    assert empty.data_version == lake.write("role_counts", "p", counts(0), provenance).data_version
    assert lake.read("role_counts", "p").collect().is_empty()


def test_scratch_is_removed(lake: Lake) -> None:
    with lake.scratch() as folder:
        (folder / "run").write_text("x")
        assert lake.root in folder.parents
    assert not folder.exists()


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Sorting and writing four times the rows takes no more memory of one's own."""
    peaks = {}
    for runs in (2, 8):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("memory_probe.py"))],
            env={**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"},
            input=f"{tmp_path / str(runs)} {runs}",
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[runs], rows = map(int, done.stdout.split())
        assert rows == runs * 500_000
    added = 6 * 500_000 * 20  # bytes of the rows added
    assert peaks[8] - peaks[2] < added / 4
