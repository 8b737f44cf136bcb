"""The lake: every table of the platform as immutable Parquet versions under a DuckDB catalog.

    <root>/<table>/<partition>/v00000003-<run>.parquet   one version; never changed once published
    <root>/ledger.sqlite                                 which versions are published and current
    <root>/mechinterp.duckdb                             views over exactly the current files
    <root>/.catalog/  <root>/.work/                      the catalog's twin; unfinished files
    <root>/.quarantine/                                  files that the ledger does not know

A write makes files under names of their own, then publishes them by one ledger commit, then swaps
in a new catalog. Readers hold the catalog or the files they opened, neither of which ever changes,
so no reader waits for a writer, or a writer for a reader. How the catalog is filled: `catalog.py`,
and kept up with the ledger: `kept_catalog.py`. How a file is written: `table_writer.py`; it is
compared with what was written before it is read: `table_files.py`.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import errno
import logging
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import polars as pl

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.storage.catalog import (
    build_catalog,
    column_types,
    export_catalog,
    fill_catalog,
)
from mechinterp_assets.storage.conform import conform
from mechinterp_assets.storage.declarations import (
    SQL_FOLDER,
    Declarations,
    TableSpec,
    declarations,
    find_table,
    polars_schema,
)
from mechinterp_assets.storage.disk_space import told_when_full
from mechinterp_assets.storage.files import (
    replace_durably,
    run_label,
    work_folder,
)
from mechinterp_assets.storage.kept_catalog import DATABASE_NAME, KeptCatalog
from mechinterp_assets.storage.lake_error import LakeError
from mechinterp_assets.storage.ledger import Commit, Ledger, Snapshot, StoredFile, Version
from mechinterp_assets.storage.observations import Begun, Observation
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.quarantine import set_aside
from mechinterp_assets.storage.sql_text import quote_text
from mechinterp_assets.storage.table_files import (
    check_version,
    number_of,
    read_version,
    table_files,
)
from mechinterp_assets.storage.table_writer import PreparedFile, prepare_file

_log = logging.getLogger("mechinterp")

__all__ = ["DATABASE_NAME", "KEEP_SECONDS", "Frames", "Lake", "LakeError", "Published"]

KEEP_SECONDS = 7 * 24 * 3600.0
_PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GLOB_CHARACTERS = re.compile(r"[*?\[\]{}]")
# Statements that read more than current versions.
_HISTORY = re.compile(r"\b(history|table_version)\b")
# What the system answers where nothing can be written; reading goes on.
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

# The rows of one table: all at once, or one after the other.
Frames = pl.DataFrame | Iterable[pl.DataFrame]


@dataclass(frozen=True)
class Published:
    """One version that was written: where, as what number, with which content."""

    path: Path
    version: int
    data_version: str
    rows: int
    bytes: int


class Lake:
    """Tables under the folder `root`, as declared in `sql`.

    Safe for any number of processes and threads at once, on a local disk or a shared file system
    with POSIX locks.

    Args:
        root: folder of the lake; made on the first write.
        keep_seconds: how long a version stays after its successor appeared, which is also how long
            a reader of an old catalog or a lazy frame can count on its files.
        sql: folder of the declarations.
    """

    def __init__(
        self, root: Path | str, keep_seconds: float = KEEP_SECONDS, sql: Path = SQL_FOLDER
    ) -> None:
        self.root = Path(root).resolve()
        self.keep_seconds = keep_seconds
        self._sql = sql
        self._ledger = Ledger(self.root / "ledger.sqlite")
        self._catalog = KeptCatalog(self.root, self._ledger, lambda: self.declared)
        if _GLOB_CHARACTERS.search(str(self.root)):
            raise LakeError(
                f"the lake's folder {self.root} has one of * ? [ ] {{ }} in its name, which DuckDB"
                " reads as a pattern; choose another folder"
            )

    @property
    def database(self) -> Path:
        """The catalog, for the DuckDB command line and other programs."""
        return self._catalog.path

    def catalog_state(self) -> tuple[int, int] | None:
        """Something that differs after every write; None where nothing was written yet."""
        # Every write swaps in a new catalog: a new file under the old name.
        try:
            state = self.database.stat()
        except FileNotFoundError:  # lost, or nothing was written
            changes = self._ledger.changes()
            return (0, changes) if changes else None
        return state.st_ino, state.st_mtime_ns

    @property
    def declared(self) -> Declarations:
        """The declarations as they are in the `sql` folder now."""
        return declarations(self._sql)

    # Writing

    def write(
        self,
        table: str,
        partition: str,
        frame: pl.DataFrame,
        provenance: Provenance,
        inputs: Mapping[str, str] | None = None,
    ) -> Published:
        """Publish `frame` as the next version of one partition and make it current.

        Args:
            table: a declared table.
            partition: partition key (letters, digits, `.`, `_`, `-`), such as `organism.L00`.
            frame: exactly the declared columns without `study` and provenance, in any order.
            provenance: where the rows come from; becomes columns and file metadata.
            inputs: data version of each input, under `<table>/<partition>` for inputs in this lake
                (these are what `stale_partitions` compares) and any name for others.

        Raises:
            FrameError: the frame does not fit the declaration; nothing was written.
            LakeError: see `write_many`.
        """
        return self.write_many({table: frame}, partition, provenance, inputs)[table]

    def write_many(
        self,
        frames: Mapping[str, Frames],
        partition: str,
        provenance: Provenance,
        inputs: Mapping[str, str] | None = None,
    ) -> dict[str, Published]:
        """Publish one partition of several tables; they become current together.

        A table's rows are one frame, or an iterable of frames that is gone through once while the
        file is written, so that a table may be larger than memory. Content, data version and
        guarantees are the same either way.

        Guaranteed: one ledger commit makes all the versions current, so every catalog and every
        reader sees all of them or none. A process killed before that commit has published nothing;
        its files are removed by a later write. One killed after it has published everything, though
        the catalog on disk shows it only from the next write, `refresh` or `connect` on.

        Raises:
            FrameError: a frame does not fit its declaration; nothing was written.
            DeclarationError: an undeclared table, or SQL that is broken; nothing was written.
            LakeError: a bad partition key, or a ledger that is lost, damaged or older than the
                tables; nothing was published.
            DiskFullError: there was no space; nothing was published.

        A catalog that could not be brought up to date afterwards is a warning: the data are
        published, and whoever reads or writes next brings it up to date.
        """
        if not _PARTITION.fullmatch(partition):
            raise LakeError(
                f"partition {partition!r} cannot name a folder: use letters, digits, . _ -"
                " and start with a letter or digit"
            )
        declared = self.declared
        specs = {name: find_table(name, declared.tables) for name in frames}
        # Whole frames are checked before anything is written, streamed ones as they come.
        conformed = {
            name: [conform(rows, specs[name])]
            if isinstance(rows, pl.DataFrame)
            else map(partial(conform, spec=specs[name]), rows)
            for name, rows in frames.items()
        }
        self._check_ledger()
        self._check_age()
        recorded = dict(inputs or {})
        with told_when_full(self.root), work_folder(self.root) as folder:
            prepared = [
                prepare_file(spec, conformed.pop(name), folder, provenance, recorded)
                for name, spec in specs.items()
            ]
            published = self._publish(prepared, partition, provenance, recorded)
        try:
            self._catalog.refresh_if_behind(keep_up_with=self._ledger.changes())
            self._remove_superseded()
        except Exception as error:
            _log.warning(
                "%s of %s were published; the catalog %s was not brought up to date (%s), which the"
                " next reader or writer will do",
                ", ".join(frames),
                partition,
                self.database,
                error,
            )
        return published

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the lake's disk for what is larger than memory, removed at the end.

        What a killed process leaves there is removed by a later write.
        """
        with work_folder(self.root) as folder:
            yield folder

    def _publish(
        self,
        prepared: Sequence[PreparedFile],
        partition: str,
        provenance: Provenance,
        inputs: dict[str, str],
    ) -> dict[str, Published]:
        """Move prepared files to their final names and make them current by one commit."""
        moved: list[Path] = []
        try:
            with self._commit() as commit:
                return {
                    item.spec.name: self._add(commit, item, partition, provenance, inputs, moved)
                    for item in prepared
                }
        except Exception:
            # Nothing was committed, unless the commit's last step failed in a way that nobody can
            # tell: files on record stay.
            with suppress(Exception):
                stored = {
                    version.file for version in self._ledger.stored(i.spec.name for i in prepared)
                }
                for path in moved:
                    if self._relative(path) not in stored:
                        path.unlink(missing_ok=True)
            raise

    def _add(
        self,
        commit: Commit,
        item: PreparedFile,
        partition: str,
        provenance: Provenance,
        inputs: dict[str, str],
        moved: list[Path],
    ) -> Published:
        """Move a prepared file to its final name and record it."""
        table = item.spec.name
        folder = self.root / table / partition
        folder.mkdir(parents=True, exist_ok=True)
        number = self._free_number(commit, table, partition, folder)
        target = folder / f"v{number:08d}-{run_label(provenance.run_id)}.parquet"
        size = item.file.stat().st_size
        moved.append(target)
        replace_durably(item.file, target)
        commit.add(
            Version(
                table=table,
                partition=partition,
                version=number,
                file=self._relative(target),
                data_version=item.data_version,
                rows=item.rows,
                bytes=size,
                provenance=provenance,
                formula_version=item.spec.formula_version,
                inputs=inputs,
                columns=column_types(item.spec.stored_columns),
                written_at=time.time(),
                sha256=item.sha256,
            )
        )
        return Published(target, number, item.data_version, item.rows, size)

    def _free_number(self, commit: Commit, table: str, partition: str, folder: Path) -> int:
        """The number of the next version, after setting aside files that the ledger does not know.

        Nobody else publishes under the ledger's lock, so an unknown file is one that a killed
        process had completed and not yet recorded, with the number that would have been next. Its
        number is not given again, in case it is of an older ledger that was put back, just one
        version ago. A number beyond the next one, which only a newer ledger can have given, is
        refused.
        """
        number = commit.next_version(table, partition)
        stored = commit.stored_files(table, partition)
        prefix = f"{table}/{partition}/"
        unknown = {}
        for name in os.listdir(folder):
            found = number_of(name)
            if found is None or prefix + name in stored:
                continue
            if commit.is_on_record(table, partition, found, prefix + name):
                (folder / name).unlink(missing_ok=True)  # its time was over, its remover killed
            else:
                unknown[name] = found
        highest = max(unknown.values(), default=0)
        if highest > number:
            raise LakeError(
                f"{folder} has version {highest}, and the ledger knows {number - 1}:"
                f" {self._older_ledger}"
            )
        for name in sorted(unknown):
            place = set_aside(self.root, folder / name)
            _log.warning(
                "%s is not on record, as its writer was killed or an older ledger was put back:"
                " moved it to %s; remove it if nobody misses it",
                folder / name,
                place,
            )
        return max(number, highest + 1)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    # Reading

    def read(self, table: str, partition: str | Sequence[str] | None = None) -> pl.LazyFrame:
        """Current rows of one partition, several, or all (None), with every stored column.

        The frame keeps reading the versions that are current now, whatever is written later. Their
        files are compared with what was written, once per file and process.

        Raises:
            LakeError: a partition that was named, or with None the whole table, has no data; or a
                file is damaged.
        """
        spec = find_table(table, self.declared.tables)
        wanted = [partition] if isinstance(partition, str) else partition
        current = self._checked(lambda: self._ledger.current(table, wanted))
        found = {version.partition: version for version in current}
        if missing := sorted(set(wanted or []) - found.keys()):
            raise LakeError(
                f"{table} has no data for {', '.join(missing)} in {self.root};"
                f" materialize the asset {table} for it"
                f" (there are: {', '.join(sorted(self.partitions(table))) or 'no partitions'})"
            )
        if not found and wanted is None:
            raise LakeError(f"{table} has no data in {self.root}; materialize the asset {table}")
        schema = polars_schema(spec, stored=True)
        frames = [self._scan(version, schema, spec) for version in found.values()]
        return pl.concat(frames) if frames else pl.LazyFrame(schema=schema)

    def read_version(self, version: Version) -> pl.LazyFrame:
        """Rows of one kept version (see `versions`), with every stored column.

        Raises:
            LakeError: its file is damaged, or no longer kept.
        """
        spec = find_table(version.table, self.declared.tables)
        check_version(self.root, version)
        return self._scan(version, polars_schema(spec, stored=True), spec)

    def _scan(self, version: Version, schema: pl.Schema, spec: TableSpec) -> pl.LazyFrame:
        frame = pl.scan_parquet(self.root / version.file, glob=False)
        if version.columns == column_types(spec.stored_columns):
            return frame
        stored = dict(version.columns)
        return frame.select(
            (
                pl.col(name).cast(dtype, strict=False)
                if name in stored
                else pl.lit(None, dtype=dtype).alias(name)
            )
            for name, dtype in schema.items()
        )

    def verify_tables(
        self, tables: Iterable[str], study: str | None = None, *, content: bool = True
    ) -> None:
        """Check the files of the current versions of some tables, as before reading them in SQL.

        Args:
            tables: their names.
            study: only of this study.
            content: see `check_version` of table_files.py; each file once per process.

        Raises:
            LakeError: naming the first file that is not as it was written.
        """
        names = list(tables)
        self._checked(lambda: self._ledger.current_of(names, study), content=content)

    def verify(self) -> Iterator[tuple[Version, str | None]]:
        """Check every byte of every stored version; each with what is wrong with it, or None.

        The SHA-256 of files that were written before files were hashed is recorded at the end, so
        that they are checked faster from then on.
        """
        hashes: list[tuple[Version, str]] = []
        for version in self._ledger.stored():
            try:
                check_version(self.root, version)
            except LakeError as error:
                if self._is_stored(version):
                    yield version, str(error)
                continue
            if version.sha256 is None:
                hashes.append((version, file_sha256(self.root / version.file)))
            yield version, None
        if hashes:
            try:
                with self._commit() as commit:
                    commit.set_hashes(hashes)
            except (OSError, sqlite3.OperationalError) as error:
                _log.warning("the hashes of %d files were not recorded: %s", len(hashes), error)

    def _is_stored(self, version: Version) -> bool:
        kept = self.versions(version.table, version.partition)
        return version.version in {one.version for one in kept}

    def check_ledger(self) -> None:
        """Check the ledger: a lost, damaged or older one is a LakeError."""
        self._check_ledger()
        self._ledger.check()
        self._check_age()

    def unknown_files(self) -> list[Path]:
        """Files of versions that are not on record; a write of their partition sets them aside."""
        stored = {version.file for version in self._ledger.stored()}
        return [path for path in table_files(self.root) if self._relative(path) not in stored]

    def _checked(self, find: Callable[[], list[Version]], *, content: bool = True) -> list[Version]:
        """The versions that `find` gives, after checking their files."""
        while True:
            found = find()
            for version in found:
                try:
                    check_version(self.root, version, content=content)
                except LakeError:
                    if self._is_stored(version):
                        raise
                    break  # superseded long ago and removed between the two looks: look again
            else:
                return found

    def is_empty(self) -> bool:
        """Whether no table was ever written here; asking makes no folder.

        Raises:
            LakeError: there are tables without their ledger.
        """
        self._check_ledger()
        return not self._ledger.has_versions()

    def exists(self, table: str, partition: str) -> bool:
        """Whether the partition has a current version."""
        return self.find_current(table, partition) is not None

    def partitions(self, table: str) -> list[str]:
        """Keys of the partitions that have data."""
        return self._ledger.partitions(table)

    def find_current(self, table: str, partition: str) -> Version | None:
        """The current version of a partition, if it has one."""
        return next(iter(self._ledger.current(table, [partition])), None)

    def current(self, table: str, partition: str) -> Version:
        """The current version of a partition, with its provenance, inputs and size.

        Raises:
            LakeError: the partition has no data.
        """
        found = self.find_current(table, partition)
        if found is None:
            raise LakeError(
                f"{table} has no data for {partition} in {self.root};"
                f" materialize the asset {table} for it"
            )
        return found

    def data_version(self, table: str, partition: str) -> str:
        """Content hash of the current version; a missing partition is a LakeError."""
        return self.current(table, partition).data_version

    def inputs(self, table: str, partition: str) -> dict[str, str]:
        """Data versions that the current version was computed from; without one a LakeError."""
        return self.current(table, partition).inputs

    def current_of(self, tables: Iterable[str]) -> list[Version]:
        """Current versions of all partitions of several tables, as of one instant."""
        return self._ledger.current_of(tables)

    def versions(self, table: str, partition: str) -> list[Version]:
        """Versions that are still stored, oldest first; the last is the current one."""
        return self._ledger.versions(table, partition)

    @contextmanager
    def connect(
        self, exactly: Sequence[Version] | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection to the catalog as of now, in which nobody else can interfere.

        The catalog is attached read-only as `mechinterp` to a private in-memory database; TEMP
        tables can be made. Nothing that others have open blocks it, and it blocks nobody. Where
        nothing can be written (a read-only or full disk) and the catalog is behind, it is built in
        memory.

        The files that statements will read are not checked; see `verify_tables`.

        Args:
            exactly: the versions that the views of their tables must show; where others are
                current by now, the connection has a catalog of its own with these tables alone.
        """
        with ExitStack() as stack:
            snapshot = self._snapshot(stack)
            con = stack.enter_context(duckdb.connect())
            if snapshot is not None and not _attach(con, snapshot):
                # Damaged where its size and time do not tell: build it again.
                snapshot = self._snapshot(stack, anew=True)
                con = stack.enter_context(duckdb.connect())
                if snapshot is not None and not _attach(con, snapshot):
                    raise LakeError(f"the catalog that was built at {snapshot} cannot be opened")
            if snapshot is None:
                con.execute("ATTACH ':memory:' AS mechinterp")
                con.execute("USE mechinterp")
                fill_catalog(con, self.root, self.declared, self._ledger.snapshot())
            if exactly is not None and not _shows(con, exactly):
                con = stack.enter_context(duckdb.connect())
                con.execute("ATTACH ':memory:' AS mechinterp")
                con.execute("USE mechinterp")
                fill_catalog(con, self.root, self.declared, _snapshot_of(exactly))
            yield con

    def sql(
        self,
        query: str,
        parameters: Sequence[object] | Mapping[str, object] | None = None,
        *,
        exactly: Sequence[Version] | None = None,
    ) -> pl.DataFrame:
        """Result of one query on the catalog as of now; `exactly` as in `connect`.

        The files that it reads are compared with what was written, once per file and process: where
        the parameters name a `study`, those of this study.

        Raises:
            LakeError: a file is damaged.
        """
        named = parameters.get("study") if isinstance(parameters, Mapping) else None
        with self.connect(exactly) as con:
            self._verify_read(query, None if named is None else str(named), exactly)
            frame: pl.DataFrame = con.sql(query, params=parameters).pl()
            return frame

    def query(
        self, statement: str, study: str, *, exactly: Sequence[Version] | None = None
    ) -> pl.DataFrame:
        """As `sql`, of a statement that reads the DuckDB variable `study`, as worked queries do."""
        with self.connect(exactly) as con:
            self._verify_read(statement, study, exactly)
            con.execute(f"SET VARIABLE study = {quote_text(study)}")
            frame: pl.DataFrame = con.sql(statement).pl()
            return frame

    def _verify_read(
        self, statement: str, study: str | None, exactly: Sequence[Version] | None
    ) -> None:
        """Check the files that a statement reads."""
        declared = self.declared
        if exactly is not None:
            for version in exactly:
                if study in (None, version.provenance.study):
                    check_version(self.root, version)
            return
        self.verify_tables(declared.tables_read(statement), study)
        if _HISTORY.search(statement):
            named = [name for name in declared.tables if re.search(rf"\b{name}\b", statement)]
            self._checked(lambda: self._ledger.stored(named))

    # What studies ask for

    def observe(self, now: Observation) -> bool:
        """Record what studies ask for now, which `stale_partitions` compares with what was made.

        Returns:
            Whether that differs from what was recorded before.
        """
        self._check_ledger()
        before = self._ledger.observation()
        if before is not None and before.asks_for_the_same(now):
            return False
        with self._commit() as commit:
            commit.observe(now)
        return True

    def begin(self, begun: Iterable[Begun]) -> None:
        """Record that a run begins to make partitions; publishing them ends that, or giving up."""
        self._check_ledger()
        with self._commit() as commit:
            commit.begin(begun)

    def begun(self) -> tuple[Begun, ...]:
        """What runs have begun and neither published nor given up."""
        return self._ledger.begun()

    def give_up(self, run_id: str) -> None:
        """Forget what a run began, as when it fails; a killed one leaves it to be finished."""
        with self._commit() as commit:
            commit.give_up(run_id)

    def _snapshot(self, stack: ExitStack, *, anew: bool = False) -> Path | None:
        """A catalog file as of now that stays until `stack` ends; None if none can be made."""
        self._check_ledger()
        changes = self._ledger.changes()
        try:
            self._catalog.refresh_if_behind(None if anew else changes)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            if anew or not self._catalog.is_up_to_date(changes):
                return None
        # A path of its own, since DuckDB gives one process one instance per path, however old.
        try:
            snapshot = stack.enter_context(work_folder(self.root)) / DATABASE_NAME
            os.link(self._catalog.private, snapshot)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            return self._catalog.private
        return snapshot

    # Catalog

    def refresh(self) -> None:
        """Rebuild the catalog, as after the lake's folder was moved or the SQL files changed."""
        self._check_ledger()
        self._catalog.refresh_if_behind(keep_up_with=None)
        self._remove_superseded()

    def export(self, path: Path | str) -> Path:
        """Write all current rows to one DuckDB file at `path` that needs no other file.

        It has real tables in place of views over Parquet; column comments and views are kept. An
        existing file is replaced at the end, by rename. Every file that is read is compared with
        what was written; a damaged one is a LakeError.
        """
        target = Path(path).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with told_when_full(target), ExitStack() as stack:
            snapshot = self._snapshot(stack)
            if snapshot is None:
                snapshot = stack.enter_context(work_folder(target.parent)) / DATABASE_NAME
                build_catalog(snapshot, self.root, self.declared, self._ledger.snapshot())
            self.verify_tables(self.declared.tables)
            try:
                export_catalog(snapshot, made, self.declared)
                replace_durably(made, target)
            finally:
                made.unlink(missing_ok=True)
        return target

    def rebuild(self) -> int:
        """Make the ledger again from what the Parquet files say; returns how many versions.

        For a lake whose `ledger.sqlite` is gone, damaged or older than the tables. A ledger that is
        there is set aside as `ledger.sqlite.<time>`, and so are files that cannot be read, in the
        quarantine. A partition's highest version becomes current, which may be one that a killed
        process had completed and not yet published. Nobody may write meanwhile.

        Raises:
            LakeError: the ledger is whole and knows every file.
        """
        ledger = self.root / "ledger.sqlite"
        if ledger.exists() and self._is_whole():
            raise LakeError(f"{ledger} is whole and knows every file: there is nothing to rebuild")
        found = []
        for path in table_files(self.root):
            try:
                found.append(read_version(path, self.root))
            except LakeError as error:
                _log.warning("%s: moved it to %s", error, set_aside(self.root, path))
        found.sort(key=lambda version: (version.table, version.partition, version.version))
        with told_when_full(self.root), work_folder(self.root) as folder:
            fresh = folder / ledger.name
            with Ledger(fresh).commit() as commit:
                for version in found:
                    # Superseded now: each stays for its time, whatever the files' times are.
                    commit.add(version, superseding_at=time.time())
            # What the state says of the old ledger's changes means nothing for the new one.
            self._catalog.forget()
            stamp = time.strftime("%Y%m%dT%H%M%S")
            # A journal that the old ledger left would be played back into the new one.
            for old in (ledger, ledger.with_name(f"{ledger.name}-journal")):
                if old.exists():
                    os.rename(old, old.with_name(f"{old.name}.{stamp}"))
            replace_durably(fresh, ledger)
        self.refresh()
        return len(found)

    def _is_whole(self) -> bool:
        """Whether the ledger can be read, is the newest one and knows every file."""
        try:
            self._ledger.check()
            self._check_age()
            return not self.unknown_files()
        except LakeError:
            return False

    def _remove_superseded(self) -> None:
        """Remove versions whose successor appeared more than `keep_seconds` ago.

        The ledger and the catalog drop them first, so no new reader is led to a removed file.
        """
        if self._is_older() or not self._ledger.superseded_before(time.time() - self.keep_seconds):
            return
        with self._commit() as commit:
            now = time.time()
            expired = self._ledger.superseded_before(now - self.keep_seconds)
            commit.remove(expired, now)
        self._catalog.refresh_if_behind(keep_up_with=self._ledger.changes())
        for version in expired:
            (self.root / version.file).unlink(missing_ok=True)

    def _check_ledger(self) -> None:
        """Refuse to start a new ledger over tables that an old one published."""
        if (self.root / "ledger.sqlite").exists() or not self.root.is_dir():
            return
        if stray := next(table_files(self.root), None):
            raise LakeError(
                f"{self.root} has tables (such as {self._relative(stray)}) but no ledger.sqlite;"
                " bring it back from where the folder was copied, or `mechinterp rebuild` makes it"
                " again from the tables"
            )

    @contextmanager
    def _commit(self) -> Iterator[Commit]:
        """A commit of the ledger, refused where it is an older one that was put back.

        Every commit goes through here: one on an older ledger would raise its count, by which it is
        known to be older.
        """
        self._check_age()
        with self._ledger.commit() as commit:
            yield commit

    def _is_older(self) -> bool:
        """Whether the ledger has fewer changes than a catalog was once made of."""
        return self._catalog.is_of_a_newer_ledger()

    def _check_age(self) -> None:
        """Refuse an older ledger that was put back: versions would be published over newer ones."""
        if self._is_older():
            raise LakeError(self._older_ledger)

    @property
    def _older_ledger(self) -> str:
        return (
            f"{self.root / 'ledger.sqlite'} is older than the tables, some of which it does not"
            " know; put the newest one back, or `mechinterp rebuild` makes it again from the tables"
        )


def _attach(con: duckdb.DuckDBPyConnection, catalog: Path) -> bool:
    """Attach a catalog file and use it; False if it is damaged."""
    try:
        con.execute(f"ATTACH {quote_text(str(catalog))} AS mechinterp (READ_ONLY)")
        con.execute("USE mechinterp")
    except duckdb.Error:
        return False
    return True


def _shows(con: duckdb.DuckDBPyConnection, exactly: Sequence[Version]) -> bool:
    """Whether the catalog's views of the versions' tables show these and no others."""
    tables = sorted({version.table for version in exactly})
    shown = con.execute(
        "SELECT table_name, partition, version FROM versions"
        " WHERE is_current AND list_contains(?, table_name)",
        [tables],
    ).fetchall()
    return set(shown) == {(v.table, v.partition, v.version) for v in exactly}


def _snapshot_of(versions: Sequence[Version]) -> Snapshot:
    """A ledger's snapshot in which these versions are all that is stored, and current."""
    files = [StoredFile(v.table, v.file, v.columns, is_current=True) for v in versions]
    tables = frozenset(version.table for version in versions)
    return Snapshot(0, tables, tuple(versions), (), tuple(files))
