"""Declarations of tables and views, read from the SQL files that define them.

`sql/tables/<table>.sql` is the one place where a table's columns, types, meaning and formula
version are written. This module runs those files in an in-memory DuckDB and reads the declarations
back, so whatever DuckDB understands is what the lake stores and Dagster shows. Storage is not here:
see `mechinterp_assets/storage/lake.py`.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast, get_args

import duckdb

from mechinterp_assets.storage.constraints import native_constraints, with_header
from mechinterp_assets.storage.sql_text import comment_on_column, quote_name, quote_text
from mechinterp_assets.storage.table_spec import (
    Column,
    Constraints,
    DeclarationError,
    Per,
    TableSpec,
    ViewSpec,
    plain_table,
    polars_schema,
)

__all__ = [
    "SQL_FOLDER",
    "Column",
    "DeclarationError",
    "Declarations",
    "TableSpec",
    "ViewSpec",
    "declarations",
    "find_table",
    "polars_schema",
    "quote_name",
    "quote_text",
    "table_spec",
    "table_specs",
]

SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql"

_FORMULA = re.compile(r"^-- formula: *(\d+) *$", re.MULTILINE)
_TOP = ("catalog.sql", "provenance.sql")
_PER = re.compile(r"^-- per: *(\w+) *$", re.MULTILINE)
# Comments and texts, which name tables that are not read.
_NOT_CODE = re.compile(r"--[^\n]*|'[^']*'")


@dataclass(frozen=True)
class Declarations:
    """Everything that one `sql/` folder declares.

    Attributes:
        tables: by name.
        catalog_sql: statements of `sql/catalog.sql`: the catalog's own tables, views and macros.
        views: in an order in which each only reads what precedes it.
        fingerprint: changes when any of the files does.
    """

    tables: Mapping[str, TableSpec]
    catalog_sql: str
    views: tuple[ViewSpec, ...]
    fingerprint: str

    def tables_read(self, sql: str) -> frozenset[str]:
        """Declared tables that a statement reads, directly or through views."""
        words = set(re.findall(r"\w+", _NOT_CODE.sub(" ", sql)))
        through = [view.reads for view in self.views if view.name in words]
        return frozenset(words & self.tables.keys()).union(*through)


def declarations(folder: Path = SQL_FOLDER) -> Declarations:
    """Read the declarations under `folder`; cached until one of its files changes.

    Raises:
        DeclarationError: a file is missing, broken, or lacks a header, a comment or `study`.
    """
    return _read_at(folder, _stamp(folder))


def table_specs(folder: Path = SQL_FOLDER) -> dict[str, TableSpec]:
    """Declared tables by name. Errors as in `declarations`."""
    return dict(declarations(folder).tables)


def table_spec(name: str, folder: Path = SQL_FOLDER) -> TableSpec:
    """The declaration of one table; an undeclared name is an error that lists the declared ones."""
    return find_table(name, declarations(folder).tables)


def find_table(name: str, tables: Mapping[str, TableSpec]) -> TableSpec:
    """Look `name` up in `tables`, with an error that says where to declare it."""
    if name not in tables:
        raise DeclarationError(
            f"no table {name!r}: declare it in sql/tables/{name}.sql"
            f" (declared: {', '.join(sorted(tables)) or 'none'})"
        )
    return tables[name]


Stamp = tuple[tuple[str, int, int, int], ...]


def _stamp(folder: Path) -> Stamp:
    """Name, inode, size and time of every declaring file: changes when one of them does.

    Asked for with every look at a declaration, so without reading any file.
    """
    found: list[os.DirEntry[str]] = []
    for part, needed in ((folder, True), (folder / "tables", True), (folder / "views", False)):
        try:
            with os.scandir(part) as entries:
                found += [one for one in entries if one.name.endswith(".sql")]
        except FileNotFoundError:
            if needed:
                raise DeclarationError(_missing(part)) from None
    for name in _TOP:
        if not (folder / name).exists():
            raise DeclarationError(_missing(folder / name))
    stats = ((one.path, one.stat()) for one in found)
    return tuple(sorted((path, s.st_ino, s.st_size, s.st_mtime_ns) for path, s in stats))


def _missing(path: Path) -> str:
    return (
        f"{path} is missing: tables are declared there, so the installation is incomplete; install"
        " mechinterp-assets again"
    )


@lru_cache(maxsize=32)
def _read_at(folder: Path, stamp: Stamp) -> Declarations:
    digest = hashlib.sha256()
    for path in (Path(name) for name, *_ in stamp):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return _read(folder, digest.hexdigest())


@lru_cache(maxsize=32)
def _read(folder: Path, fingerprint: str) -> Declarations:
    catalog_file = folder / "catalog.sql"
    catalog_sql = catalog_file.read_text()
    with duckdb.connect() as con:
        study, *provenance = _read_provenance(con, folder / "provenance.sql")
        tables = _read_tables(con, folder / "tables", study, tuple(provenance))
    with duckdb.connect() as con:
        _execute(con, catalog_sql, catalog_file)
        catalog_sql += _passed_on_comments(con, catalog_file)
        if taken := tables.keys() & _columns(con).keys():
            raise DeclarationError(f"sql/tables declares {sorted(taken)}, the catalog's own names")
        con.execute("".join(plain_table(spec, stored=True) for spec in tables.values()))
        views = _read_views(con, folder / "views", tables)
    return Declarations(tables, catalog_sql, views, fingerprint)


def _passed_on_comments(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Statements that comment the columns which the catalog's views pass on from its tables."""
    relations = _columns(con)
    known = {c.name: c.comment for columns in relations.values() for c in columns if c.comment}
    statements = []
    for relation, columns in relations.items():
        unexplained = [column for column in columns if not column.comment]
        _require_comments(relation, tuple(c for c in unexplained if c.name not in known), path)
        statements += [
            comment_on_column(quote_name(relation), column.name, known[column.name])
            for column in unexplained
        ]
    return "\n".join(statements)


