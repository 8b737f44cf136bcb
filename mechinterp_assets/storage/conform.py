"""Bringing a frame to its declared columns and types, without ever changing a value.

What does not fit is an error before anything is written; the caller decides about rounding.
"""

import polars as pl

from mechinterp_assets.storage.declarations import Column, TableSpec


class FrameError(ValueError):
    """A frame does not fit the declaration of the table it is meant for."""


def conform(frame: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Order and cast `frame` to the science columns of `spec` (no `study`, no provenance).

    Casts that keep every value are made: integer widths, float32 to float64, integers to floats,
    categories to strings, arrays to lists, all-null columns to anything; and narrowing ones if
    every value of the frame survives.

    Raises:
        FrameError: missing or extra columns, other types, or a value that a cast would change.
    """
    _check_names(frame, spec)
    columns = [_conform_column(frame.get_column(c.name), c, spec) for c in spec.science_columns]
    return pl.DataFrame(columns)


def _check_names(frame: pl.DataFrame, spec: TableSpec) -> None:
    declared = {column.name for column in spec.science_columns}
    given = set(frame.columns)
    own = given & ({"study"} | {column.name for column in spec.provenance})
    if own:
        raise FrameError(
            f"{spec.name}: the frame has {sorted(own)}, which the lake adds from the provenance;"
            f" drop them"
        )
    if missing := declared - given:
        raise FrameError(
            f"{spec.name}: the frame lacks {sorted(missing)}, declared in"
            f" sql/tables/{spec.name}.sql"
        )
    if extra := given - declared:
        raise FrameError(
            f"{spec.name}: the frame has {sorted(extra)}, not declared in"
            f" sql/tables/{spec.name}.sql; declare or drop them"
        )


def _conform_column(series: pl.Series, column: Column, spec: TableSpec) -> pl.Series:
    where = f"{spec.name}.{column.name}"
    target = column.polars_type
    if not column.nullable and series.null_count():
        raise FrameError(f"{where} is declared NOT NULL, but {series.null_count()} rows are null")
    if series.dtype == target:
        return series
    if series.dtype == pl.Null or (series.null_count() == len(series) and len(series) > 0):
        return pl.Series(series.name, [None], dtype=target).new_from_index(0, len(series))
    if not _may_cast(series.dtype, target):
        raise FrameError(f"{where} is declared {column.type}, the frame has {series.dtype}")
    try:
        cast = series.cast(target, strict=True)
    except pl.exceptions.InvalidOperationError as error:
        raise FrameError(
            f"{where} is declared {column.type} and values of the frame's {series.dtype} do not"
            f" fit: {error}"
        ) from error
    _check_lossless(series, cast, column, where)
    return cast


def _may_cast(given: pl.DataType, target: pl.DataType) -> bool:
    if isinstance(target, pl.List):
        return isinstance(given, pl.List | pl.Array) and (
            given.inner in (target.inner, pl.Null) or _may_cast(_inner(given), _inner(target))
        )
    if target.is_float():
        return given.is_float() or given.is_integer()
    if target.is_integer():
        return given.is_integer()
    return target == pl.String and given in (pl.Categorical, pl.Enum)


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    assert isinstance(inner, pl.DataType)
    return inner


def _check_lossless(given: pl.Series, cast: pl.Series, column: Column, where: str) -> None:
    """Compare the leaves before and after the cast (a float that was rounded, say)."""
    before, after = _leaves(given), _leaves(cast)
    if after.dtype == pl.String or before.dtype == pl.Null:
        return
    changed = before.ne_missing(after.cast(before.dtype, strict=False))
    if changed.any():
        index = changed.arg_max()
        assert index is not None
        raise FrameError(
            f"{where} is declared {column.type}, and {changed.sum()} of the frame's"
            f" {given.dtype} values would change in the cast (such as {before[index]!r});"
            f" round them before writing if that is meant"
        )


def _leaves(series: pl.Series) -> pl.Series:
    while isinstance(series.dtype, pl.Array | pl.List):
        series = series.explode()
    return series
