"""Kill writers and readers again and again: is there ever a torn, mixed or wrong read, or a loss?

    python -m tests.storage.stress --seconds 75 [--what lake|tensors]
    python -m tests.storage.stress --writers 8 --readers 8 --kills 300

Writers publish rows (or tensors) that all carry one token per write, on partitions of their own, on
one that all of them write, and on a pair of tables that must change together. A supervisor kills
them and, where there are many, readers too with SIGKILL at random times and starts new ones, while
every write removes what was superseded long enough ago. Readers count what they saw whole and what
not. `test_kill.py` runs the same for a few seconds and asserts the counts.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import polars as pl

from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Commit, Ledger, Version
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.quarantine import quarantined

ROOT = Path(__file__).resolve().parents[2]
KEEP_SECONDS = 12.0
HOLD_SECONDS = 5.0
LAST_SECONDS = 0.8
READER_SECONDS = 12.0
TABLES = ("first", "second", "third")
WRITERS = 4
SHUT_OUT = "shut out"
COLUMNS = ("part", "token", "x", "total")


@dataclass
class Report:
    """What one stress run saw.

    Attributes:
        kills: writers killed.
        kills_of_readers: readers killed.
        kills_in_write: those that had begun a write and not ended it.
        writes: writes that ended.
        reads: reads that were whole, by kind of reader.
        bad: what was wrong with the others.
        lost: writes that ended, yet are not on record.
        refused: writes to the catalog by others, all of which must fail.
        shut_out: times that DuckDB did not open the file, as another had it open for writing.
        swept: folders of killed processes that a last sweep removed.
        set_aside: complete files of killed writers that were never on record.
        left_over: unfinished files after one more sweep.
    """

    kills: int = 0
    kills_of_readers: int = 0
    kills_in_write: int = 0
    writes: int = 0
    reads: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    shut_out: int = 0
    swept: int = 0
    set_aside: int = 0
    left_over: int = 0


def declare(folder: Path) -> Path:
    """A `sql/` folder with three tables of equal columns."""
    (folder / "tables").mkdir(parents=True)
    for name in ("provenance.sql", "catalog.sql"):
        (folder / name).write_text((ROOT / "sql" / name).read_text())
    for table in TABLES:
        comments = "".join(f"COMMENT ON COLUMN {table}.{c} IS 'test';" for c in COLUMNS)
        (folder / "tables" / f"{table}.sql").write_text(
            f"-- formula: 1\nCREATE TABLE {table}"
            " (study VARCHAR, part VARCHAR, token BIGINT, x BIGINT, total BIGINT);"
            f"COMMENT ON TABLE {table} IS 'One row per x'; {comments}"
        )
    return folder


def frame(partition: str, token: int, rows: int) -> pl.DataFrame:
    """Rows from which a reader can tell whether it sees all of one write and nothing else."""
    return pl.select(
        part=pl.lit(partition),
        token=pl.lit(token, dtype=pl.Int64),
        x=pl.int_range(rows, dtype=pl.Int64),
        total=pl.lit(rows, dtype=pl.Int64),
    )


def write_tables(lake: Lake, slot: int, log: "Log") -> None:
    """Write for ever."""
    rng = random.Random(os.getpid())
    run = f"{os.getpid():08d}"
    while True:
        token = rng.getrandbits(60)
        log.add("begin")
        shape = rng.random()
        if shape < 0.3:
            partition, tables = "pair", list(TABLES[:2])
        elif shape < 0.6:
            partition, tables = "shared", [rng.choice(TABLES)]
        else:
            partition, tables = f"own{slot}", [rng.choice(TABLES)]
        rows = rng.randrange(1, 40_000)
        published = lake.write_many(
            {table: frame(partition, token, rows) for table in tables},
            partition,
            Provenance("stress", run, "1"),
        )
        for table, done in published.items():
            log.add(f"end {table} {partition} {done.version} {done.data_version}")


def write_counts(root: Path, sql: Path, name: str, start: Event) -> None:
    """Write five versions of one partition of `role_counts` (see conftest.py) once `start` is set.

    Here and not in the test, so that a spawned process imports little.
    """
    lake = Lake(root, sql=sql)
    start.wait()
    for n in range(5):
        counts = pl.DataFrame({"role": [f"{name}{n}"], "n": [n]})
        lake.write("role_counts", "p", counts, Provenance("organism", name, "1"))


_CHECK = " UNION ALL ".join(
    f"SELECT '{table}' AS name, part, count(*) AS n, min(total) AS low, max(total) AS high,"
    f" sum(x) AS sum_x, min(token) AS token, max(token) AS other_token FROM {table} GROUP BY part"
    for table in TABLES
)


def faults(rows: list[tuple[Any, ...]]) -> list[str]:
    """What is wrong with the result of the check query."""
    found = [
        f"mixed {row}"
        for row in rows
        if not (row[2] == row[3] == row[4] and row[5] == row[2] * (row[2] - 1) // 2)
        or row[6] != row[7]
    ]
    pair = {row[6] for row in rows if row[1] == "pair"}
    if len(pair) > 1:
        found.append(f"pair of tables from different writes {pair}")
    return found


def shut_out(error: duckdb.IOException) -> list[str]:
    """Opening the file failed because another has it open for writing: DuckDB's own rule."""
    if "Conflicting lock" in str(error):
        return [SHUT_OUT]
    raise error


