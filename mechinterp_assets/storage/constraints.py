"""Constraints of tables, read back from what their files declare.

    CREATE TABLE: PRIMARY KEY, UNIQUE, CHECK, NOT NULL
    -- references: attention_sae (study, layer)
    -- references: ioi_prompts (study, prompt) where task = 'ioi'
    -- references: study, layer, neighbour -> feature_statistics (study, layer, feature)
    -- rows: one per head for each score
    -- below: layer < n_layers, feature < d_sae
    -- may be infinite or NaN: column, column

Foreign keys, row counts and sizes are lines of the header: DuckDB wants the table that is
referenced to exist before, and knows no condition over several tables.

Belongs here: the grammar of these lines, and what DuckDB says of the rest. Does not belong here:
what a constraint is (table_spec.py), the statements that check it (checks.py).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import duckdb

from mechinterp_assets.storage.sql_text import quote_name
from mechinterp_assets.storage.table_spec import (
    Bound,
    Column,
    Condition,
    Constraints,
    DeclarationError,
    Per,
    Reference,
    RowCount,
)

_HEADER = re.compile(r"^-- (references|rows|below|may be infinite or NaN): *(.*?) *$", re.MULTILINE)
_REFERENCE = re.compile(
    r"(?:(?P<columns>[\w, ]+?) *-> *)?(?P<table>\w+) *\((?P<referenced>[\w, ]+)\)"
    r"(?: where (?P<where>.+))?"
)
_ROWS = re.compile(r"(?P<unit>.+?)(?: for each (?P<columns>[\w, ]+))?")
_ROWS_OF = re.compile(r"one per row of (?P<table>\w+)")
_MODEL, _SAE = "language_model", "attention_sae"
# Unit -> the table that knows the number, and the number in it; by what a partition is of.
_UNITS: dict[str, dict[Per, tuple[str, str]]] = {
    "one per layer": {"study": (_MODEL, "n_layers")},
    "one per head": {"study": (_MODEL, "n_layers * n_heads"), "site": (_MODEL, "n_heads")},
    "one per token": {"study": (_MODEL, "d_vocab")},
    "one per feature": {"site": (_SAE, "d_sae")},
}
_SIZES = {
    **dict.fromkeys(("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_vocab"), _MODEL),
    "d_sae": _SAE,
}
_BOUND = re.compile(r"(?P<column>\w+) *< *(?P<size>\w+)")
_ONE = {"one": False, "at least one": True}


def partition_filter(per: Per) -> str:
    """SQL condition of the rows of one partition, by the variables `study` and `layer`."""
    layer = " AND layer = getvariable('layer')" if per == "site" else ""
    return f"study = getvariable('study'){layer}"


def native_constraints(con: duckdb.DuckDBPyConnection) -> dict[str, Constraints]:
    """PRIMARY KEY, UNIQUE and CHECK of every table of a database.

    Raises:
        DeclarationError: a foreign key, which is a line of the header here.
    """
    keys: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    conditions: dict[str, list[Condition]] = defaultdict(list)
    for table, kind, expression, columns in con.execute(
        "SELECT table_name, constraint_type, expression, constraint_column_names"
        " FROM duckdb_constraints() WHERE constraint_type <> 'NOT NULL'"
        " ORDER BY table_name, constraint_type <> 'PRIMARY KEY', constraint_index"
    ).fetchall():
        if kind in ("PRIMARY KEY", "UNIQUE"):
            keys[table].append(tuple(columns))
        elif kind == "CHECK":
            conditions[table].append(Condition(expression, tuple(columns)))
        else:
            raise DeclarationError(
                f"sql/tables/{table}.sql declares a {kind}; write it as a line of its header,"
                " '-- references: <table> (<columns>)'"
            )
    return {
        table: Constraints(tuple(keys[table]), tuple(conditions[table]))
        for table in keys.keys() | conditions.keys()
    }


def with_header(
    native: Constraints, text: str, path: Path, per: Per, columns: Iterable[Column]
) -> Constraints:
    """`native` and what the header of the file `path` adds.

    Raises:
        DeclarationError: a line that cannot be read, or names a column that the table lacks.
    """
    types = {column.name: column.type for column in columns}
    references: list[Reference] = []
    rows: RowCount | None = None
    bounds: list[Bound] = []
    not_finite: set[str] = set()
    for kind, said in _HEADER.findall(text):
        if kind == "references":
            references.append(_reference(said, path))
            _require(references[-1].columns, types, path, said)
        elif kind == "rows":
            if rows is not None:
                raise DeclarationError(f"{path} has two lines '-- rows:'; write one")
            rows = _rows(said, per, path)
            _require(rows.for_each, types, path, said)
        elif kind == "below":
            bounds += _bounds(said, path)
            _require([bound.column for bound in bounds], types, path, said)
            if "layer" not in types and any(bound.table == _SAE for bound in bounds):
                raise DeclarationError(f"{path}: {said!r} needs a column layer, to find its SAE by")
        else:
            named = _names(said)
            _require(named, types, path, said)
            if exact := [name for name in named if not is_real(types[name])]:
                raise DeclarationError(f"{path}: {exact[0]} is {types[exact[0]]}, always finite")
            not_finite.update(named)
    return replace(
        native,
        references=tuple(references),
        rows=rows,
        bounds=tuple(bounds),
        not_finite=frozenset(not_finite),
    )


def is_real(type_name: str) -> bool:
    """Whether values, or elements of lists, of a DuckDB type can be infinite or NaN."""
    return type_name.rstrip("[]") in ("FLOAT", "DOUBLE")


def _reference(said: str, path: Path) -> Reference:
    found = _REFERENCE.fullmatch(said)
    if found is None:
        raise DeclarationError(
            f"{path}: cannot read '-- references: {said}'; write '<table> (<columns>)', with"
            " '<own columns> ->' before it where they are called otherwise"
        )
    referenced = _names(found["referenced"])
    columns = _names(found["columns"]) if found["columns"] else referenced
    if len(columns) != len(referenced):
        raise DeclarationError(
            f"{path}: '-- references: {said}' pairs {len(columns)} columns with {len(referenced)}"
        )
    return Reference(columns, found["table"], referenced, found["where"])


def _rows(said: str, per: Per, path: Path) -> RowCount:
    found = _ROWS.fullmatch(said)
    unit, for_each = (found["unit"], _names(found["columns"] or "")) if found else ("", ())
    if unit in _ONE:
        return RowCount(said, "1", for_each, at_least=_ONE[unit])
    if of := _ROWS_OF.fullmatch(unit):
        count = f"(SELECT count(*) FROM {quote_name(of['table'])} WHERE {partition_filter(per)})"
        return RowCount(said, count, for_each)
    if per not in _UNITS.get(unit, {}):
        known = [*_ONE, *(name for name, by in _UNITS.items() if per in by), "one per row of TABLE"]
        raise DeclarationError(
            f"{path}: cannot read '-- rows: {said}'; write one of {', '.join(known)}, with"
            " 'for each <columns>' behind it where it is so many for each of their values"
        )
    table, number = _UNITS[unit][per]
    where = partition_filter("site" if table == _SAE else "study")
    return RowCount(said, f"(SELECT {number} FROM {table} WHERE {where})", for_each)


def _bounds(said: str, path: Path) -> list[Bound]:
    found = []
    for one in _names(said):
        pair = _BOUND.fullmatch(one)
        if pair is None or pair["size"] not in _SIZES:
            raise DeclarationError(
                f"{path}: cannot read '-- below: {one}'; write '<column> < <size>', a size being"
                f" one of {', '.join(_SIZES)}"
            )
        found.append(Bound(pair["column"], pair["size"], _SIZES[pair["size"]]))
    return found


def _names(said: str) -> tuple[str, ...]:
    return tuple(name for part in said.split(",") if (name := part.strip()))


def _require(named: Iterable[str], types: dict[str, str], path: Path, said: str) -> None:
    if unknown := [name for name in named if name not in types]:
        raise DeclarationError(
            f"{path}: its header says {said!r}, but the table has no column {unknown[0]}"
        )
