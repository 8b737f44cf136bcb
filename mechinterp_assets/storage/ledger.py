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

from mechinterp_assets.storage.disk_space import told_when_full
from mechinterp_assets.storage.files import fsync, work_folder
from mechinterp_assets.storage.lake_error import LakeError
from mechinterp_assets.storage.observations import (
    Begun,
    Observation,
    add_tables,
    begun_of,
    end_begun,
    give_up_begun,
    observation_of,
    put_begun,
    put_observation,
)
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
# What ledgers lack that were made before files were hashed; rows of before have NULL for the hash.
# The index `stored` has all but the inputs, which are long: without it they would be read past to
# get at the columns behind them.
_HASHES = """
ALTER TABLE versions ADD COLUMN sha256 TEXT;
CREATE INDEX current ON versions (superseded_at, table_name, partition)
    WHERE superseded_at IS NULL;
CREATE INDEX stored ON versions (
    table_name, partition, version, file, data_version, row_count, bytes, provenance,
    formula_version, column_list, written_at, superseded_at, sha256
) WHERE removed_at IS NULL;
"""
_FIELDS = (
    "table_name, partition, version, file, data_version, row_count, bytes, provenance,"
    " formula_version, columns, written_at, superseded_at, {sha256}, {inputs}"
)
_NOT_A_LEDGER = ("not a database", "malformed", "no such table", "no such column", "corrupt")


@dataclass(frozen=True)
class Version:
    """One published version of a table partition.

    `file` is relative to the lake's folder, `columns` are the stored (name, DuckDB type) pairs,
    times are seconds since the epoch, `sha256` is that of the file (None: written before files were
    hashed).
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
    sha256: str | None = None

    @property
    def is_current(self) -> bool:
        """Whether no later version has been published."""
        return self.superseded_at is None


@dataclass(frozen=True)
class StoredFile:
    """A file that a table's views show."""

    table: str
    file: str
    columns: tuple[tuple[str, str], ...]
    is_current: bool


@dataclass(frozen=True)
class Snapshot:
    """The ledger as of one instant, or what changed since another.

    Attributes:
        changes: number of the latest change.
        tables: tables that changed.
        versions: versions that changed and are still stored, by table, partition and number. Those
            that are superseded come without their inputs.
        removed: table, partition and number of versions that changed and are stored no more.
        files: every file still stored of the tables that changed, by table, partition and number.
        observation: what studies ask for, unless that did not change.
        begun: everything that is begun and neither published nor given up.
    """

    changes: int
    tables: frozenset[str]
    versions: tuple[Version, ...]
    removed: tuple[tuple[str, str, int], ...]
    files: tuple[StoredFile, ...]
    observation: Observation | None = None
    begun: tuple[Begun, ...] = ()