def read_fresh(lake: Lake) -> list[str]:
    """A new connection of the lake's own."""
    with lake.connect() as con:
        return faults(con.execute(_CHECK).fetchall())


def read_file(lake: Lake) -> list[str]:
    """A new connection to the database file, as the DuckDB command line makes it."""
    try:
        with duckdb.connect(str(lake.database), read_only=True) as con:
            return faults(con.execute(_CHECK).fetchall())
    except duckdb.IOException as error:
        return shut_out(error)


def read_long(lake: Lake) -> list[str]:
    """One connection kept open: it sees the same rows for as long as it lasts."""
    try:
        with duckdb.connect(str(lake.database), read_only=True) as con:
            first = sorted(con.execute(_CHECK).fetchall())
            end = time.monotonic() + HOLD_SECONDS
            while time.monotonic() < end:
                again = sorted(con.execute(_CHECK).fetchall())
                if again != first:
                    return [f"changed under an open connection: {first} {again}"]
                time.sleep(0.1)
            return faults(first)
    except duckdb.IOException as error:
        return shut_out(error)


def read_polars(lake: Lake) -> list[str]:
    """Lazy frames, without DuckDB."""
    rows = [
        (table, *row)
        for table in TABLES
        for row in lake.read(table)
        .group_by("part")
        .agg(
            pl.len(),
            pl.col("total").min().alias("low"),
            pl.col("total").max().alias("high"),
            pl.col("x").sum(),
            pl.col("token").min(),
            pl.col("token").max().alias("other_token"),
        )
        .collect()
        .rows()
    ]
    # Three reads, so the pair of tables may come from different moments.
    return [fault for fault in faults(rows) if "pair" not in fault]


def meddle(lake: Lake) -> list[str]:
    """Open the catalog for writing and try to write."""
    time.sleep(0.5)
    try:
        with duckdb.connect(str(lake.database)) as con:
            con.execute(_CHECK).fetchall()
            try:
                con.execute("CREATE TABLE mine AS SELECT 1 AS a")
            except duckdb.Error:
                return []
            return ["the catalog could be written to"]
    except duckdb.IOException as error:
        return shut_out(error)


# Reading processes of a run and what each does in turn.
READERS: dict[str, dict[str, Callable[[Lake], list[str]]]] = {
    "reader": {"fresh": read_fresh, "file": read_file, "polars": read_polars},
    "holder": {"long": read_long},
    "meddler": {"meddler": meddle},
}


