"""Checks of tables: SQL statements that return the rows for which something does not hold.

Two sources, one form. From a table's declaration come checks of its keys, NULLs, CHECKs, finite
numbers, foreign keys, number of rows, and of the partition that its rows say they are in. What a
table means beyond that stands in `sql/checks/<table>.<name>.sql`: a comment that says what must
hold, a line `-- severity: warn` where a breach is no error, and the statement.

Statements see the whole catalog and pick the rows of one partition by DuckDB variables: `study`,
`layer` (tables per layer), `file` (of the partition's rows), `checks.<key>`, the bounds that the
study sets, and `model.rounding`, the relative rounding error of its model's precision. NaN passes
nothing: DuckDB takes it for the largest number, so that a bound from below would let it through; a
CHECK fails where a column in it is NaN. Statements of one's own say `(what must hold) IS NOT TRUE`,
with a bound from above.

Belongs here: the statements. Does not belong here: running them (check_runs.py), how constraints
are declared (constraints.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mechinterp_assets.storage.constraints import is_real, partition_filter
from mechinterp_assets.storage.declarations import SQL_FOLDER, find_table, table_specs
from mechinterp_assets.storage.sql_text import quote_name, quote_text
from mechinterp_assets.storage.table_spec import (
    Column,
    Condition,
    DeclarationError,
    Reference,
    TableSpec,
)

Severity = Literal["error", "warn"]

_FILE_NAME = re.compile(r"(?P<table>\w+)\.(?P<name>\w+)")
_HEADER = re.compile(r"(?:--[^\n]*\n)*")
_SEVERITY = re.compile(r"^-- severity: *(.*?) *$\n?", re.MULTILINE)


@dataclass(frozen=True)
class TableCheck:
    """One check: `sql` returns a row for each breach of what `description` says.

    `is_generated`: from the table's declaration, not from a file of its own.
    """

    table: str
    name: str
    description: str
    sql: str
    severity: Severity = "error"
    is_generated: bool = False


def table_checks(folder: Path = SQL_FOLDER) -> dict[str, tuple[TableCheck, ...]]:
    """The checks of every declared table: generated ones, then those of `<folder>/checks`.

    Raises:
        DeclarationError: a declaration, or a file of checks, that cannot be read.
    """
    specs = table_specs(folder)
    found = {name: list(generated_checks(spec)) for name, spec in specs.items()}
    for path in sorted((folder / "checks").glob("*.sql")):
        check = _read(path, specs)
        if check.name in {other.name for other in found[check.table]}:
            raise DeclarationError(f"{path}: {check.table} has a check of that name already")
        found[check.table].append(check)
    return {name: tuple(checks) for name, checks in found.items()}


def generated_checks(spec: TableSpec) -> Iterator[TableCheck]:
    """The checks that follow from a declaration, one of each kind that applies."""
    constraints = spec.constraints
    parts = {
        "key": (
            "No two rows agree in a key: " + "; ".join(", ".join(key) for key in constraints.keys),
            [_duplicates(spec, key) for key in constraints.keys],
        ),
        "not_null": ("Columns declared NOT NULL, and lists, hold no NULL", _nulls(spec)),
        "values": (
            "; ".join(condition.expression for condition in constraints.conditions),
            _broken_conditions(spec),
        ),
        "finite": ("No number is infinite or NaN", _not_finite(spec)),
        "references": (
            "; ".join(_in_words(reference) for reference in constraints.references),
            [_dangling(spec, reference) for reference in constraints.references],
        ),
        "below": (
            "; ".join(f"{bound.column} < {bound.size}" for bound in constraints.bounds),
            _beyond(spec),
        ),
        "rows": (f"Rows: {constraints.rows.words if constraints.rows else ''}", _miscounted(spec)),
        "partition": ("Rows say that they are of the partition they are in", _misplaced(spec)),
    }
    for name, (description, statements) in parts.items():
        if statements:
            sql = "\nUNION ALL BY NAME\n".join(statements)
            yield TableCheck(spec.name, name, description, sql, is_generated=True)


def _read(path: Path, specs: Mapping[str, TableSpec]) -> TableCheck:
    name = _FILE_NAME.fullmatch(path.stem)
    if name is None:
        raise DeclarationError(f"{path}: name it <table>.<what must hold>.sql")
    text = path.read_text()
    header = _HEADER.match(text)
    comment = header[0] if header else ""
    severity = _SEVERITY.search(comment)
    said = severity[1] if severity else "error"
    words = _SEVERITY.sub("", comment).replace("--", " ").split()
    if not words:
        raise DeclarationError(f"{path}: say in a comment at the top what must hold")
    for one in get_args(Severity):
        if said == one:
            table = find_table(name["table"], specs).name
            sql = text[len(comment) :].strip().rstrip(";")
            return TableCheck(table, name["name"], " ".join(words), sql, one)
    raise DeclarationError(f"{path}: severity {said!r} is none of {', '.join(get_args(Severity))}")


# ---- statements ----------------------------------------------------------------------------------


def _rows(spec: TableSpec) -> str:
    return f"FROM {quote_name(spec.name)} WHERE {partition_filter(spec.per)}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(quote_name(name) for name in names)


def _key(spec: TableSpec) -> tuple[str, ...]:
    """Columns that say which row it is: the key, or all."""
    keys = spec.constraints.keys
    return keys[0] if keys else tuple(column.name for column in spec.columns)


def _place(spec: TableSpec) -> tuple[str, ...]:
    """Columns that all rows of a partition share."""
    return ("study", "layer") if spec.per == "site" else ("study",)


def _duplicates(spec: TableSpec, key: tuple[str, ...]) -> str:
    within = [name for name in key if name not in _place(spec)]
    shown = "".join(f"{quote_name(name)}, " for name in within)
    by = f" GROUP BY {_list(within)}" if within else ""
    return f"SELECT {shown}count(*) AS n_rows {_rows(spec)}{by} HAVING n_rows > 1"


def _nulls(spec: TableSpec) -> list[str]:
    tests = {}
    for column in spec.columns:
        name = quote_name(column.name)
        if not column.nullable:
            tests[column.name] = f"{name} IS NULL"
        if column.type.endswith("[]"):
            inside = f"len({name}) <> list_count({name})"
            tests[column.name] = " OR ".join(filter(None, [tests.get(column.name), inside]))
    return _rows_where(spec, tests, "nulls_in")


def _broken_conditions(spec: TableSpec) -> list[str]:
    return _rows_where(
        spec, {one.expression: _broken(one, spec) for one in spec.constraints.conditions}, "broken"
    )


def _broken(condition: Condition, spec: TableSpec) -> str:
    """As CHECK, NULL is no breach; unlike CHECK, NaN is one."""
    nan = [
        f"isnan({_largest(column)})"
        for column in spec.columns
        if column.name in condition.columns and is_real(column.type)
    ]
    return " OR ".join([f"NOT coalesce({condition.expression}, true)", *nan])


def _not_finite(spec: TableSpec) -> list[str]:
    tests = {
        column.name: " OR ".join(f"NOT isfinite({one})" for one in _extremes(column))
        for column in spec.columns
        if is_real(column.type) and column.name not in spec.constraints.not_finite
    }
    return _rows_where(spec, tests, "not_finite_in")


def _rows_where(spec: TableSpec, tests: Mapping[str, str], named: str) -> list[str]:
    """Rows for which a test holds, and which: at most one statement."""
    if not tests:
        return []
    which = ", ".join(f"CASE WHEN {test} THEN {quote_text(n)} END" for n, test in tests.items())
    shown = [name for name in tests if name in {column.name for column in spec.columns}]
    extra = [
        name
        for condition in spec.constraints.conditions
        if condition.expression in tests
        for name in condition.columns
    ]
    columns = [n for n in dict.fromkeys([*_key(spec), *shown, *extra]) if n not in _place(spec)]
    also = "".join(f", {quote_name(name)}" for name in columns)
    return [
        f"SELECT concat_ws('; ', {which}) AS {named}{also} {_rows(spec)}"
        f" AND ({' OR '.join(f'({test})' for test in tests.values())})"
    ]


def _dangling(spec: TableSpec, reference: Reference) -> str:
    pairs = list(zip(reference.columns, reference.referenced, strict=True))
    # What a whole partition shares is a filter, the rest is joined.
    shared = [own for own, other in pairs if own == other and own in _place(spec)]
    joined = [pair for pair in pairs if pair[0] not in shared]
    own = ", ".join(f"{quote_name(name)} AS c{i}" for i, (name, _) in enumerate(joined))
    other = ", ".join(f"{quote_name(name)} AS c{i}" for i, (_, name) in enumerate(joined))
    given = "".join(f" AND {quote_name(name)} IS NOT NULL" for name, _ in joined)
    where = f" AND ({reference.where})" if reference.where else ""
    place = " AND ".join(f"{name} = getvariable('{name}')" for name in shared) or "true"
    table, back = quote_name(reference.table), f"{quote_text(reference.table)} AS lacks_it"
    if not joined:
        there = f"EXISTS (SELECT 1 FROM {table} WHERE {place})"
        return f"SELECT DISTINCT {_list(shared)}, {back} {_rows(spec)}{where} AND NOT {there}"
    names = ", ".join(f"c{i} AS {quote_name(name)}" for i, (name, _) in enumerate(joined))
    using = ", ".join(f"c{i}" for i in range(len(joined)))
    return (
        f"SELECT {names}, {back} FROM (SELECT DISTINCT {own} {_rows(spec)}{given}{where})"
        f" ANTI JOIN (SELECT {other} FROM {table} WHERE {place}) USING ({using})"
    )


def _beyond(spec: TableSpec) -> list[str]:
    """Numbers that are no index of a layer, head, token or feature that there is.

    A size that is not known, since the model or SAE has no row, is a breach too.
    """
    statements = []
    for table in dict.fromkeys(bound.table for bound in spec.constraints.bounds):
        bounds = [bound for bound in spec.constraints.bounds if bound.table == table]
        using = "study, layer" if table == "attention_sae" else "study"
        columns = list(dict.fromkeys(["layer"] * (using != "study") + [b.column for b in bounds]))
        breach = " OR ".join(
            f"{quote_name(one.column)} IS NOT NULL"
            f" AND ({quote_name(one.column)} < {one.size}) IS NOT TRUE"
            for one in bounds
        )
        sizes = ", ".join(dict.fromkeys(bound.size for bound in bounds))
        statements.append(
            f"SELECT {_list(columns)}, {sizes}"
            f" FROM (SELECT DISTINCT study, {_list(columns)} {_rows(spec)})"
            f" LEFT JOIN (SELECT {using}, {sizes} FROM {table}) USING ({using}) WHERE {breach}"
        )
    return statements


def _in_words(reference: Reference) -> str:
    where = f" where {reference.where}" if reference.where else ""
    return (
        f"({', '.join(reference.columns)}) is in {reference.table}"
        f" ({', '.join(reference.referenced)}){where}"
    )


def _miscounted(spec: TableSpec) -> list[str]:
    count = spec.constraints.rows
    if count is None:
        return []
    groups = "".join(f"{quote_name(name)}, " for name in count.for_each)
    by = f" GROUP BY {_list(count.for_each)}" if count.for_each else ""
    breach = "n_rows < n_expected" if count.at_least else "n_rows IS DISTINCT FROM n_expected"
    return [
        f"SELECT * FROM (SELECT {groups}count(*) AS n_rows, {count.expected} AS n_expected"
        f" {_rows(spec)}{by}) WHERE {breach}"
    ]


def _misplaced(spec: TableSpec) -> list[str]:
    columns = _place(spec)
    differ = " OR ".join(f"{name} IS DISTINCT FROM getvariable('{name}')" for name in columns)
    return [
        f"SELECT DISTINCT {_list(columns)} FROM read_parquet(getvariable('file')) WHERE {differ}"
    ]


def _largest(column: Column) -> str:
    return _extremes(column)[0]


def _extremes(column: Column) -> tuple[str, ...]:
    """What to look at for a number that is not finite; NaN is the largest of a list."""
    name = quote_name(column.name)
    return (f"list_max({name})", f"list_min({name})") if column.type.endswith("[]") else (name,)
