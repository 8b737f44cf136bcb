"""What history costs the lake: a write, a rebuilt catalog, a connection and a look-up.

    python benchmarks/lake_history.py [--versions 200 2000 20000] [--rounds 5] [--one-table 5000]

A lake of all declared tables with the partitions of several studies, ten versions of each, and in
every version inputs as assets record them: thirty data versions and settings in JSON. Files of
history are links to one file a table, recorded in the ledger as a write records them. Then the last
row: the same lake with so many versions more of one partition of one table. Each figure is the
least of the rounds in CPU milliseconds of all threads, and in brackets by the clock,
which the disk and other programs are part of.

- write: one table of one partition, until the catalog shows it.
- rebuild: the whole catalog from nothing, as `mechinterp refresh` does.
- connect: a connection to an up-to-date catalog and one query of one table.
- current: looking up the current version of a partition.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from mechinterp_assets.storage.declarations import polars_schema
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.provenance import Provenance

LAYERS = 5
VERSIONS_OF_A_PARTITION = 10
TABLE, PARTITION = "head_scores", "measured"
PROVENANCE = Provenance("s0", "0123456789ab", "code-1", "m" * 64, "c" * 64)


def inputs(seed: str) -> dict[str, str]:
    """Twenty data versions and ten settings."""
    digests = [hashlib.sha256(f"{seed}{n}".encode()).hexdigest() for n in range(20)]
    values = json.dumps({f"setting_{n}": digests[n % 20][:12] for n in range(12)})
    return {
        **{f"feature_table_{n}/{seed}": digest for n, digest in enumerate(digests)},
        **{f"settings:section_{n}": values for n in range(10)},
    }


def first_versions(lake: Lake) -> dict[str, Version]:
    """A first version of every table, by table."""
    empty = {
        name: pl.DataFrame(schema=polars_schema(spec))
        for name, spec in lake.declared.tables.items()
    }
    lake.write_many(empty, PARTITION, PROVENANCE, inputs(PARTITION))
    return {name: lake.current(name, PARTITION) for name in empty}


def history(lake: Lake, first: dict[str, Version]) -> Iterator[Version]:
    """Versions in the order in which studies that are materialized again and again write them."""
    written: dict[tuple[str, str], int] = {}
    study = 0
    while True:
        for _ in range(VERSIONS_OF_A_PARTITION):
            for name, version in first.items():
                per_site = lake.declared.tables[name].per == "site"
                sites = [f"s{study}.L{n:02d}" for n in range(LAYERS)] if per_site else [f"s{study}"]
                for key in sites:
                    number = written.get((name, key), 0) + 1
                    written[name, key] = number
                    yield following(version, key, number)
        study += 1


def following(version: Version, partition: str, number: int) -> Version:
    """A further version with the same rows."""
    file = f"{version.table}/{partition}/v{number:08d}-01234567.parquet"
    return replace(
        version,
        partition=partition,
        version=number,
        file=file,
        inputs=inputs(f"{partition}{number}"),
        written_at=time.time(),
    )


def record(lake: Lake, source: dict[str, Version], versions: list[Version]) -> None:
    """Put versions into the lake, a hundred a commit, without a catalog after each."""
    for start in range(0, len(versions), 100):
        with lake._ledger.commit() as commit:
            for version in versions[start : start + 100]:
                path = lake.root / version.file
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(lake.root / source[version.table].file, path)
                commit.add(version)


def timed(work: Callable[[], object], rounds: int) -> str:
    """Least CPU milliseconds, and least milliseconds of the clock."""
    cpu, clock = [], []
    for _ in range(rounds):
        start = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - start[0])
        clock.append(time.perf_counter() - start[1])
    return f"{1000 * min(cpu):.1f} ({1000 * min(clock):.0f})"


def measure(lake: Lake, rounds: int) -> dict[str, str]:
    """Cost of each kind of work."""
    rows = pl.DataFrame(schema=polars_schema(lake.declared.tables[TABLE]))
    return {
        "rebuild": timed(lake.refresh, 3),
        "write": timed(lambda: lake.write(TABLE, PARTITION, rows, PROVENANCE, inputs("w")), rounds),
        "connect": timed(lambda: lake.sql(f"SELECT count(*) FROM {TABLE}"), rounds),
        "current": timed(lambda: lake.current(TABLE, PARTITION), 10 * rounds),
        "catalog, MB": f"{lake.database.stat().st_size / 2**20:.1f}",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--one-table", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the lake is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        lake = Lake(Path(folder) / "lake")
        first = first_versions(lake)
        coming, present = history(lake, first), len(first)

        names = ("rebuild", "write", "connect", "current", "catalog, MB")
        print(" " * 24, *(f"{name:>16}" for name in names))

        def row(name: str) -> None:
            figures = measure(lake, arguments.rounds)
            print(name.rjust(24), *(f"{figures[key]:>16}" for key in names), flush=True)

        for wanted in sorted(arguments.versions):
            record(lake, first, [next(coming) for _ in range(wanted - present)])
            present = wanted
            row(f"{wanted} versions")
        number = lake.current(TABLE, PARTITION).version
        more = range(number + 1, number + 1 + arguments.one_table)
        record(lake, first, [following(first[TABLE], PARTITION, n) for n in more])
        row(f"and {arguments.one_table} of one table")


if __name__ == "__main__":
    main()
