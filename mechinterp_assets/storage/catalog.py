"""Building the DuckDB catalog: views over exactly the current Parquet files, and an export of them.

The views `<table>` and `history.<table>` have the comments; each selects from a macro of the schema
`files`, which has the files. So a write replaces two macros, and leaves views and comments alone.

Only how a catalog file is filled is here; when it is rebuilt and how it is swapped in is the
lake's part (`mechinterp_assets/storage/lake.py`).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import polars as pl

from mechinterp_assets.storage.declarations import Column, Declarations, TableSpec
from mechinterp_assets.storage.ledger import Snapshot, StoredFile, Version
from mechinterp_assets.storage.observations import CATALOG_TABLES, fill_observations
from mechinterp_assets.storage.sql_text import comment_on_column, quote_name, quote_text

_MAY_BE_NULL = ("model_version", "corpus_version", "sae_version", "inputs")
# Files that every DuckDB since 1.0 opens.
STORAGE_VERSION = "v1.0.0"
_Config = dict[str, str | bool | int | float | list[str]]
_EXPORT: _Config = {"storage_compatibility_version": STORAGE_VERSION}
# A catalog has few rows; waking more threads costs more than it gains.
_CATALOG: _Config = {**_EXPORT, "threads": 1}
_PLACE_OF_VERSION = Column("partition", "VARCHAR", "Partition key the row was written under")
_NUMBER_OF_VERSION = Column("version", "INTEGER", "Version of the partition that the row is from")
# <partition>/v<8 digits>-<run>.parquet at the end of a file's path
_PARTITION_OF_FILE = r"regexp_extract(filename, '([^/]+)/v\d{8}-[^/]*$', 1)"
_VERSION_OF_FILE = r"CAST(regexp_extract(filename, '/v(\d{8})-[^/]*$', 1) AS INTEGER)"


def build_catalog(path: Path, root: Path, declared: Declarations, snapshot: Snapshot) -> None:
    """Write a new catalog file at `path` for the whole ledger, whose files lie under `root`.

    It holds no rows but those on versions: every declared table is a view over its current files
    (an empty one if there are none), and `history.<table>` is a view over all its versions.
    """
    with duckdb.connect(str(path), config=_CATALOG) as con:
        fill_catalog(con, root, declared, snapshot)


def fill_catalog(
    con: duckdb.DuckDBPyConnection, root: Path, declared: Declarations, snapshot: Snapshot
) -> None:
    """As `build_catalog`, into the current database of `con`, which is empty."""
    con.execute("BEGIN")
    con.execute(declared.catalog_sql)
    con.execute("CREATE SCHEMA files; CREATE SCHEMA history")
    for spec in declared.tables.values():
        con.execute(
            "INSERT INTO declared_tables VALUES (?, ?, ?)",
            [spec.name, spec.formula_version, spec.comment],
        )
    # Views are made over no files: making them over many would open and list these again and again.
    for spec in declared.tables.values():
        con.execute(_macros(spec, root, ()))
        con.execute(_views(spec))
    for view in declared.views:
        con.execute(view.statements)
    _fill(con, root, declared, frozenset(declared.tables), snapshot)
    con.execute("COMMIT")


def update_catalog(path: Path, root: Path, declared: Declarations, snapshot: Snapshot) -> None:
    """Bring a catalog file built from the same declarations and root up to date.

    Args:
        path: the file, changed in place: a copy that nobody else has open.
        root: folder that the files lie under.
        declared: the declarations.
        snapshot: what changed in the ledger since the file was brought up to date.
    """
    changed = [(v.table, v.partition, v.version) for v in snapshot.versions]
    gone = pl.DataFrame(
        [*changed, *snapshot.removed],
        schema={"table_name": pl.String, "partition": pl.String, "version": pl.Int32},
        orient="row",
    )
    with duckdb.connect(str(path), config=_CATALOG) as con:
        con.execute("BEGIN")
        con.register("gone", gone)
        con.execute(
            "DELETE FROM versions USING gone WHERE versions.table_name = gone.table_name"
            " AND versions.partition = gone.partition AND versions.version = gone.version"
        )
        con.unregister("gone")
        _fill(con, root, declared, snapshot.tables, snapshot)
        con.execute("COMMIT")


def export_catalog(source: Path, target: Path, declared: Declarations) -> None:
    """Write at `target` a database with the rows that the catalog `source` shows.

    Declared tables and the catalog's own become real tables; views, column comments and types are
    kept. History is left out, as it would be files outside the database.
    """
    with duckdb.connect(str(target), config=_EXPORT) as con:
        con.execute(f"ATTACH {quote_text(str(source))} AS catalog (READ_ONLY)")
        con.execute(declared.catalog_sql)
        con.execute("DROP MACRO TABLE table_version")
        for name in ("versions", "declared_tables", *CATALOG_TABLES):
            con.execute(f"INSERT INTO {name} FROM catalog.{name}")
        con.execute("DELETE FROM versions WHERE NOT is_current")
        for spec in declared.tables.values():
            name = quote_name(spec.name)
            types = ", ".join(f"{quote_name(c.name)} {c.type}" for c in spec.stored_columns)
            con.execute(f"CREATE TABLE {name} ({types})")
            con.execute(f"INSERT INTO {name} FROM catalog.{name}")
            con.execute(_comments("TABLE", name, spec.comment, spec.stored_columns))
        for view in declared.views:
            con.execute(view.statements)
        con.execute("DETACH catalog")


def column_types(columns: Iterable[Column]) -> tuple[tuple[str, str], ...]:
    """(name, DuckDB type) of each column, as the ledger records them."""
    return tuple((column.name, column.type) for column in columns)


def _fill(
    con: duckdb.DuckDBPyConnection,
    root: Path,
    declared: Declarations,
    tables: frozenset[str],
    snapshot: Snapshot,
) -> None:
    """Insert the rows on the snapshot's versions and (re)make what the views of `tables` read."""
    by_table: dict[str, list[StoredFile]] = defaultdict(list)
    for file in snapshot.files:
        by_table[file.table].append(file)
    _insert_versions(con, root, declared, snapshot.versions)
    for name in sorted(tables & declared.tables.keys()):
        con.execute(_macros(declared.tables[name], root, by_table[name]))
    fill_observations(con, snapshot.observation, snapshot.begun)


