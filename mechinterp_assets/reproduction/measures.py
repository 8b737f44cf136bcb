"""Measures: what a study's tables say, by key, for comparison with references.

Belongs here: sql/reproduce/*.sql and what their rows mean. Such a file is one SELECT over the
catalog about the DuckDB variable `study`; its first comment line says what it is, and its columns
are `key` and either `value` (a number) or `heads` (a list of `layer.head`). All studies share them.
Does not belong here: running them, which is the caller's.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from mechinterp_assets.reproduction.reference_file import ReferenceFileError
from mechinterp_assets.storage.declarations import SQL_FOLDER, declarations

MEASURE_FOLDER = SQL_FOLDER / "reproduce"
Value = float | list[str] | None
Measured = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Measure:
    """One measure: its name, what it is, its SQL."""

    name: str
    what: str
    sql: str


@lru_cache(maxsize=8)
def all_measures(folder: Path = MEASURE_FOLDER) -> dict[str, Measure]:
    """Every measure by name."""
    return {file.stem: _read(file) for file in sorted(folder.glob("*.sql"))}


def find_measure(name: str) -> Measure:
    """The measure of that name. Raises ReferenceFileError."""
    known = all_measures()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)
        raise ReferenceFileError(
            f"no measure {name!r} in sql/reproduce; perhaps {', '.join(close)}"
        )
    return known[name]


def measured(
    names: Iterable[str], query: Callable[[str], pl.DataFrame]
) -> dict[str, dict[str, Value]]:
    """Values of the named measures by key; `query` gives the rows of a statement about a study.

    A measure whose tables have no rows of the study is an empty mapping.
    """
    wanted = [find_measure(name) for name in dict.fromkeys(names)]
    return {one.name: _values(query(one.sql), one) for one in wanted}


def tables_read() -> frozenset[str]:
    """Tables that the measures read, directly or through views."""
    return declarations().tables_read(" ".join(one.sql for one in all_measures().values()))


def _values(frame: pl.DataFrame, one: Measure) -> dict[str, Value]:
    if frame.columns not in (["key", "value"], ["key", "heads"]):
        raise ReferenceFileError(
            f"sql/reproduce/{one.name}.sql has columns {frame.columns}; it must have key and "
            "either value or heads"
        )
    values: dict[str, Value] = {}
    for key, value in frame.iter_rows():
        if key in values:
            raise ReferenceFileError(f"sql/reproduce/{one.name}.sql gives the key {key!r} twice")
        if value is None or isinstance(value, list):
            values[str(key)] = value
        else:
            values[str(key)] = float(value)
    return values


def _read(file: Path) -> Measure:
    sql = file.read_text()
    first = sql.partition("\n")[0]
    if not first.startswith("-- "):
        raise ReferenceFileError(f"{file} must start with a comment that says what it measures")
    return Measure(file.stem, first.removeprefix("-- ").strip(), sql)