def _read_provenance(con: duckdb.DuckDBPyConnection, path: Path) -> tuple[Column, ...]:
    _execute(con, path.read_text(), path)
    columns = tuple(_columns(con)["provenance"])
    _require_comments("provenance", columns, path)
    if columns[0].name != "study":
        raise DeclarationError(f"{path} must name study first, it names {columns[0].name}")
    con.execute("DROP TABLE provenance")
    return columns


def _read_tables(
    con: duckdb.DuckDBPyConnection, folder: Path, study: Column, provenance: tuple[Column, ...]
) -> dict[str, TableSpec]:
    formulas: dict[Path, int] = {}
    per: dict[Path, Per] = {}
    texts: dict[Path, str] = {}
    con.execute("BEGIN")
    for path in sorted(folder.glob("*.sql")):
        text = texts[path] = path.read_text()
        header = _FORMULA.search(text)
        if header is None:
            raise DeclarationError(
                f"{path} has no '-- formula: N' line; start it with '-- formula: 1'"
            )
        _execute(con, text, path)
        formulas[path] = int(header[1])
        per[path] = _per(text, path)
    con.execute("COMMIT")
    columns, comments = _columns(con), _comments(con)
    if columns.keys() != {path.stem for path in formulas}:
        _find_the_odd_one(formulas)
    native = native_constraints(con)
    tables = {}
    for path, formula in formulas.items():
        declared = tuple(_with_study_comment(column, study) for column in columns[path.stem])
        _check_table(path, declared, study, provenance)
        comment = _require_comment(path.stem, comments, path)
        constraints = with_header(
            native.get(path.stem, Constraints()), texts[path], path, per[path], declared
        )
        spec = TableSpec(path.stem, comment, formula, declared, provenance, per[path], constraints)
        try:
            polars_schema(spec, stored=True)
        except DeclarationError as error:
            raise DeclarationError(f"{path}: {error}") from error
        tables[path.stem] = spec
    _check_references(folder, tables)
    return tables


def _check_references(folder: Path, tables: Mapping[str, TableSpec]) -> None:
    """Refuse foreign keys to a table or column that is not declared."""
    for spec in tables.values():
        for reference in spec.constraints.references:
            known = tables.get(reference.table)
            names = () if known is None else [column.name for column in known.columns]
            if unknown := [name for name in reference.referenced if name not in names]:
                raise DeclarationError(
                    f"{folder / spec.name}.sql references {reference.table}.{unknown[0]}, which is"
                    " not declared"
                )


def _per(text: str, path: Path) -> Per:
    header = _PER.search(text)
    named = header[1] if header else "study"
    for per in get_args(Per):
        if named == per:
            return cast(Per, per)
    raise DeclarationError(f"{path}: per {named!r} is none of {', '.join(get_args(Per))}")


def _with_study_comment(column: Column, study: Column) -> Column:
    if column.name == study.name and not column.comment:
        return Column(column.name, column.type, study.comment, column.nullable)
    return column


def _find_the_odd_one(paths: Iterable[Path]) -> None:
    """Raise DeclarationError for the first file that creates anything but its own table."""
    for path in paths:
        with duckdb.connect() as con:
            _execute(con, path.read_text(), path)
            _require_one(set(_columns(con)), path)
    raise DeclarationError("two files of sql/tables create the same table")


def _check_table(
    path: Path,
    columns: tuple[Column, ...],
    study: Column,
    provenance: tuple[Column, ...],
) -> None:
    names = {column.name for column in columns}
    if study.name not in names:
        raise DeclarationError(f"{path} declares no study column; add 'study VARCHAR'")
    if added := names & {column.name for column in provenance}:
        raise DeclarationError(f"{path} declares {sorted(added)}, which the lake adds by itself")
    _require_comments(path.stem, columns, path)