def _macros(spec: TableSpec, root: Path, stored: Sequence[StoredFile]) -> str:
    """Statements that (re)make the two macros that a table's views read."""
    current = _select_files(spec, root, [file for file in stored if file.is_current])
    every = _select_files(spec, root, stored, with_place=True)
    return (
        f"CREATE OR REPLACE MACRO {_current(spec)} AS TABLE {current};"
        f"CREATE OR REPLACE MACRO {_stored(spec)} AS TABLE {every};"
    )


def _current(spec: TableSpec) -> str:
    return f"files.{quote_name(f'current_{spec.name}')}()"


def _stored(spec: TableSpec) -> str:
    return f"files.{quote_name(f'stored_{spec.name}')}()"


def _views(spec: TableSpec) -> str:
    """Statements that create the two views of a table, with their comments."""
    name = quote_name(spec.name)
    columns = (_PLACE_OF_VERSION, _NUMBER_OF_VERSION, *spec.stored_columns)
    comment = f"{spec.comment} Every version that is still stored."
    return "\n".join(
        (
            f"CREATE VIEW {name} AS FROM {_current(spec)};",
            _comments("VIEW", name, spec.comment, spec.stored_columns),
            f"CREATE VIEW history.{name} AS FROM {_stored(spec)};",
            _comments("VIEW", f"history.{name}", comment, columns),
        )
    )


