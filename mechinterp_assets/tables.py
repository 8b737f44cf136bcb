"""Declarations of tables and views, read from the SQL files that define them.

`sql/tables/<table>.sql` is the one place where a table's columns, types, meaning and formula
version are written. This module runs those files in an in-memory DuckDB and reads the declarations
back, so whatever DuckDB understands is what the lake stores and Dagster shows. Storage is not here:
see `resources/lake.py`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import duckdb
import polars as pl

SQL_FOLDER = Path(__file__).resolve().parent.parent / "sql"

_FORMULA = re.compile(r"^-- formula: *(\d+) *$", re.MULTILINE)
_POLARS_TYPES: dict[str, pl.DataType] = {
    "VARCHAR": pl.String(),
    "BIGINT": pl.Int64(),
    "INTEGER": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "FLOAT": pl.Float32(),
    "BOOLEAN": pl.Boolean(),
}


class DeclarationError(ValueError):
    """A file under `sql/` is missing or does not declare what it must."""


@dataclass(frozen=True)
class Column:
    """One column: its DuckDB type and what it means (definition, unit, range, source)."""

    name: str
    type: str
    comment: str
    nullable: bool = True

    @property
    def polars_type(self) -> pl.DataType:
        """The polars type that is stored and read without loss as `type`."""
        return _polars_type(self.type)


@dataclass(frozen=True)
class TableSpec:
    """A declared table.

    Attributes:
        name: table name, equal to the file name.
        comment: what one row is.
        formula_version: version of the definitions of the columns; raised when one changes.
        columns: declared columns, `study` among them, without provenance.
        provenance: columns that the lake adds (`sql/provenance.sql`).
    """

    name: str
    comment: str
    formula_version: int
    columns: tuple[Column, ...]
    provenance: tuple[Column, ...]

    @property
    def science_columns(self) -> tuple[Column, ...]:
        """Columns that a science function returns: the declared ones without `study`."""
        return tuple(column for column in self.columns if column.name != "study")

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """Columns of the stored table: the declared ones, then provenance."""
        return self.columns + self.provenance


@dataclass(frozen=True)
class ViewSpec:
    """A view from `sql/views`: its statements and its columns once created."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    statements: str


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


def declarations(folder: Path = SQL_FOLDER) -> Declarations:
    """Read the declarations under `folder`; cached until one of its files changes.

    Raises:
        DeclarationError: a file is missing, broken, or lacks a header, a comment or `study`.
    """
    return _read(folder, _fingerprint(folder))


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


def polars_schema(spec: TableSpec, *, stored: bool = False) -> pl.Schema:
    """Polars schema of the frames a science function returns, or of the stored table.

    Args:
        spec: the table.
        stored: include `study` and the provenance columns.
    """
    columns = spec.stored_columns if stored else spec.science_columns
    return pl.Schema({column.name: column.polars_type for column in columns})


def _fingerprint(folder: Path) -> str:
    for part in ("tables", "provenance.sql", "catalog.sql"):
        if not (folder / part).exists():
            raise DeclarationError(
                f"{folder / part} is missing: tables are declared in the repository's sql/ folder,"
                " so install the project in editable mode (pip install -e .)"
            )
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.sql")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=32)
def _read(folder: Path, fingerprint: str) -> Declarations:
    with duckdb.connect() as con:
        study, *provenance = _read_provenance(con, folder / "provenance.sql")
        tables = {}
        for path in sorted((folder / "tables").glob("*.sql")):
            tables[path.stem] = _read_table(con, path, study, tuple(provenance))
    with duckdb.connect() as con:
        catalog_sql = (folder / "catalog.sql").read_text()
        _execute(con, catalog_sql, folder / "catalog.sql")
        if taken := tables.keys() & _relations(con):
            raise DeclarationError(
                f"sql/tables declares {sorted(taken)}, names of the catalog's own"
            )
        for spec in tables.values():
            con.execute(_empty_table(spec))
        views = _read_views(con, folder / "views")
    return Declarations(tables, catalog_sql, views, fingerprint)


def _read_provenance(con: duckdb.DuckDBPyConnection, path: Path) -> tuple[Column, ...]:
    _execute(con, path.read_text(), path)
    columns = _columns(con, "provenance", path)
    if columns[0].name != "study":
        raise DeclarationError(f"{path} must name study first, it names {columns[0].name}")
    con.execute("DROP TABLE provenance")
    return columns


def _read_table(
    con: duckdb.DuckDBPyConnection, path: Path, study: Column, provenance: tuple[Column, ...]
) -> TableSpec:
    text = path.read_text()
    header = _FORMULA.search(text)
    if header is None:
        raise DeclarationError(f"{path} has no '-- formula: N' line; start it with '-- formula: 1'")
    before = _relations(con)
    _execute(con, text, path)
    created = _relations(con) - before
    if created != {path.stem}:
        raise DeclarationError(
            f"{path} must create the one table {path.stem}, it creates {sorted(created)}"
        )
    uncommented = dict(
        con.execute(
            "SELECT column_name, comment IS NULL FROM duckdb_columns() WHERE table_name = ?",
            [path.stem],
        ).fetchall()
    )
    if study.name not in uncommented:
        raise DeclarationError(f"{path} declares no study column; add 'study VARCHAR'")
    if uncommented[study.name]:
        con.execute(comment_on_column(quote_name(path.stem), study.name, study.comment))
    columns = _columns(con, path.stem, path)
    names = {column.name for column in columns}
    if added := names & {column.name for column in provenance}:
        raise DeclarationError(f"{path} declares {sorted(added)}, which the lake adds by itself")
    for column in columns:
        _polars_type(column.type, f"{path}, column {column.name}")
    if unchecked := con.execute(
        "SELECT DISTINCT constraint_type FROM duckdb_constraints()"
        " WHERE table_name = ? AND constraint_type <> 'NOT NULL'",
        [path.stem],
    ).fetchall():
        raise DeclarationError(
            f"{path} declares {unchecked[0][0]}, which the lake does not check; only NOT NULL is"
        )
    return TableSpec(path.stem, _comment(con, path.stem, path), int(header[1]), columns, provenance)


