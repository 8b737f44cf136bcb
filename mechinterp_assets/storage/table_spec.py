"""What a declared table or view is: columns with types and meaning, what must hold of its rows, and
the polars schema of it.

How declarations are read from SQL files is in `declarations.py` and `constraints.py`, the
statements that check rows in `checks.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from mechinterp_assets.storage.sql_text import quote_name

_POLARS_TYPES: dict[str, pl.DataType] = {
    "VARCHAR": pl.String(),
    "BIGINT": pl.Int64(),
    "INTEGER": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "FLOAT": pl.Float32(),
    "BOOLEAN": pl.Boolean(),
}


Per = Literal["study", "site"]


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
        """The polars type that is stored as `type` without loss.

        Raises:
            DeclarationError: a type that tables may not have.
        """
        return _polars_type(self.type, self.name)


@dataclass(frozen=True)
class Condition:
    """A CHECK: an SQL expression over one row that is false of no row, and the columns in it."""

    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """A foreign key: the values of `columns`, where none is NULL, stand in `referenced` of `table`.

    `where` is an SQL condition on the rows that it concerns; None for all.
    """

    columns: tuple[str, ...]
    table: str
    referenced: tuple[str, ...]
    where: str | None = None


@dataclass(frozen=True)
class RowCount:
    """How many rows a partition has, for each value of the columns `for_each`.

    `words` is what the declaration says, `expected` the number in SQL; `at_least`: or more.
    """

    words: str
    expected: str
    for_each: tuple[str, ...] = ()
    at_least: bool = False


@dataclass(frozen=True)
class Bound:
    """Numbers of `column` are below `size` of `table`: of the model, or of the layer's SAE."""

    column: str
    size: str
    table: str


@dataclass(frozen=True)
class Constraints:
    """What must hold of a table's rows beside types and NOT NULL.

    Attributes:
        keys: columns that no two rows agree in, the primary key first; NULLs count as equal.
        conditions: of single rows.
        references: to rows of other tables, or of this one.
        rows: how many there are; None where that is not fixed.
        bounds: columns that count from 0 up to a size of the model or SAE.
        not_finite: columns of floats that may be infinite or NaN.
    """

    keys: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[Condition, ...] = ()
    references: tuple[Reference, ...] = ()
    rows: RowCount | None = None
    bounds: tuple[Bound, ...] = ()
    not_finite: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TableSpec:
    """A declared table.

    Attributes:
        name: table name, equal to the file name.
        comment: what one row is.
        formula_version: version of the definitions of the columns; raised when one changes.
        columns: declared columns, `study` among them, without provenance.
        provenance: columns that the lake adds (`sql/provenance.sql`).
        per: what one partition holds, a study's rows or those of one of its layers (a site).
        constraints: what must hold of its rows.
    """

    name: str
    comment: str
    formula_version: int
    columns: tuple[Column, ...]
    provenance: tuple[Column, ...]
    per: Per = "study"
    constraints: Constraints = field(default_factory=Constraints)

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
    """A view from `sql/views`: the statements that create it, the columns it then has, and the
    tables that its rows come from, directly or through other views."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    statements: str
    reads: frozenset[str] = frozenset()


def plain_table(spec: TableSpec, *, stored: bool = False) -> str:
    """CREATE TABLE of the declared columns without constraints, for rows that need not be whole.

    Args:
        spec: the table.
        stored: include the provenance columns.
    """
    columns = spec.stored_columns if stored else spec.columns
    named = ", ".join(f"{quote_name(column.name)} {column.type}" for column in columns)
    return f"CREATE TABLE {quote_name(spec.name)} ({named});"


def polars_schema(spec: TableSpec, *, stored: bool = False) -> pl.Schema:
    """Polars schema of the frames a science function returns, or of the stored table.

    Args:
        spec: the table.
        stored: include `study` and the provenance columns.
    """
    columns = spec.stored_columns if stored else spec.science_columns
    return pl.Schema({column.name: column.polars_type for column in columns})


def _polars_type(type_name: str, column: str) -> pl.DataType:
    if type_name.endswith("[]"):
        return pl.List(_polars_type(type_name[:-2], column))
    if type_name not in _POLARS_TYPES:
        raise DeclarationError(
            f"column {column} has type {type_name}; use {', '.join(_POLARS_TYPES)} or lists of one"
        )
    return _POLARS_TYPES[type_name]
