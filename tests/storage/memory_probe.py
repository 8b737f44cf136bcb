"""Sorts and publishes feature_activations in a process of its own; prints its peak memory.

Reads "folder runs" from standard input; prints the peak of anonymous resident bytes above those
before the work, and the rows published. Pages of mapped files do not count: the kernel drops them
when it needs room.
"""

import threading
from pathlib import Path

import numpy as np
import polars as pl

from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.sort import SortedRuns

ROWS = 500_000
SCHEMA = pl.Schema(
    {"feature": pl.Int32, "sequence": pl.Int64, "position": pl.Int32, "activation": pl.Float32}
)


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def run_of_activations(number: int) -> pl.DataFrame:
    """One sorted run over all features."""
    rng = np.random.default_rng(number)
    return pl.DataFrame(
        {
            "feature": np.sort(rng.integers(0, 5000, ROWS)),
            "sequence": np.full(ROWS, number),
            "position": np.arange(ROWS),
            "activation": rng.random(ROWS),
        }
    ).cast(SCHEMA)


class Peak(threading.Thread):
    """Watches memory every few milliseconds until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.bytes = anonymous_bytes()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        while not self.stopped.wait(0.005):
            self.bytes = max(self.bytes, anonymous_bytes())


def main() -> None:
    """Sort and publish."""
    folder, runs = input().rsplit(" ", 1)
    lake = Lake(folder)
    run_of_activations(0)
    peak = Peak()
    peak.start()
    with lake.scratch() as scratch:
        spilled = SortedRuns(scratch, "feature", SCHEMA)
        for number in range(int(runs)):
            spilled.add(run_of_activations(number))
        on_site = pl.lit(0, pl.Int32).alias("layer")
        published = lake.write_many(
            {"feature_activations": (f.with_columns(on_site) for f in spilled.frames(ROWS))},
            "study.L00",
            Provenance("study", "run", "1"),
        )
    peak.stopped.set()
    print(peak.bytes - peak.start_bytes, published["feature_activations"].rows)


if __name__ == "__main__":
    main()
