"""The lake: every table of the platform as immutable Parquet versions under a DuckDB catalog.

    <root>/<table>/<partition>/v00000003-<run>.parquet   one version; never changed once published
    <root>/ledger.sqlite                                 which versions are published and current
    <root>/mechinterp.duckdb                             views over exactly the current files
    <root>/.catalog/  <root>/.work/                      the catalog's twin; unfinished files

A write makes files under names of their own, then publishes them by one ledger commit, then swaps
in a new catalog. Readers hold the catalog or the files they opened, neither of which ever changes,
so no reader waits for a writer, or a writer for a reader. How the catalog is filled: `catalog.py`.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mechinterp_assets.storage.catalog import (
    build_catalog,
    column_types,
    export_catalog,
    update_catalog,
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
from mechinterp_assets.storage.files import (
    fsync,
    locked,
    replace_durably,
    run_label,
    sweep_work_folders,
    work_folder,
)
from mechinterp_assets.storage.hashes import ContentHash
from mechinterp_assets.storage.ledger import Commit, Ledger, Version
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.sql_text import quote_text

DATABASE_NAME = "mechinterp.duckdb"
KEEP_SECONDS = 7 * 24 * 3600.0
# A reader of few rows decodes whole row groups, so wide rows (lists) make shorter ones.
_ROW_GROUP_ROWS = 250_000
_ROW_GROUP_BYTES = 8 * 2**20
_PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GLOB_CHARACTERS = re.compile(r"[*?\[\]{}]")
# Where a write-ahead log of the catalog would go leads nowhere; see `Lake._guard_against_writers`.
_GUARD_TARGET = "the-catalog-is-rebuilt-by-every-write/attach-it-to-a-database-of-your-own"

# The rows of one table: all at once, or one after the other.
Frames = pl.DataFrame | Iterable[pl.DataFrame]


class LakeError(RuntimeError):
    """The lake cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class Published:
    """One version that was written: where, as what number, with which content."""

    path: Path
    version: int
    data_version: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class _Prepared:
    """A complete file under a temporary name, not yet published."""

    spec: TableSpec
    file: Path
    data_version: str
    rows: int


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
        if _GLOB_CHARACTERS.search(str(self.root)):
            raise LakeError(
                f"the lake's folder {self.root} has one of * ? [ ] {{ }} in its name, which DuckDB"
                " reads as a pattern; choose another folder"
            )

    @property
    def database(self) -> Path:
        """The catalog, for the DuckDB command line and other programs."""
        return self.root / DATABASE_NAME

    def catalog_state(self) -> tuple[int, int] | None:
        """Something that differs after every write; None where nothing was written yet."""
        # Every write swaps in a new catalog: a new file under the old name.
        try:
            state = self.database.stat()
        except FileNotFoundError:
            return None
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
            LakeError: a bad partition key; or the data were published but the catalog could not be
                rebuilt (the message says so).
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
        recorded = dict(inputs or {})
        with work_folder(self.root) as folder:
            prepared = [
                _prepare(spec, conformed.pop(name), folder, provenance, recorded)
                for name, spec in specs.items()
            ]
            with self._ledger.commit() as commit:
                published = {
                    item.spec.name: self._publish(commit, item, partition, provenance, recorded)
                    for item in prepared
                }
        try:
            self._refresh_if_behind(keep_up_with=self._ledger.changes())
            self._remove_superseded()
        except Exception as error:
            raise LakeError(
                f"{', '.join(frames)} of {partition} were published, but the catalog"
                f" {self.database} was not brought up to date: {error}"
            ) from error
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
        commit: Commit,
        item: _Prepared,
        partition: str,
        provenance: Provenance,
        inputs: dict[str, str],
    ) -> Published:
        """Move a prepared file to its final name and record it.

        Under the ledger's lock nobody else publishes, so any file here that the ledger does not
        know is what a killed process left, and may go.
        """
        table = item.spec.name
        folder = self.root / table / partition
        folder.mkdir(parents=True, exist_ok=True)
        known = commit.known_files(table, partition)
        for path in folder.glob("v*.parquet"):
            if str(path.relative_to(self.root)) not in known:
                path.unlink(missing_ok=True)
        number = commit.next_version(table, partition)
        target = folder / f"v{number:08d}-{run_label(provenance.run_id)}.parquet"
        size = item.file.stat().st_size
        replace_durably(item.file, target)
        commit.add(
            Version(
                table=table,
                partition=partition,
                version=number,
                file=str(target.relative_to(self.root)),
                data_version=item.data_version,
                rows=item.rows,
                bytes=size,
                provenance=provenance,
                formula_version=item.spec.formula_version,
                inputs=inputs,
                columns=column_types(item.spec.stored_columns),
                written_at=time.time(),
            )
        )
        return Published(target, number, item.data_version, item.rows, size)

    # Reading

    def read(self, table: str, partition: str | Sequence[str] | None = None) -> pl.LazyFrame:
        """Current rows of one partition, several, or all (None), with every stored column.

        The frame keeps reading the versions that are current now, whatever is written later.

        Raises:
            LakeError: a partition that was named, or with None the whole table, has no data.
        """
        spec = find_table(table, self.declared.tables)
        wanted = [partition] if isinstance(partition, str) else partition
        found = {v.partition: v for v in self._ledger.current(table, wanted)}
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
        """Rows of one kept version (see `versions`), with every stored column."""
        spec = find_table(version.table, self.declared.tables)
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

    def is_empty(self) -> bool:
        """Whether nothing was ever written here; asking makes no folder.

        Raises:
            LakeError: there are tables without their ledger.
        """
        self._check_ledger()
        return self._ledger.changes() == 0

    def exists(self, table: str, partition: str) -> bool:
        """Whether the partition has a current version."""
        return bool(self._ledger.current(table, [partition]))

    def partitions(self, table: str) -> list[str]:
        """Keys of the partitions that have data."""
        return [version.partition for version in self._ledger.current(table)]

    def current(self, table: str, partition: str) -> Version:
        """The current version of a partition, with its provenance, inputs and size.

        Raises:
            LakeError: the partition has no data.
        """
        found = self._ledger.current(table, [partition])
        if not found:
            raise LakeError(
                f"{table} has no data for {partition} in {self.root};"
                f" materialize the asset {table} for it"
            )
        return found[0]

    def data_version(self, table: str, partition: str) -> str:
        """Content hash of the current version; a missing partition is a LakeError."""
        return self.current(table, partition).data_version

    def inputs(self, table: str, partition: str) -> dict[str, str]:
        """Data versions that the current version was computed from; without one a LakeError."""
        return self.current(table, partition).inputs

    def versions(self, table: str, partition: str) -> list[Version]:
        """Versions that are still stored, oldest first; the last is the current one."""
        return self._ledger.versions(table, partition)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection to the catalog as of now, in which nobody else can interfere.

        The catalog is attached read-only as `mechinterp` to a private in-memory database; TEMP
        tables can be made. Nothing that others have open blocks it, and it blocks nobody.
        """
        self._check_ledger()
        self._refresh_if_behind(keep_up_with=self._ledger.changes())
        with work_folder(self.root) as folder:
            snapshot = folder / DATABASE_NAME
            # A path of its own, since DuckDB gives one process one instance per path, however old.
            os.link(self._private_catalog, snapshot)
            with duckdb.connect() as con:
                con.execute(f"ATTACH {quote_text(str(snapshot))} AS mechinterp (READ_ONLY)")
                con.execute("USE mechinterp")
                yield con

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> pl.DataFrame:
        """Result of one query on the catalog as of now."""
        with self.connect() as con:
            frame: pl.DataFrame = con.sql(query, params=parameters).pl()
            return frame

    def query(self, statement: str, study: str) -> pl.DataFrame:
        """Result of a statement that reads the DuckDB variable `study`, as worked queries do."""
        with self.connect() as con:
            con.execute(f"SET VARIABLE study = {quote_text(study)}")
            frame: pl.DataFrame = con.sql(statement).pl()
            return frame

    # Catalog

    def refresh(self) -> None:
        """Rebuild the catalog, as after the lake's folder was moved or the SQL files changed."""
        self._check_ledger()
        self._refresh_if_behind(keep_up_with=None)
        self._remove_superseded()

    def export(self, path: Path | str) -> Path:
        """Write all current rows to one DuckDB file at `path` that needs no other file.

        It has real tables in place of views over Parquet; column comments and views are kept. An
        existing file is replaced at the end, by rename.
        """
        target = Path(path).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        self._check_ledger()
        self._refresh_if_behind(keep_up_with=self._ledger.changes())
        made = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with work_folder(self.root) as folder:
            snapshot = folder / DATABASE_NAME
            os.link(self._private_catalog, snapshot)
            try:
                export_catalog(snapshot, made, self.declared)
                replace_durably(made, target)
            finally:
                made.unlink(missing_ok=True)
        return target

    def rebuild(self) -> int:
        """Make a lost ledger again from what the Parquet files say; returns how many versions.

        For a lake whose `ledger.sqlite` is gone. A partition's highest version becomes current,
        which may be one that a killed process had completed and not yet published.

        Raises:
            LakeError: there is a ledger.
        """
        if (self.root / "ledger.sqlite").exists():
            raise LakeError(f"{self.root} has a ledger; only a lake without one can be rebuilt")
        found = sorted(self.root.glob("*/*/v*.parquet"))
        with self._ledger.commit() as commit:
            for path in found:
                commit.add(_read_version(path, self.root))
        self.refresh()
        return len(found)

    @property
    def _private_catalog(self) -> Path:
        # Same content as `database`, which others may open for writing and so lock.
        return self.root / ".catalog" / DATABASE_NAME

    @property
    def _catalog_state(self) -> Path:
        return self.root / ".catalog" / "state"

    def _refresh_if_behind(self, keep_up_with: int | None) -> None:
        """Swap in a new catalog unless it already shows ledger change `keep_up_with`.

        None builds it from nothing; otherwise only tables that changed since are built anew, which
        keeps a write fast in a lake of many files. Waiting writers are served by one rebuild, as it
        shows whatever was committed before it.
        """
        if self._is_up_to_date(keep_up_with):
            return
        with locked(self.root / ".catalog" / "lock"):
            if self._is_up_to_date(keep_up_with):
                return
            declared = self.declared
            shown = None if keep_up_with is None else self._shown_change()
            with work_folder(self.root) as folder:
                made = folder / DATABASE_NAME
                if shown is None:
                    now = self._ledger.snapshot()
                    build_catalog(made, self.root, declared, now.versions)
                else:
                    now = self._ledger.snapshot(since=shown)
                    shutil.copyfile(self._private_catalog, made)
                    update_catalog(made, self.root, declared, now.tables, now.versions)
                copy = folder / "copy.duckdb"
                shutil.copyfile(made, copy)
                state = folder / "state"
                state.write_text(f"{now.changes} {self._built_from()}")
                self._guard_against_writers()
                # The state comes last: after a crash it may say less than the catalog shows.
                replace_durably(copy, self._private_catalog)
                replace_durably(made, self.database)
                replace_durably(state, self._catalog_state)
            sweep_work_folders(self.root)

    def _built_from(self) -> str:
        return f"{self.declared.fingerprint} {self.root}"

    def _shown_change(self) -> int | None:
        """The ledger change that the catalog shows; None if it must be built anew."""
        if not self._private_catalog.exists() or not self.database.exists():
            return None
        try:
            change, built_from = self._catalog_state.read_text().split(" ", 1)
        except FileNotFoundError:
            return None
        # More than the ledger has: an older ledger was put back.
        known = int(change) <= self._ledger.changes()
        return int(change) if known and built_from == self._built_from() else None

    def _is_up_to_date(self, keep_up_with: int | None) -> bool:
        if keep_up_with is None:
            return False
        shown = self._shown_change()
        return shown is not None and shown >= keep_up_with

    def _guard_against_writers(self) -> None:
        """Keep others from writing to the catalog, which the next rebuild would throw away.

        DuckDB puts the write-ahead log of `X.duckdb` at `X.duckdb.wal`. Left by someone who wrote
        to an older catalog, that log does not match the new one, and then nobody can open it. A
        link that leads nowhere makes such a write fail, and disturbs no reader.
        """
        log = self.database.with_name(f"{DATABASE_NAME}.wal")
        if log.is_symlink():
            return
        log.unlink(missing_ok=True)
        log.symlink_to(_GUARD_TARGET)

    def _remove_superseded(self) -> None:
        """Remove versions whose successor appeared more than `keep_seconds` ago.

        The ledger and the catalog drop them first, so no new reader is led to a removed file.
        """
        if not self._ledger.superseded_before(time.time() - self.keep_seconds):
            return
        with self._ledger.commit() as commit:
            now = time.time()
            expired = self._ledger.superseded_before(now - self.keep_seconds)
            commit.remove(expired, now)
        self._refresh_if_behind(keep_up_with=self._ledger.changes())
        for version in expired:
            (self.root / version.file).unlink(missing_ok=True)

    def _check_ledger(self) -> None:
        """Refuse to start a new ledger over tables that an old one published."""
        if (self.root / "ledger.sqlite").exists() or not self.root.is_dir():
            return
        if stray := next(self.root.glob("*/*/v*.parquet"), None):
            raise LakeError(
                f"{self.root} has tables (such as {stray.relative_to(self.root)}) but no"
                " ledger.sqlite; bring it back from where the folder was copied, or call rebuild()"
            )