class Ledger:
    """Versions on record in the SQLite file `path`, made on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def commit(self) -> Iterator["Commit"]:
        """One writing transaction; the only one at a time on this ledger, all or nothing.

        Raises:
            DiskFullError: there was no space for it; nothing was recorded.
            LakeError: the ledger is damaged or locked for too long; nothing was recorded.
        """
        self._create()
        with told_when_full(self._path), self._telling(), closing(self._connect()) as con:
            con.execute("BEGIN IMMEDIATE")
            try:
                _add_hashes(con)
                add_tables(con)
                con.execute("UPDATE changes SET count = count + 1")
                yield Commit(con, _changes(con))
                con.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, as where the disk is full; closing the
                # connection does it in any case, and the cause must not be hidden.
                with suppress(sqlite3.Error):
                    con.execute("ROLLBACK")
                raise

    def changes(self) -> int:
        """How many commits were made; changes whenever anything else here does."""
        if not self._path.exists():
            return 0
        with self._opened() as con:
            return _changes(con)

    def check(self) -> None:
        """Check every page of the file; a damaged one is a LakeError."""
        if self._path.exists():
            with self._opened() as con:
                found = str(con.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if found != "ok":
                raise LakeError(self._damaged(found))

    def snapshot(self, since: int | None = None) -> Snapshot:
        """What changed after change `since`; None for all that is stored."""
        if not self._path.exists():
            return Snapshot(0, frozenset(), (), (), ())
        with self._opened() as con:
            con.execute("BEGIN")
            changes = _changes(con)
            if since is None:
                versions = _select(con, "removed_at IS NULL", (), "stored", inputs_of_history=False)
                removed: list[tuple[str, str, int]] = []
                files = [StoredFile(v.table, v.file, v.columns, v.is_current) for v in versions]
            else:
                versions = _select(
                    con,
                    "removed_at IS NULL AND change > ?",
                    (since,),
                    "changed",
                    inputs_of_history=False,
                )
                removed = con.execute(
                    "SELECT table_name, partition, version FROM versions"
                    " WHERE change > ? AND removed_at IS NOT NULL",
                    (since,),
                ).fetchall()
                changed = {v.table for v in versions} | {row[0] for row in removed}
                files = list(_stored_files(con, sorted(changed)))
            observation, begun = observation_of(con, since), begun_of(con)
        tables = frozenset(file.table for file in files) | {row[0] for row in removed}
        return Snapshot(
            changes, tables, tuple(versions), tuple(removed), tuple(files), observation, begun
        )

    def has_versions(self) -> bool:
        """Whether a table was ever published."""
        if not self._path.exists():
            return False
        with self._opened() as con:
            return con.execute("SELECT 1 FROM versions LIMIT 1").fetchone() is not None

    def observation(self) -> Observation | None:
        """What studies ask for, as it was last looked at."""
        if not self._path.exists():
            return None
        with self._opened() as con:
            con.execute("BEGIN")
            return observation_of(con, since=None)

    def begun(self) -> tuple[Begun, ...]:
        """What is begun and neither published nor given up."""
        if not self._path.exists():
            return ()
        with self._opened() as con:
            return begun_of(con)

    def current(self, table: str, partitions: Iterable[str] | None = None) -> list[Version]:
        """Current versions of `table`, of all partitions or of those named, by partition."""
        where = "table_name = ? AND superseded_at IS NULL"
        if partitions is None:
            return self._find(where, (table,), index="current")
        wanted = json.dumps(sorted(set(partitions)))
        return self._find(
            f"{where} AND partition IN (SELECT value FROM json_each(?))",
            (table, wanted),
            index="current",
        )

    def current_of(self, tables: Iterable[str], study: str | None = None) -> list[Version]:
        """Current versions of several tables, of one study or of all."""
        named = json.dumps(sorted(set(tables)))
        found = self._find(
            "table_name IN (SELECT value FROM json_each(?)) AND superseded_at IS NULL",
            (named,),
            index="current",
        )
        return [v for v in found if study is None or v.provenance.study == study]

    def stored(self, tables: Iterable[str] | None = None) -> list[Version]:
        """Every version that is still stored, of the tables named or of all."""
        if tables is None:
            return self._find("removed_at IS NULL", ())
        return self._find(
            "table_name IN (SELECT value FROM json_each(?)) AND removed_at IS NULL",
            (json.dumps(sorted(set(tables))),),
        )

    def partitions(self, table: str) -> list[str]:
        """Partitions of `table` that have a current version."""
        if not self._path.exists():
            return []
        with self._opened() as con:
            rows = con.execute(
                "SELECT partition FROM versions WHERE table_name = ? AND superseded_at IS NULL"
                " ORDER BY partition",
                (table,),
            ).fetchall()
        return [str(row[0]) for row in rows]

    def versions(self, table: str, partition: str) -> list[Version]:
        """Versions of a partition that are still stored, oldest first."""
        return self._find(
            "table_name = ? AND partition = ? AND removed_at IS NULL", (table, partition)
        )

    def superseded_before(self, time: float) -> list[Version]:
        """Versions still stored whose successor appeared before `time`."""
        return self._find("removed_at IS NULL AND superseded_at < ?", (time,))

    def _find(self, where: str, values: tuple[str | float, ...], index: str = "") -> list[Version]:
        if not self._path.exists():
            return []
        with self._opened() as con:
            return _select(con, where, values, index)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading."""
        with self._telling(), closing(self._connect()) as con:
            yield con

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn SQLite's errors about the file into one that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if any(words in str(error) for words in _NOT_A_LEDGER):
                raise LakeError(self._damaged(str(error))) from error
            if "locked" in str(error):
                raise LakeError(
                    f"{self._path} was locked by another process for {_WAIT_SECONDS:.0f} seconds;"
                    " end the one that hangs and try again"
                ) from error
            raise

    def _damaged(self, found: str) -> str:
        return (
            f"{self._path} is damaged ({found}); `mechinterp rebuild` sets it aside and makes it"
            " again from the tables"
        )

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
                _add_hashes(con)
                add_tables(con)
                con.commit()
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

    def stored_files(self, table: str, partition: str) -> set[str]:
        """Files of this partition that belong to a version still stored."""
        rows = self._con.execute(
            "SELECT file FROM versions"
            " WHERE table_name = ? AND partition = ? AND removed_at IS NULL",
            (table, partition),
        )
        return {str(file) for (file,) in rows}

    def is_on_record(self, table: str, partition: str, version: int, file: str) -> bool:
        """Whether this version of the partition was published with this file, stored or not."""
        row = self._con.execute(
            "SELECT file FROM versions WHERE table_name = ? AND partition = ? AND version = ?",
            (table, partition, version),
        ).fetchone()
        return row is not None and row[0] == file

    def add(self, version: Version, superseding_at: float | None = None) -> None:
        """Record `version` as the current one of its partition.

        The one before counts as superseded at `superseding_at`, or when this one was written.
        """
        at = version.written_at if superseding_at is None else superseding_at
        self._con.execute(
            "UPDATE versions SET superseded_at = ?, change = ?"
            " WHERE table_name = ? AND partition = ? AND superseded_at IS NULL",
            (at, self._change, version.table, version.partition),
        )
        end_begun(self._con, version.table, version.partition)
        columns = json.dumps(version.columns)
        self._con.execute("INSERT OR IGNORE INTO column_lists (columns) VALUES (?)", (columns,))
        self._con.execute(
            "INSERT INTO versions (table_name, partition, version, file, data_version, row_count,"
            " bytes, provenance, formula_version, inputs, column_list, written_at, change, sha256)"
            " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, column_list, ?, ?, ?"
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
                version.sha256,
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

    def observe(self, now: Observation) -> None:
        """Replace what studies ask for."""
        put_observation(self._con, now, self._change)

    def begin(self, begun: Iterable[Begun]) -> None:
        """Record partitions that a run begins to make; publishing them ends that, or giving up."""
        put_begun(self._con, begun)

    def give_up(self, run_id: str) -> None:
        """Forget what a run began: it has ended and says by itself how."""
        give_up_begun(self._con, run_id)

    def set_hashes(self, hashes: Iterable[tuple[Version, str]]) -> None:
        """Record the SHA-256 of files that were written before files were hashed."""
        self._con.executemany(
            "UPDATE versions SET sha256 = ? WHERE table_name = ? AND partition = ? AND version = ?",
            [(sha256, v.table, v.partition, v.version) for v, sha256 in hashes],
        )


def _add_hashes(con: sqlite3.Connection) -> None:
    """Bring an older ledger to the form that this program writes, in the caller's transaction."""
    if not _has_hashes(con):
        for statement in filter(str.strip, _HASHES.split(";")):
            con.execute(statement)


def _has_hashes(con: sqlite3.Connection) -> bool:
    columns = con.execute("SELECT name FROM pragma_table_info('versions')").fetchall()
    return ("sha256",) in columns


def _changes(con: sqlite3.Connection) -> int:
    return int(con.execute("SELECT count FROM changes").fetchone()[0])


def _select(
    con: sqlite3.Connection,
    where: str,
    values: tuple[str | float, ...],
    index: str = "",
    *,
    inputs_of_history: bool = True,
) -> list[Version]:
    """Versions by table, partition and number.

    Args:
        con: the ledger.
        where: condition, with its `values`.
        index: to find them by, where the ledger has it; SQLite would go through all versions of a
            table to find the few that are current.
        inputs_of_history: read the inputs of superseded versions too, which are many.
    """
    is_migrated = _has_hashes(con)
    hint = f"INDEXED BY {index}" if index and is_migrated else ""
    fields = _FIELDS.format(
        inputs="inputs"
        if inputs_of_history
        else "CASE WHEN superseded_at IS NULL THEN inputs ELSE '{}' END",
        sha256="sha256" if is_migrated else "NULL",
    )
    # The + keeps SQLite from going through all rows in the order wanted to find the few asked for.
    rows = con.execute(
        f"SELECT {fields} FROM versions {hint} JOIN column_lists USING (column_list)"
        f" WHERE {where} ORDER BY +table_name, partition, version",
        values,
    ).fetchall()
    column_lists: dict[str, tuple[tuple[str, str], ...]] = {}
    origins: dict[str, Provenance] = {}
    versions = []
    for *first, provenance, formula_version, columns, written, superseded, sha256, inputs in rows:
        table, partition, version, file, data_version, row_count, size = first
        if columns not in column_lists:
            column_lists[columns] = _parsed_columns(columns)
        if provenance not in origins:
            origins[provenance] = Provenance(**json.loads(provenance))
        versions.append(
            Version(
                table=table,
                partition=partition,
                version=version,
                file=file,
                data_version=data_version,
                rows=row_count,
                bytes=size,
                provenance=origins[provenance],
                formula_version=formula_version,
                inputs=json.loads(inputs),
                columns=column_lists[columns],
                written_at=written,
                superseded_at=superseded,
                sha256=sha256,
            )
        )
    return versions


def _stored_files(con: sqlite3.Connection, tables: list[str]) -> Iterator[StoredFile]:
    """Files still stored of some tables, by table, partition and number."""
    lists = {
        number: _parsed_columns(columns)
        for number, columns in con.execute("SELECT column_list, columns FROM column_lists")
    }
    for table in tables:
        for file, column_list, is_current in con.execute(
            "SELECT file, column_list, superseded_at IS NULL FROM versions"
            " WHERE table_name = ? AND removed_at IS NULL ORDER BY partition, version",
            (table,),
        ):
            yield StoredFile(table, file, lists[column_list], bool(is_current))


def _parsed_columns(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, type_name) for name, type_name in json.loads(text))