def write_tensors(root: Path, slot: int, log: "Log") -> None:
    """Publish artefacts of three files, each filled with the same token, for ever."""
    import torch

    from mechinterp_assets.storage.tensors import Tensors

    torch.set_num_threads(1)
    store = Tensors(root, KEEP_SECONDS)
    rng = random.Random(os.getpid())
    while True:
        token = rng.randrange(1 << 20)
        partition = rng.choice(["shared", f"own{slot}"])
        log.add("begin")
        provenance = Provenance("stress", f"{os.getpid():08d}", "1")
        with store.writer("weights", partition, provenance, {"token": token}) as writer:
            for index in range(3):
                value = torch.full((rng.randrange(1, 400), 512), float(token))
                writer.add(f"part-{index}.safetensors", {"value": value})
        done = writer.published
        log.add(f"end weights {partition} {done.version} {done.data_version}")


def read_tensors(root: Path) -> list[str]:
    """Open the current versions, check every hash and every value."""
    from mechinterp_assets.storage.tensors import Tensors

    found = []
    for folder in (root / "weights").iterdir():
        artefact = Tensors(root, KEEP_SECONDS).open("weights", folder.name)
        tokens = {float(artefact.info["token"])}
        for name in artefact.files:
            value = artefact.tensor(name, "value")
            tokens |= {float(value.min()), float(value.max())}
        if len(tokens) != 1 or len(artefact.files) != 3:
            found.append(f"mixed {artefact.path} {tokens}")
    return found


def die_at_step(home: Path, step: int) -> None:
    """Replace a pair of tables, and die by SIGKILL at step `step` of the write.

    Steps are the moments before and after each rename, before each record in the ledger, and right
    after the ledger's commit. A write with fewer steps ends well.
    """
    lake = Lake(home / "lake", KEEP_SECONDS, sql=home / "sql")
    provenance = Provenance("stress", "victim", "1")
    lake.write_many({table: frame("pair", 1, 10) for table in TABLES[:2]}, "pair", provenance)
    left = step

    def pass_step() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    replace, add, changes = os.replace, Commit.add, Ledger.changes

    def counted_replace(source: Path, target: Path) -> None:
        pass_step()
        replace(source, target)
        pass_step()

    def counted_add(self: Commit, version: Version) -> None:
        pass_step()
        add(self, version)

    def counted_changes(self: Ledger) -> int:
        pass_step()
        return changes(self)

    with (
        patch.object(os, "replace", counted_replace),
        patch.object(Commit, "add", counted_add),
        patch.object(Ledger, "changes", counted_changes),
    ):
        at_once, streamed = TABLES[:2]
        rows = frame("pair", 2, 20)
        pieces = rows.iter_slices(7)
        lake.write_many({at_once: rows, streamed: pieces}, "pair", provenance)