def _prepare(
    spec: TableSpec,
    frames: Iterable[pl.DataFrame],
    folder: Path,
    provenance: Provenance,
    inputs: dict[str, str],
) -> _Prepared:
    """Write the complete file of a version under `folder` from conformed frames."""
    constants: dict[str, str | int | None] = {
        **provenance.as_dict(),
        "formula_version": spec.formula_version,
    }
    types = polars_schema(spec, stored=True)
    columns = [
        pl.lit(constants[name], dtype=dtype).alias(name) if name in constants else pl.col(name)
        for name, dtype in types.items()
    ]
    schema = polars_schema(spec)
    content = ContentHash(schema)
    file = folder / f"{spec.name}.parquet"
    arrow_schema = _arrow(pl.DataFrame(schema=types)).schema
    # Parquet's smallest and largest value leave out NaN, and DuckDB believes them: with statistics
    # `x > 1` and `isnan(x)` would miss the NaN of a column whose numbers are all below 1.
    exact = [name for name, dtype in types.items() if not (dtype.is_float() or dtype.is_nested())]
    with pq.ParquetWriter(file, arrow_schema, compression="zstd", write_statistics=exact) as writer:
        for group in _row_groups(frames, schema):
            content.update(group)
            # Constant columns never exist at the length of the table.
            writer.write_table(_arrow(group.select(columns)))
        data_version = content.hexdigest()
        writer.add_key_value_metadata(_file_metadata(spec, provenance, inputs, data_version))
    fsync(file)
    return _Prepared(spec, file, data_version, content.rows)


