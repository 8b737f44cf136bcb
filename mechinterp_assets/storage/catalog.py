"""Building the DuckDB catalog: views over exactly the current Parquet files, and an export of them.

Only how a catalog file is filled is here; when it is rebuilt and how it is swapped in is the
lake's part (`mechinterp_assets/storage/lake.py`).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from mechinterp_assets.storage.declarations import Column, Declarations, TableSpec
from mechinterp_assets.storage.ledger import Begun, Observation, Snapshot, Version
from mechinterp_assets.storage.sql_text import comment_on_column, quote_name, quote_text

_ASKED_FOR = ("study_inputs", "expected_partitions", "begun_partitions")
_MAY_BE_NULL = ("model_version", "corpus_version", "sae_version")
# A catalog has few rows; waking more threads costs more than it gains.
_ONE_THREAD: dict[str, str | bool | int | float | list[str]] = {"threads": 1}
_PLACE_OF_VERSION = Column("partition", "VARCHAR", "Partition key the row was written under")
_NUMBER_OF_VERSION = Column("version", "INTEGER", "Version of the partition that the row is from")
# <partition>/v<8 digits>-<run>.parquet at the end of a file's path
_PARTITION_OF_FILE = r"regexp_extract(filename, '([^/]+)/v\d{8}-[^/]*$', 1)"
_VERSION_OF_FILE = r"CAST(regexp_extract(filename, '/v(\d{8})-[^/]*$', 1) AS INTEGER)"


def build_catalog(path: Path, root: Path, declared: Declarations, now: Snapshot) -> None:
    """Write a new catalog file at `path` for the ledger as of `now`; files lie under `root`.

    It holds no rows but those on versions: every declared table is a view over its current files
    (an empty one if there are none), and `history.<table>` is a view over all its versions.
    """
    with duckdb.connect(str(path), config=_ONE_THREAD) as con:
        con.execute("BEGIN")
        con.execute(declared.catalog_sql)
        con.execute("CREATE SCHEMA history")
        for spec in declared.tables.values():
            con.execute(
                "INSERT INTO declared_tables VALUES (?, ?, ?)",
                [spec.name, spec.formula_version, spec.comment],
            )
        _fill(con, root, declared, frozenset(declared.tables), now.versions)
        _fill_asked_for(con, now.observation, now.begun)
        for view in declared.views:
            con.execute(view.statements)
        con.execute("COMMIT")


def update_catalog(path: Path, root: Path, declared: Declarations, changed: Snapshot) -> None:
    """Bring a catalog file built from the same declarations and root up to date.

    Args:
        path: the file, changed in place: a copy that nobody else has open.
        root: folder that the files lie under.
        declared: the declarations.
        changed: the tables that changed since, with all their versions.
    """
    with duckdb.connect(str(path), config=_ONE_THREAD) as con:
        con.execute("BEGIN")
        con.execute("DELETE FROM versions WHERE table_name IN ?", [sorted(changed.tables)])
        _fill(con, root, declared, changed.tables, changed.versions)
        _fill_asked_for(con, changed.observation, changed.begun)
        con.execute("COMMIT")


def export_catalog(source: Path, target: Path, declared: Declarations) -> None:
    """Write at `target` a database with the rows that the catalog `source` shows.

    Declared tables and the catalog's own become real tables; views, column comments and types are
    kept. History is left out, as it would be files outside the database.
    """
    with duckdb.connect(str(target)) as con:
        con.execute(f"ATTACH {quote_text(str(source))} AS catalog (READ_ONLY)")
        con.execute(declared.catalog_sql)
        con.execute("DROP MACRO TABLE table_version")
        for name in ("versions", "declared_tables", *_ASKED_FOR):
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
    versions: Sequence[Version],
) -> None:
    """Insert the rows on `versions` and (re)make the views of `tables`."""
    by_table: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        by_table[version.table].append(version)
    _insert_versions(con, root, declared, versions)
    for name in sorted(tables & declared.tables.keys()):
        spec, kept = declared.tables[name], by_table[name]
        con.execute(_current_view(spec, root, [v for v in kept if v.is_current]))
        con.execute(_history_view(spec, root, kept))


def _fill_asked_for(
    con: duckdb.DuckDBPyConnection, observation: Observation | None, begun: Sequence[Begun]
) -> None:
    """Replace what studies ask for (None: it is as it was) and what is begun."""
    if observation is not None:
        inputs, partitions = observation.inputs, observation.partitions
        _replace(
            con,
            "study_inputs",
            {
                "study": [study for study, _ in inputs],
                "input": [name for _, name in inputs],
                "value": list(inputs.values()),
                "observed_at": [_timestamp(observation.observed_at)] * len(inputs),
            },
        )
        _replace(
            con,
            "expected_partitions",
            {
                "table_name": [table for table, _ in partitions],
                "partition": [partition for _, partition in partitions],
                "study": list(partitions.values()),
            },
        )
    _replace(
        con,
        "begun_partitions",
        {
            "table_name": [one.table for one in begun],
            "partition": [one.partition for one in begun],
            "study": [one.study for one in begun],
            "run_id": [one.run_id for one in begun],
            "begun_at": [_timestamp(one.begun_at) for one in begun],
        },
    )


def _replace(
    con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, Sequence[object]]
) -> None:
    con.execute(f"DELETE FROM {table}")
    if any(columns.values()):
        con.register("rows", pl.DataFrame(columns))
        con.execute(f"INSERT INTO {table} BY NAME FROM rows")
        con.unregister("rows")


def _timestamp(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _current_view(spec: TableSpec, root: Path, versions: Sequence[Version]) -> str:
    name = quote_name(spec.name)
    select = _select_files(spec, root, versions)
    comments = _comments("VIEW", name, spec.comment, spec.stored_columns)
    return f"CREATE OR REPLACE VIEW {name} AS {select};\n{comments}"


def _history_view(spec: TableSpec, root: Path, versions: Sequence[Version]) -> str:
    name = f"history.{quote_name(spec.name)}"
    select = _select_files(spec, root, versions, with_place=True)
    columns = (_PLACE_OF_VERSION, _NUMBER_OF_VERSION, *spec.stored_columns)
    comment = f"{spec.comment} Every version that is still stored."
    return (
        f"CREATE OR REPLACE VIEW {name} AS {select};\n{_comments('VIEW', name, comment, columns)}"
    )


def _select_files(
    spec: TableSpec, root: Path, versions: Sequence[Version], *, with_place: bool = False
) -> str:
    """SELECT of the declared columns over the files of `versions`.

    Files written under the same declaration are read by one scan, whose schema is that of its first
    file, so DuckDB need not open the others to plan a query.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for version in versions:
        groups[version.columns].append(quote_text(f"{root}/{version.file}"))
    selects = []
    for columns, files in groups.items():
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
    declared_columns = {
        name: column_types(spec.stored_columns) for name, spec in declared.tables.items()
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
            "inputs": [json.dumps(v.inputs) for v in versions],
            "rows": [v.rows for v in versions],
            "bytes": [v.bytes for v in versions],
            "written_at": [_timestamp(v.written_at) for v in versions],
            "same_columns": [v.columns == declared_columns.get(v.table) for v in versions],
            "path": [f"{root}/{v.file}" for v in versions],
        },
        schema_overrides=dict.fromkeys(_MAY_BE_NULL, pl.String),
    )
    con.register("published", frame)
    con.execute(
        "INSERT INTO versions BY NAME"
        " SELECT * REPLACE (inputs::JSON::MAP(VARCHAR, VARCHAR) AS inputs) FROM published"
    )
    con.unregister("published")
