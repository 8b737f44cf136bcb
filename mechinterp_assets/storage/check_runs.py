"""Running checks of tables over a lake.

Belongs here: which variables a statement sees, and what is kept of its answer. Does not belong
here: the statements (checks.py), which study has which bounds and partitions (orchestration).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import polars as pl

from mechinterp_assets.storage.checks import TableCheck
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.sql_text import quote_name, quote_text

# Breaches that are shown of a check.
SHOWN_ROWS = 5

Value = str | int | float | None | Sequence[float]


@dataclass(frozen=True)
class Scope:
    """A partition to check, and the variables that statements see beside its file."""

    partition: str
    variables: Mapping[str, Value]


@dataclass(frozen=True)
class CheckResult:
    """What a check found in one partition: how many breaches, the first of them, what was run."""

    check: TableCheck
    partition: str
    n_breaches: int
    breaches: pl.DataFrame
    sql: str

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return self.n_breaches == 0

    @property
    def what(self) -> str:
        """What was found, in one line; empty where the check passed."""
        if self.passed:
            return ""
        shown = "; ".join(
            ", ".join(f"{name} {_text(value)}" for name, value in row.items() if value is not None)
            for row in self.breaches.iter_rows(named=True)
        )
        rows = "1 row" if self.n_breaches == 1 else f"{self.n_breaches} rows"
        more = "; ..." if self.n_breaches > self.breaches.height else ""
        return f"{rows}: {shown}{more}"


def run_checks(
    lake: Lake, work: Iterable[tuple[Sequence[TableCheck], Scope]]
) -> Iterator[CheckResult]:
    """Run checks, each on its partition, through one connection.

    Raises:
        LakeError: a table has no data for a partition.
    """
    with lake.connect() as con:
        for checks, scope in work:
            for table in dict.fromkeys(check.table for check in checks):
                variables = {**scope.variables, "file": _file(con, table, scope.partition)}
                for statement in _assignments(variables):
                    con.execute(statement)
                for check in checks:
                    if check.table == table:
                        yield _run(con, check, scope.partition, variables)


def frame(results: Iterable[CheckResult]) -> pl.DataFrame:
    """One row per check and partition: table, partition, check, severity, passed, what."""
    return pl.DataFrame(
        [
            (
                one.check.table,
                one.partition,
                one.check.name,
                one.check.severity,
                one.passed,
                one.what,
            )
            for one in results
        ],
        schema={
            "table": pl.String,
            "partition": pl.String,
            "check": pl.String,
            "severity": pl.String,
            "passed": pl.Boolean,
            "what": pl.String,
        },
        orient="row",
    )


def _file(con: duckdb.DuckDBPyConnection, table: str, partition: str) -> str:
    found = con.execute(
        "SELECT path FROM versions WHERE table_name = ? AND partition = ? AND is_current",
        [table, partition],
    ).fetchall()
    if not found:
        raise LakeError(
            f"{table} has no data for {partition}; materialize the asset {table} for it"
        )
    return str(found[0][0])


def _run(
    con: duckdb.DuckDBPyConnection,
    check: TableCheck,
    partition: str,
    variables: Mapping[str, Value],
) -> CheckResult:
    rows: pl.DataFrame = con.sql(
        f"SELECT *, count(*) OVER () AS n_breaches FROM ({check.sql}) LIMIT {SHOWN_ROWS}"
    ).pl()
    n = int(rows["n_breaches"][0]) if rows.height else 0
    used = {name: value for name, value in variables.items() if f"'{name}'" in check.sql}
    statement = "".join(f"{one};\n" for one in _assignments(used)) + check.sql
    return CheckResult(check, partition, n, rows.drop("n_breaches"), statement)


def _assignments(variables: Mapping[str, Value]) -> Iterator[str]:
    for name, value in variables.items():
        yield f"SET VARIABLE {quote_name(name)} = {_literal(value)}"


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return quote_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value!r}::DOUBLE" if math.isfinite(value) else f"'{value}'::DOUBLE"
    return f"[{', '.join(_literal(one) for one in value)}]"


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