def _row_groups(frames: Iterable[pl.DataFrame], schema: pl.Schema) -> Iterator[pl.DataFrame]:
    """The rows of all frames, cut into row groups."""
    waiting = pl.DataFrame(schema=schema)
    for frame in frames:
        waiting = pl.concat([waiting, frame])
        row_bytes = waiting.estimated_size() / max(1, waiting.height)
        rows = max(1, min(_ROW_GROUP_ROWS, int(_ROW_GROUP_BYTES / max(1.0, row_bytes))))
        while waiting.height >= rows:
            yield waiting.head(rows)
            waiting = waiting.slice(rows)
    if waiting.height:
        yield waiting


def _arrow(frame: pl.DataFrame) -> pa.Table:
    """Arrow types that every Parquet reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _file_metadata(
    spec: TableSpec, provenance: Provenance, inputs: dict[str, str], data_version: str
) -> dict[str, str]:
    """Key-value metadata that lets a Parquet file be understood without the lake."""
    return {
        "mechinterp.table": spec.name,
        "mechinterp.data_version": data_version,
        "mechinterp.formula_version": str(spec.formula_version),
        "mechinterp.provenance": json.dumps(provenance.as_dict()),
        "mechinterp.inputs": json.dumps(inputs),
        "mechinterp.columns": json.dumps(column_types(spec.stored_columns)),
    }


def _read_version(path: Path, root: Path) -> Version:
    """What a Parquet file's metadata, name and place say about the version it holds."""
    metadata = pl.read_parquet_metadata(path)
    try:
        return Version(
            table=metadata["mechinterp.table"],
            partition=path.parent.name,
            version=int(path.name[1:9]),
            file=str(path.relative_to(root)),
            data_version=metadata["mechinterp.data_version"],
            rows=int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()),
            bytes=path.stat().st_size,
            provenance=Provenance(**json.loads(metadata["mechinterp.provenance"])),
            formula_version=int(metadata["mechinterp.formula_version"]),
            inputs=json.loads(metadata["mechinterp.inputs"]),
            columns=tuple((n, t) for n, t in json.loads(metadata["mechinterp.columns"])),
            written_at=path.stat().st_mtime,
        )
    except KeyError as error:
        raise LakeError(f"{path} was not written by the lake: it lacks {error}") from error