def _read_views(con: duckdb.DuckDBPyConnection, folder: Path) -> tuple[ViewSpec, ...]:
    """Create the views in an order that works and read them back.

    A view whose source is another view that does not exist yet is tried again after the others.
    """
    pending = sorted(folder.glob("*.sql"))
    views: list[ViewSpec] = []
    while pending:
        failed: dict[Path, duckdb.Error] = {}
        for path in pending:
            try:
                views.append(_create_view(con, path))
            except duckdb.CatalogException as error:
                failed[path] = error
            except duckdb.Error as error:
                raise DeclarationError(f"{path} is not valid SQL for a view: {error}") from error
        if len(failed) == len(pending):
            first, cause = next(iter(failed.items()))
            raise DeclarationError(f"{first} reads something that does not exist: {cause}")
        pending = list(failed)
    return tuple(views)


def _create_view(con: duckdb.DuckDBPyConnection, path: Path) -> ViewSpec:
    text = path.read_text()
    before = _relations(con)
    con.execute("BEGIN")
    try:
        con.execute(text)
    except duckdb.Error:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")
    created = _relations(con) - before
    if created != {path.stem}:
        raise DeclarationError(
            f"{path} must create the one view {path.stem}, it creates {sorted(created)}"
        )
    inherited = _inherit_comments(con, path.stem, text)
    statements = "\n".join([text, *inherited])
    for statement in inherited:
        con.execute(statement)
    return ViewSpec(
        path.stem,
        _comment(con, path.stem, path),
        _columns(con, path.stem, path),
        statements,
    )


def _inherit_comments(con: duckdb.DuckDBPyConnection, view: str, text: str) -> list[str]:
    """COMMENT statements for columns that a view passes on under the name its source gave them."""
    words = re.findall(r"\w+", text)
    sources = [name for name in dict.fromkeys(words) if name in _relations(con) and name != view]
    statements = []
    for (column,) in con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND comment IS NULL", [view]
    ).fetchall():
        for source in sources:
            row = con.execute(
                "SELECT comment FROM duckdb_columns() WHERE table_name = ? AND column_name = ?",
                [source, column],
            ).fetchone()
            if row is not None and row[0]:
                statements.append(comment_on_column(view, column, row[0]))
                break
    return statements


def quote_name(name: str) -> str:
    """SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def comment_on_column(relation: str, column: str, comment: str) -> str:
    """COMMENT ON COLUMN statement; `relation` is used as it is (quote it if need be)."""
    return f"COMMENT ON COLUMN {relation}.{quote_name(column)} IS {quote_text(comment)};"


def _empty_table(spec: TableSpec) -> str:
    columns = ", ".join(f"{quote_name(c.name)} {c.type}" for c in spec.stored_columns)
    name = quote_name(spec.name)
    comments = [comment_on_column(name, c.name, c.comment) for c in spec.stored_columns]
    return f"CREATE TABLE {name} ({columns});\n" + "\n".join(comments)


def _execute(con: duckdb.DuckDBPyConnection, text: str, path: Path) -> None:
    try:
        con.execute(text)
    except duckdb.Error as error:
        raise DeclarationError(f"{path} is not valid SQL: {error}") from error


def _relations(con: duckdb.DuckDBPyConnection) -> set[str]:
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() UNION ALL"
        " SELECT view_name FROM duckdb_views() WHERE NOT internal"
    ).fetchall()
    return {str(row[0]) for row in rows}


def _comment(con: duckdb.DuckDBPyConnection, relation: str, path: Path) -> str:
    row = con.execute(
        "SELECT comment FROM duckdb_tables() WHERE table_name = $name UNION ALL"
        " SELECT comment FROM duckdb_views() WHERE view_name = $name",
        {"name": relation},
    ).fetchone()
    if row is None or not row[0]:
        raise DeclarationError(f"{path} has no comment on {relation} itself; say what one row is")
    return str(row[0])


def _columns(con: duckdb.DuckDBPyConnection, relation: str, path: Path) -> tuple[Column, ...]:
    rows = con.execute(
        "SELECT column_name, data_type, comment, is_nullable FROM duckdb_columns()"
        " WHERE table_name = ? ORDER BY column_index",
        [relation],
    ).fetchall()
    columns = []
    for name, type_name, comment, nullable in rows:
        if not comment:
            raise DeclarationError(
                f"{path} has no comment on column {name};"
                f" add COMMENT ON COLUMN {relation}.{name} IS '...';"
            )
        columns.append(Column(str(name), str(type_name), str(comment), bool(nullable)))
    return tuple(columns)


def _polars_type(type_name: str, where: str = "a column") -> pl.DataType:
    if type_name.endswith("[]"):
        return pl.List(_polars_type(type_name[:-2], where))
    if type_name not in _POLARS_TYPES:
        raise DeclarationError(
            f"{where} has type {type_name}; use {', '.join(_POLARS_TYPES)} or a list of one"
        )
    return _POLARS_TYPES[type_name]