def _read_views(
    con: duckdb.DuckDBPyConnection, folder: Path, tables: Mapping[str, TableSpec]
) -> tuple[ViewSpec, ...]:
    """Create the views in an order that works, then read them back."""
    relations = _columns(con)
    texts = _create_views(con, sorted(folder.glob("*.sql")), set(relations))
    meanings = {
        relation: {column.name: column.comment for column in columns}
        for relation, columns in relations.items()
    }
    for spec in tables.values():
        meanings[spec.name] = {column.name: column.comment for column in spec.stored_columns}
    columns, comments = _columns(con), _view_comments(con)
    views: list[ViewSpec] = []
    for path, text in texts.items():
        known = Declarations(tables, "", tuple(views), "")
        view = _view_spec(path, text, columns[path.stem], comments, meanings, known)
        views.append(view)
        meanings[view.name] = {column.name: column.comment for column in view.columns}
    return tuple(views)


def _create_views(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], known: set[str]
) -> dict[Path, str]:
    """Create the views; their statements, in an order in which each only reads what precedes it.

    A view whose source is another view that does not exist yet is tried again after the others.
    """
    created: dict[Path, str] = {}
    pending = list(paths)
    while pending:
        failed: dict[Path, duckdb.Error] = {}
        for path in pending:
            try:
                text = _create_view(con, path)
            except duckdb.CatalogException as error:
                failed[path] = error
            except duckdb.Error as error:
                raise DeclarationError(f"{path} is not valid SQL for a view: {error}") from error
            else:
                names = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
                _require_one({str(row[0]) for row in names.fetchall()} - known, path)
                known = known | {path.stem}
                created[path] = text
        if len(failed) == len(pending):
            first, cause = next(iter(failed.items()))
            raise DeclarationError(f"{first} reads something that does not exist: {cause}")
        pending = list(failed)
    return created


def _create_view(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Run a file in one transaction; its text."""
    text = path.read_text()
    con.execute("BEGIN")
    try:
        con.execute(text)
    except duckdb.Error:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")
    return text


def _view_spec(
    path: Path,
    text: str,
    columns: Iterable[Column],
    comments: Mapping[str, str],
    meanings: Mapping[str, Mapping[str, str]],
    known: Declarations,
) -> ViewSpec:
    """What a created view is. `meanings` of the columns of all relations before it."""
    sources = [meanings[word] for word in re.findall(r"\w+", text) if word in meanings]
    explained, statements = [], [text]
    for column in columns:
        comment = column.comment
        if not comment:
            # A column passed on under its name means what it means in the view's source.
            comment = next((s[column.name] for s in sources if s.get(column.name)), "")
            statements.append(comment_on_column(quote_name(path.stem), column.name, comment))
        explained.append(Column(column.name, column.type, comment, column.nullable))
    _require_comments(path.stem, tuple(explained), path)
    comment = _require_comment(path.stem, comments, path)
    reads = known.tables_read(text)
    return ViewSpec(path.stem, comment, tuple(explained), "\n".join(statements), reads)


def _execute(con: duckdb.DuckDBPyConnection, text: str, path: Path) -> None:
    try:
        con.execute(text)
    except duckdb.Error as error:
        raise DeclarationError(f"{path} is not valid SQL: {error}") from error


def _columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[Column]]:
    """Columns of every table and view, in order; without a comment, that is empty."""
    found: dict[str, list[Column]] = {}
    for relation, name, type_name, comment, nullable in con.execute(
        "SELECT table_name, column_name, data_type, coalesce(comment, ''), is_nullable"
        " FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index"
    ).fetchall():
        found.setdefault(relation, []).append(Column(name, type_name, comment, nullable))
    return found


def _comments(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Comments on every table that has one."""
    return dict(
        con.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE comment IS NOT NULL"
        ).fetchall()
    )


def _view_comments(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Comments on every view that has one."""
    return dict(
        con.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE comment IS NOT NULL"
        ).fetchall()
    )


def _require_one(created: set[str], path: Path) -> None:
    if created != {path.stem}:
        raise DeclarationError(
            f"{path} must create {path.stem} and nothing else, it creates {sorted(created)}"
        )


def _require_comment(relation: str, comments: Mapping[str, str], path: Path) -> str:
    if not comments.get(relation):
        raise DeclarationError(f"{path} has no comment on {relation} itself; say what one row is")
    return comments[relation]


def _require_comments(relation: str, columns: tuple[Column, ...], path: Path) -> None:
    missing = [column.name for column in columns if not column.comment]
    if missing:
        raise DeclarationError(
            f"{path} has no comment on {', '.join(missing)};"
            f" add COMMENT ON COLUMN {relation}.{missing[0]} IS '...';"
        )