def _select_files(
    spec: TableSpec, root: Path, stored: Sequence[StoredFile], *, with_place: bool = False
) -> str:
    """SELECT of the declared columns over `stored` files.

    Files written under the same declaration are read by one scan, whose schema is that of its first
    file, so DuckDB need not open the others to plan a query.
    """
    # By identity: files share few lists of columns, which are long to hash.
    groups: dict[int, tuple[tuple[tuple[str, str], ...], list[str]]] = {}
    folder = f"{root}/"
    for one in stored:
        _, files = groups.setdefault(id(one.columns), (one.columns, []))
        files.append(quote_text(folder + one.file))
    selects = []
    for columns, files in groups.values():
        place = f"{_PARTITION_OF_FILE} AS partition, {_VERSION_OF_FILE} AS version, "
        option = ", filename = true" if with_place else ""
        selects.append(
            f"SELECT {place if with_place else ''}{_column_list(spec, dict(columns))}"
            f" FROM read_parquet([{', '.join(files)}]{option})"
        )
    if not selects:
        place = "NULL::VARCHAR AS partition, NULL::INTEGER AS version, "
        selects.append(f"SELECT {place if with_place else ''}{_column_list(spec, {})} WHERE false")
    return "\nUNION ALL\n".join(selects)


def _column_list(spec: TableSpec, stored: dict[str, str]) -> str:
    """The declared columns out of files that hold `stored` ones.

    After a change of the declaration, older files give NULL for columns they lack and for values
    that the new type cannot hold; `stale_partitions` lists them until they are written again.
    """
    parts = []
    for column in spec.stored_columns:
        name = quote_name(column.name)
        if column.name not in stored:
            parts.append(f"NULL::{column.type} AS {name}")
        elif stored[column.name] != column.type:
            parts.append(f"TRY_CAST({name} AS {column.type}) AS {name}")
        else:
            parts.append(name)
    return ", ".join(parts)


def _comments(kind: str, name: str, comment: str, columns: Iterable[Column]) -> str:
    statements = [f"COMMENT ON {kind} {name} IS {quote_text(comment)};"]
    statements += [comment_on_column(name, column.name, column.comment) for column in columns]
    return "\n".join(statements)


def _insert_versions(
    con: duckdb.DuckDBPyConnection, root: Path, declared: Declarations, versions: Sequence[Version]
) -> None:
    if not versions:
        return
    same_columns = {
        (table, number): table in declared.tables
        and columns == column_types(declared.tables[table].stored_columns)
        for (table, number), columns in {
            (v.table, id(v.columns)): v.columns for v in versions
        }.items()
    }
    frame = pl.DataFrame(
        {
            "table_name": [v.table for v in versions],
            "partition": [v.partition for v in versions],
            "version": [v.version for v in versions],
            "is_current": [v.is_current for v in versions],
            "data_version": [v.data_version for v in versions],
            "study": [v.provenance.study for v in versions],
            "run_id": [v.provenance.run_id for v in versions],
            "code_version": [v.provenance.code_version for v in versions],
            "formula_version": [v.formula_version for v in versions],
            "model_version": [v.provenance.model_version for v in versions],
            "corpus_version": [v.provenance.corpus_version for v in versions],
            "sae_version": [v.provenance.sae_version for v in versions],
            "inputs": [json.dumps(v.inputs) if v.is_current else None for v in versions],
            "rows": [v.rows for v in versions],
            "bytes": [v.bytes for v in versions],
            "written_at": [v.written_at for v in versions],
            "same_columns": [same_columns[v.table, id(v.columns)] for v in versions],
            "path": [v.file for v in versions],
        },
        schema_overrides=dict.fromkeys(_MAY_BE_NULL, pl.String),
    )
    con.register("published", frame)
    con.execute(
        "INSERT INTO versions BY NAME SELECT * REPLACE ("
        "inputs::JSON::MAP(VARCHAR, VARCHAR) AS inputs,"
        " make_timestamp((written_at * 1e6)::BIGINT) AS written_at,"
        f" {quote_text(f'{root}/')} || path AS path) FROM published"
    )
    con.unregister("published")