class Log:
    """Lines that survive the death of their writer: each is one append."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, line: str) -> None:
        """Append one line."""
        os.write(self._handle, f"{line}\n".encode())


def watch(reads: dict[str, Callable[[], list[str]]], log: Log) -> None:
    """Read in turn, for ever, and log what came of it."""
    while True:
        for kind, read in reads.items():
            try:
                found = read()
            except Exception as error:  # any failure of a reader is what the run looks for
                found = [f"{type(error).__name__}: {error}"]
            if found == [SHUT_OUT]:
                log.add(json.dumps({"read": SHUT_OUT}))
            elif found:
                log.add(json.dumps({"bad": f"{kind}: {found[0][:400]}"}))
            else:
                log.add(json.dumps({"read": kind}))
            time.sleep(0.05)


def worker(role: str, slot: int, home: Path) -> None:
    """Body of one process of the run."""
    log = Log(home / "logs" / f"{role}-{os.getpid()}")
    if role == "victim":
        declare(home / "sql")
        die_at_step(home, slot)
    elif role == "tensor-writer":
        write_tensors(home / "tensors", slot, log)
    elif role == "tensor-reader":
        watch({"tensors": partial(read_tensors, home / "tensors")}, log)
    else:
        lake = Lake(home / "lake", KEEP_SECONDS, sql=home / "sql")
        if role == "writer":
            write_tables(lake, slot, log)
        else:
            watch({kind: partial(read, lake) for kind, read in READERS[role].items()}, log)


def spawn(role: str, slot: int, home: Path) -> "subprocess.Popen[bytes]":
    """Start a process of the run."""
    return subprocess.Popen(
        [sys.executable, __file__, "--role", role, "--slot", str(slot), "--home", str(home)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"},
    )


def run(
    seconds: float,
    home: Path,
    what: str,
    *,
    writers: int = WRITERS,
    readers: int | None = None,
    kills: int = 0,
    writes: int = 0,
    reads: int = 0,
    at_most: float = 300.0,
) -> Report:
    """One stress run in the folder `home`.

    It goes on for `seconds`, and on a busy machine until there were so many `kills`, `writes` and
    `reads` and every reader has read, but not longer than `at_most` seconds. A number of `readers`
    is of readers that are killed too, one at least where there are `kills`; None is one of each
    role, which live to the end.
    """
    (home / "logs").mkdir(parents=True)
    if what == "lake":
        declare(home / "sql")
        lake = Lake(home / "lake", KEEP_SECONDS, sql=home / "sql")
        first = {table: frame("pair", 0, 1) for table in TABLES[:2]}
        lake.write_many(first, "pair", Provenance("stress", "first", "1"))
        lake.write(TABLES[2], "shared", frame("shared", 0, 1), Provenance("stress", "first", "1"))
        roles, writer_role = list(READERS), "writer"
    else:
        roles, writer_role = ["tensor-reader"], "tensor-writer"
    roles = [roles[n % len(roles)] for n in range(len(roles) if readers is None else readers)]
    report = Report()
    doomed = [Writer(writer_role, slot, home) for slot in range(writers)]
    if what == "tensors":
        _wait_for(lambda: (home / "tensors" / "weights").is_dir())
    watching = [spawn(role, 0, home) for role in roles]
    ends = [math.inf if readers is None else _reader_end() for _ in roles]
    try:
        start = time.monotonic()
        while (passed := time.monotonic() - start) < at_most:
            killed = report.kills + report.kills_of_readers
            done = killed >= kills and _writes_ended(home) >= writes and _reads(home) >= reads
            if readers is None:
                readers_done = _all_have_read(home, watching)
            else:  # writers may take all the kills of a busy machine
                readers_done = not kills or report.kills_of_readers > 0
            if passed > seconds and done and readers_done:
                break
            for slot, end in enumerate(ends):
                if time.monotonic() > end:
                    watching[slot].kill()
                    watching[slot].wait()
                    report.kills_of_readers += 1
                    watching[slot], ends[slot] = spawn(roles[slot], 0, home), _reader_end()
            time.sleep(0.02)
            for slot, writer in enumerate(doomed):
                if writer.process.poll() is not None:
                    report.bad.append(f"a writer ended with {writer.process.returncode}")
                elif not writer.is_due():
                    continue
                report.kills += 1
                report.kills_in_write += writer.kill()
                doomed[slot] = Writer(writer_role, slot, home)
    finally:
        for process in [writer.process for writer in doomed] + watching:
            process.kill()
            process.wait()
    _collect(report, home, what, writer_role)
    return report


class Writer:
    """A writing process that may end a few writes, and is killed some time into a later one."""

    def __init__(self, role: str, slot: int, home: Path) -> None:
        self.process = spawn(role, slot, home)
        self._log = home / "logs" / f"{role}-{self.process.pid}"
        self._writes = random.randrange(3)
        self._delay = random.uniform(0, LAST_SECONDS)
        self._seen: float | None = None

    def is_due(self) -> bool:
        """Whether its time has come."""
        if self._seen is None:
            if self._log.exists() and self._log.read_text().count("begin") > self._writes:
                self._seen = time.monotonic()
            return False
        return time.monotonic() > self._seen + self._delay

    def kill(self) -> bool:
        """SIGKILL; whether it was in the middle of a write."""
        self.process.kill()
        self.process.wait()
        return self._log.read_text().endswith("begin\n")


def _reader_end() -> float:
    """When a reader is killed that starts now."""
    return time.monotonic() + random.uniform(0, READER_SECONDS)


def _writes_ended(home: Path) -> int:
    return sum(path.read_text().count("\nend ") for path in (home / "logs").glob("*writer-*"))


def _reads(home: Path) -> int:
    """Reads so far, as `Report.reads` counts them."""
    logs = [path for path in (home / "logs").glob("*") if "writer-" not in path.name]
    entries = [line for path in logs for line in path.read_text().splitlines()]
    return sum('"bad"' not in e and "meddler" not in e and SHUT_OUT not in e for e in entries)


def _all_have_read(home: Path, readers: "list[subprocess.Popen[bytes]]") -> bool:
    logged = {path.name.split("-")[-1] for path in (home / "logs").glob("*") if path.stat().st_size}
    return all(str(reader.pid) in logged for reader in readers)


def _collect(report: Report, home: Path, what: str, writer_role: str) -> None:
    for path in (home / "logs").iterdir():
        lines = path.read_text().splitlines()
        if path.name.startswith(f"{writer_role}-"):
            ended = [line.split()[1:] for line in lines if line.startswith("end")]
            report.writes += len(ended)
            for table, partition, version, data_version in ended:
                if not _on_record(home, what, table, partition, int(version), data_version):
                    report.lost.append(f"{table} {partition} {version}")
            continue
        for line in lines:
            entry = json.loads(line)
            if "bad" in entry:
                report.bad.append(entry["bad"])
            elif entry["read"] == "meddler":
                report.refused += 1
            elif entry["read"] == SHUT_OUT:
                report.shut_out += 1
            else:
                report.reads[entry["read"]] = report.reads.get(entry["read"], 0) + 1
    report.swept, report.left_over = _left_over(home, what)
    report.set_aside = len(list(quarantined(home / what)))


def _on_record(
    home: Path, what: str, table: str, partition: str, version: int, data_version: str
) -> bool:
    """Whether a write that ended is there with its content, or was there and was superseded."""
    if what == "tensors":
        from mechinterp_assets.storage.tensors import Tensors

        store = Tensors(home / "tensors", KEEP_SECONDS)
        versions = store.versions(table, partition)
        if version not in versions:
            return bool(versions) and version < max(versions)
        return store.open(table, partition, version).data_version == data_version
    lake = Lake(home / "lake", KEEP_SECONDS, sql=home / "sql")
    kept = {item.version: item for item in lake.versions(table, partition)}
    if version not in kept:
        return bool(kept) and version < max(kept)
    path = lake.root / kept[version].file
    return kept[version].data_version == data_version and path.exists()


def _left_over(home: Path, what: str) -> tuple[int, int]:
    """What of killed processes a sweep removes, and what it and one more write leave behind."""
    from mechinterp_assets.storage import files

    root = home / what
    files._UNLOCKED_GRACE_SECONDS = 0.0
    if what == "tensors":
        swept = files.sweep_work_folders(root)
        return swept, len(list((root / files.WORK_FOLDER).iterdir()))
    swept = files.sweep_work_folders(root)
    lake = Lake(root, keep_seconds=0.0, sql=home / "sql")
    provenance = Provenance("stress", "last", "1")
    for folder in sorted(root.glob("*/*/")):
        if folder.parent.name in TABLES:
            rows = frame(folder.name, 1, 1)
            lake.write(folder.parent.name, folder.name, rows, provenance)
    lake.refresh()
    return swept, len(list((root / files.WORK_FOLDER).iterdir())) + sum(
        len(list(folder.iterdir())) - 1 for table in TABLES for folder in (root / table).glob("*")
    )


def _wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the writers of the stress run did not start")
        time.sleep(0.05)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--what", choices=["lake", "tensors"], default="lake")
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--readers", type=int, help="so many, which are killed too")
    parser.add_argument("--kills", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--role")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    if arguments.role:
        worker(arguments.role, arguments.slot, arguments.home)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            arguments.seconds,
            Path(folder) / "home",
            arguments.what,
            writers=arguments.writers,
            readers=arguments.readers,
            kills=arguments.kills,
            at_most=3600.0,
        )
    print(json.dumps(asdict(report), indent=1))
    if report.bad or report.lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
