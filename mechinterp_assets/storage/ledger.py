"""The lake's ledger: which versions of which table partitions were published, in what order.

One small SQLite file, because publishing needs exactly what it gives: numbers that no two processes
can both take, several tables current at one instant, and a commit that a killed process has either
made or not made. Rows are never deleted, so version numbers are never used twice.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mechinterp_assets.storage.files import fsync, work_folder
from mechinterp_assets.storage.provenance import Provenance

_WAIT_SECONDS = 300.0
_TABLES = """
CREATE TABLE column_lists (column_list INTEGER PRIMARY KEY, columns TEXT UNIQUE);
CREATE TABLE versions (
    table_name TEXT, partition TEXT, version INTEGER, file TEXT, data_version TEXT,
    row_count INTEGER, bytes INTEGER, provenance TEXT, formula_version INTEGER, inputs TEXT,
    column_list INTEGER, written_at REAL, superseded_at REAL, removed_at REAL, change INTEGER,
    PRIMARY KEY (table_name, partition, version)
) WITHOUT ROWID;
CREATE INDEX kept ON versions (superseded_at) WHERE removed_at IS NULL;
CREATE INDEX changed ON versions (change);
CREATE TABLE changes (number INTEGER PRIMARY KEY CHECK (number = 0), count INTEGER);
INSERT INTO changes VALUES (0, 0);
"""
# Beside the versions: what studies ask for now, and what was begun. Ledgers of before get them on
# the next write.
_MORE_TABLES = """
CREATE TABLE IF NOT EXISTS study_inputs (
    study TEXT, input TEXT, value TEXT, PRIMARY KEY (study, input)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expected_partitions (
    table_name TEXT, partition TEXT, study TEXT, PRIMARY KEY (table_name, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS observations (
    number INTEGER PRIMARY KEY CHECK (number = 0), change INTEGER, observed_at REAL
);
CREATE TABLE IF NOT EXISTS begun (
    table_name TEXT, partition TEXT, study TEXT, run_id TEXT, begun_at REAL,
    PRIMARY KEY (table_name, partition)
) WITHOUT ROWID;
"""
_MORE_TABLES_VERSION = 1
_FIELDS = (
    "table_name, partition, version, file, data_version, row_count, bytes, provenance,"
    " formula_version, inputs, columns, written_at, superseded_at"
)


@dataclass(frozen=True)
class Version:
    """One published version of a table partition.

    `file` is relative to the lake's folder, `columns` are the stored (name, DuckDB type) pairs,
    times are seconds since the epoch.
    """

    table: str
    partition: str
    version: int
    file: str
    data_version: str
    rows: int
    bytes: int
    provenance: Provenance
    formula_version: int
    inputs: dict[str, str]
    columns: tuple[tuple[str, str], ...]
    written_at: float
    superseded_at: float | None = None

    @property
    def is_current(self) -> bool:
        """Whether no later version has been published."""
        return self.superseded_at is None


@dataclass(frozen=True)
class Observation:
    """What studies ask for, as it was last looked at.

    Attributes:
        inputs: (study, input) -> value: settings as JSON, files by fingerprint.
        partitions: (table, partition) -> study, of everything that studies expect to be made.
        observed_at: when it last changed, in seconds since the epoch.
    """

    inputs: Mapping[tuple[str, str], str]
    partitions: Mapping[tuple[str, str], str]
    observed_at: float = 0.0


@dataclass(frozen=True)
class Begun:
    """A partition of a table that a run began to make: it is at work, or it was killed."""

    table: str
    partition: str
    study: str
    run_id: str
    begun_at: float

    @property
    def place(self) -> tuple[str, str]:
        """Table and partition."""
        return self.table, self.partition


@dataclass(frozen=True)
class Snapshot:
    """The ledger as of one instant, or of the tables that changed since another.

    Attributes:
        changes: number of the latest change.
        tables: tables that changed.
        versions: their versions still stored, by table, partition and number.
        observation: what studies ask for, unless that did not change.
        begun: everything that is begun and not published.
    """

    changes: int
    tables: frozenset[str]
    versions: tuple[Version, ...]
    observation: Observation | None = None
    begun: tuple[Begun, ...] = ()


class Ledger:
    """Versions on record in the SQLite file `path`, made on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def commit(self) -> Iterator["Commit"]:
        """One writing transaction; the only one at a time on this ledger, all or nothing."""
        self._create()
        with closing(self._connect()) as con:
            con.execute("BEGIN IMMEDIATE")
            try:
                _add_tables(con)
                con.execute("UPDATE changes SET count = count + 1")
                yield Commit(con, _changes(con))
                con.execute("COMMIT")
            except BaseException:
                con.execute("ROLLBACK")
                raise

    def changes(self) -> int:
        """How many commits were made; changes whenever anything else here does."""
        if not self._path.exists():
            return 0
        with closing(self._connect()) as con:
            return _changes(con)

    def has_versions(self) -> bool:
        """Whether a table was ever published."""
        if not self._path.exists():
            return False
        with closing(self._connect()) as con:
            return con.execute("SELECT 1 FROM versions LIMIT 1").fetchone() is not None

    def snapshot(self, since: int = 0) -> Snapshot:
        """Every version still stored of the tables that changed after change `since`."""
        if not self._path.exists():
            return Snapshot(0, frozenset(), ())
        touched = "SELECT table_name FROM versions WHERE change > ?"
        with closing(self._connect()) as con:
            con.execute("BEGIN")
            return Snapshot(
                _changes(con),
                frozenset(str(row[0]) for row in con.execute(touched, (since,))),
                tuple(_select(con, f"removed_at IS NULL AND table_name IN ({touched})", (since,))),
                _observation(con, since),
                _begun(con),
            )

    def observe(self, now: Observation) -> bool:
        """Record what studies ask for now; whether that differs from before."""
        if self._path.exists():
            with closing(self._connect()) as con:
                con.execute("BEGIN")
                before = _observation(con, since=0)
            if before and (before.inputs, before.partitions) == (now.inputs, now.partitions):
                return False
        with self.commit() as commit:
            commit.observe(now)
        return True

    def begun(self) -> tuple[Begun, ...]:
        """What is begun and neither published nor given up."""
        if not self._path.exists():
            return ()
        with closing(self._connect()) as con:
            return _begun(con)

    def current_of(self, tables: Iterable[str]) -> list[Version]:
        """Current versions of several tables as of one instant."""
        names = sorted(set(tables))
        marks = ", ".join("?" * len(names))
        return self._find(f"superseded_at IS NULL AND table_name IN ({marks})", tuple(names))

    def current(self, table: str, partitions: Iterable[str] | None = None) -> list[Version]:
        """Current versions of `table`, of all partitions or of those named, by partition."""
        found = self._find("table_name = ? AND superseded_at IS NULL", (table,))
        if partitions is None:
            return found
        wanted = set(partitions)
        return [version for version in found if version.partition in wanted]

    def versions(self, table: str, partition: str) -> list[Version]:
        """Versions of a partition that are still stored, oldest first."""
        return self._find(
            "table_name = ? AND partition = ? AND removed_at IS NULL", (table, partition)
        )

    def superseded_before(self, time: float) -> list[Version]:
        """Versions still stored whose successor appeared before `time`."""
        return self._find("removed_at IS NULL AND superseded_at < ?", (time,))

    def _find(self, where: str, values: tuple[str | float, ...]) -> list[Version]:
        if not self._path.exists():
            return []
        with closing(self._connect()) as con:
            return _select(con, where, values)

    def _connect(self) -> sqlite3.Connection:
        con = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        con.execute("PRAGMA synchronous = FULL")
        return con

    def _create(self) -> None:
        """Make the ledger unless there is one; it appears with its tables or not at all."""
        if self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(self._path.parent) as folder:
            fresh = folder / self._path.name
            with closing(sqlite3.connect(fresh)) as con:
                con.executescript(_TABLES)
            with suppress(FileExistsError):
                os.link(fresh, self._path)
            fsync(self._path.parent)


class Commit:
    """What may be done inside `Ledger.commit`."""

    def __init__(self, con: sqlite3.Connection, change: int) -> None:
        self._con = con
        self._change = change

    def next_version(self, table: str, partition: str) -> int:
        """The number that the next version of this partition gets."""
        (last,) = self._con.execute(
            "SELECT max(version) FROM versions WHERE table_name = ? AND partition = ?",
            (table, partition),
        ).fetchone()
        return int(last or 0) + 1

    def known_files(self, table: str, partition: str) -> set[str]:
        """Files of this partition that belong to a version still stored."""
        rows = self._con.execute(
            "SELECT file FROM versions"
            " WHERE table_name = ? AND partition = ? AND removed_at IS NULL",
            (table, partition),
        )
        return {str(row[0]) for row in rows}

    def add(self, version: Version) -> None:
        """Record `version` as the current one of its partition."""
        self._con.execute(
            "UPDATE versions SET superseded_at = ?, change = ?"
            " WHERE table_name = ? AND partition = ? AND superseded_at IS NULL",
            (version.written_at, self._change, version.table, version.partition),
        )
        self._con.execute(
            "DELETE FROM begun WHERE table_name = ? AND partition = ?",
            (version.table, version.partition),
        )
        columns = json.dumps(version.columns)
        self._con.execute("INSERT OR IGNORE INTO column_lists (columns) VALUES (?)", (columns,))
        self._con.execute(
            "INSERT INTO versions"
            " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, column_list, ?, NULL, NULL, ?"
            " FROM column_lists WHERE columns = ?",
            (
                version.table,
                version.partition,
                version.version,
                version.file,
                version.data_version,
                version.rows,
                version.bytes,
                json.dumps(version.provenance.as_dict()),
                version.formula_version,
                json.dumps(version.inputs),
                version.written_at,
                self._change,
                columns,
            ),
        )

    def begin(self, begun: Iterable[Begun]) -> None:
        """Record partitions that a run begins to make; publishing them ends that, or giving up."""
        self._con.executemany(
            "INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?, ?)",
            [(b.table, b.partition, b.study, b.run_id, b.begun_at) for b in begun],
        )

    def give_up(self, run_id: str) -> None:
        """Forget what a run began: it has ended and says by itself how."""
        self._con.execute("DELETE FROM begun WHERE run_id = ?", (run_id,))

    def observe(self, now: Observation) -> None:
        """Replace what studies ask for."""
        self._con.execute("DELETE FROM study_inputs")
        self._con.executemany(
            "INSERT INTO study_inputs VALUES (?, ?, ?)",
            [(*key, value) for key, value in sorted(now.inputs.items())],
        )
        self._con.execute("DELETE FROM expected_partitions")
        self._con.executemany(
            "INSERT INTO expected_partitions VALUES (?, ?, ?)",
            [(*key, study) for key, study in sorted(now.partitions.items())],
        )
        self._con.execute(
            "INSERT OR REPLACE INTO observations VALUES (0, ?, ?)", (self._change, now.observed_at)
        )

    def remove(self, versions: Iterable[Version], time: float) -> None:
        """Record that the files of these versions are no longer there."""
        self._con.executemany(
            "UPDATE versions SET removed_at = ?, change = ?"
            " WHERE table_name = ? AND partition = ? AND version = ?",
            [(time, self._change, v.table, v.partition, v.version) for v in versions],
        )


def _add_tables(con: sqlite3.Connection) -> None:
    if con.execute("PRAGMA user_version").fetchone()[0] < _MORE_TABLES_VERSION:
        for statement in filter(str.strip, _MORE_TABLES.split(";")):
            con.execute(statement)
        con.execute(f"PRAGMA user_version = {_MORE_TABLES_VERSION}")


def _has_more_tables(con: sqlite3.Connection) -> bool:
    return bool(con.execute("PRAGMA user_version").fetchone()[0] >= _MORE_TABLES_VERSION)


def _observation(con: sqlite3.Connection, since: int) -> Observation | None:
    """What studies ask for, if that changed after change `since`."""
    if not _has_more_tables(con):
        return None
    found = con.execute("SELECT change, observed_at FROM observations").fetchone()
    if found is None or found[0] <= since:
        return None
    inputs = con.execute("SELECT study, input, value FROM study_inputs")
    partitions = con.execute("SELECT table_name, partition, study FROM expected_partitions")
    return Observation(
        {(study, name): value for study, name, value in inputs},
        {(table, partition): study for table, partition, study in partitions},
        found[1],
    )


def _begun(con: sqlite3.Connection) -> tuple[Begun, ...]:
    if not _has_more_tables(con):
        return ()
    rows = con.execute("SELECT table_name, partition, study, run_id, begun_at FROM begun")
    return tuple(Begun(*row) for row in rows)


def _changes(con: sqlite3.Connection) -> int:
    return int(con.execute("SELECT count FROM changes").fetchone()[0])


def _select(con: sqlite3.Connection, where: str, values: tuple[str | float, ...]) -> list[Version]:
    rows = con.execute(
        f"SELECT {_FIELDS} FROM versions JOIN column_lists USING (column_list)"
        f" WHERE {where} ORDER BY table_name, partition, version",
        values,
    ).fetchall()
    parsed: dict[str, tuple[tuple[str, str], ...]] = {}
    versions = []
    for table, partition, version, file, data_version, row_count, size, *rest in rows:
        provenance, formula_version, inputs, columns, written_at, superseded_at = rest
        if columns not in parsed:
            parsed[columns] = tuple((name, type_name) for name, type_name in json.loads(columns))
        versions.append(
            Version(
                table=table,
                partition=partition,
                version=version,
                file=file,
                data_version=data_version,
                rows=row_count,
                bytes=size,
                provenance=Provenance(**json.loads(provenance)),
                formula_version=formula_version,
                inputs=json.loads(inputs),
                columns=parsed[columns],
                written_at=written_at,
                superseded_at=superseded_at,
            )
        )
    return versions
