"""The lake's ledger: which versions of which table partitions were published, in what order.

One small SQLite file, because publishing needs exactly what it gives: numbers that no two processes
can both take, several tables current at one instant, and a commit that a killed process has either
made or not made. Rows are never deleted, so version numbers are never used twice.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
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
class Snapshot:
    """The ledger as of one instant, or of the tables that changed since another.

    Attributes:
        changes: number of the latest change.
        tables: tables that changed.
        versions: their versions still stored, by table, partition and number.
    """

    changes: int
    tables: frozenset[str]
    versions: tuple[Version, ...]


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
            )

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

    def remove(self, versions: Iterable[Version], time: float) -> None:
        """Record that the files of these versions are no longer there."""
        self._con.executemany(
            "UPDATE versions SET removed_at = ?, change = ?"
            " WHERE table_name = ? AND partition = ? AND version = ?",
            [(time, self._change, v.table, v.partition, v.version) for v in versions],
        )


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
