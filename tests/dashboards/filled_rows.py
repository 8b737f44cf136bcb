"""Rows of declared tables of which a test says what it is about alone."""

from typing import Any

import polars as pl

from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

_NOTHING: dict[pl.DataType, Any] = {
    pl.String(): "-",
    pl.Int32(): 0,
    pl.Int64(): 0,
    pl.Float64(): 0.0,
    pl.Float32(): 0.0,
    pl.Boolean(): False,
}


def filled_rows(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """The rows with what the table may not leave out filled in; lists are empty."""
    spec = table_spec(table)
    schema = polars_schema(spec)
    filled = {
        column.name: None if column.nullable else _NOTHING.get(schema[column.name], [])
        for column in spec.science_columns
    }
    return pl.DataFrame([{**filled, **row} for row in rows], schema=schema)
