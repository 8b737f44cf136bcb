"""Measures: what a study's tables say, by key, for comparison with references.

Belongs here: sql/reproduce/*.sql and what their rows mean. Such a file is one SELECT over the
catalog about the DuckDB variable `study`; its first comment line says what it is, and its columns
are `key` and either `value` (a number) or `heads` (a list of `layer.head`). A ratio has a column
`divisor_share` too: how large its divisor is beside the unedited model's value, so that one that
divides by almost nothing is not judged. All studies share them.

Further comment lines say what the number depends on: `statistic`, `position` and each condition
that the measure fixes (conditions.py has their names), and in `run` those that the study decides:

    -- statistic: CE loss recovered against zero ablation
    -- position: every token but BOS
    -- weights: raw
    -- run: model, bos, corpus, sae

Does not belong here: running them, which is the caller's.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from mechinterp_assets.reproduction.conditions import ALWAYS, CONDITIONS, run_sql
from mechinterp_assets.reproduction.reference_file import Reference, ReferenceFileError
from mechinterp_assets.storage.declarations import SQL_FOLDER, declarations

MEASURE_FOLDER = SQL_FOLDER / "reproduce"
RUN = "run"
_SAID = re.compile(r"-- (" + "|".join((*ALWAYS, *CONDITIONS, RUN)) + r"): (.+)")


@dataclass(frozen=True)
class Found:
    """One value of a study; divisor_share: see the module, None where it is no ratio."""

    value: float | list[str] | None
    divisor_share: float | None = None


NOTHING = Found(None)
Measured = Mapping[str, Mapping[str, Found]]


@dataclass(frozen=True)
class Measure:
    """One measure: its name, what it is, its SQL.

    fixed: statistic, position and the conditions that it fixes. of_run: names of those that the
    study decides.
    """

    name: str
    what: str
    sql: str
    fixed: Mapping[str, str]
    of_run: tuple[str, ...]

    def conditions(self, run: Mapping[str, str]) -> dict[str, str]:
        """What its number depends on, of a run with these conditions, as far as it is known."""
        return {**self.fixed, **{name: run[name] for name in self.of_run if name in run}}


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


def measures_of(references: Iterable[Reference]) -> dict[str, Measure]:
    """Measures that references name, by name. Raises ReferenceFileError."""
    return {one.measure: find_measure(one.measure) for one in references}


def measured(
    measures: Mapping[str, Measure], query: Callable[[str], pl.DataFrame]
) -> dict[str, dict[str, Found]]:
    """Values of measures by key; `query` gives the rows of a statement about a study.

    A measure whose tables have no rows of the study is an empty mapping.
    """
    return {name: _values(query(one.sql), one) for name, one in measures.items()}


def tables_read() -> frozenset[str]:
    """Tables that the measures read, directly or through views."""
    measures = (one.sql for one in all_measures().values())
    return declarations().tables_read(" ".join([*measures, run_sql()]))


def _values(frame: pl.DataFrame, one: Measure) -> dict[str, Found]:
    if frame.columns not in (["key", "value"], ["key", "value", "divisor_share"], ["key", "heads"]):
        raise ReferenceFileError(
            f"sql/reproduce/{one.name}.sql has columns {frame.columns}; it must have key and "
            "either value (a ratio also divisor_share) or heads"
        )
    values: dict[str, Found] = {}
    for key, value, *share in frame.iter_rows():
        if key in values:
            raise ReferenceFileError(f"sql/reproduce/{one.name}.sql gives the key {key!r} twice")
        plain = value if value is None or isinstance(value, list) else float(value)
        values[str(key)] = Found(plain, *share)
    return values


def _read(file: Path) -> Measure:
    sql = file.read_text()
    first = sql.partition("\n")[0]
    if not first.startswith("-- "):
        raise ReferenceFileError(f"{file} must start with a comment that says what it measures")
    matches = (match for line in sql.splitlines() if (match := _SAID.fullmatch(line)))
    said = {match[1]: match[2] for match in matches}
    of_run = tuple(name.strip() for name in said.pop(RUN, "").split(",") if name.strip())
    if missing := [name for name in ALWAYS if name not in said]:
        raise ReferenceFileError(f"{file} must say its {missing[0]}: `-- {missing[0]}: ...`")
    if unknown := [name for name in of_run if name not in CONDITIONS]:
        raise ReferenceFileError(
            f"{file}: run: no condition {unknown[0]!r}; one of {', '.join(CONDITIONS)}"
        )
    return Measure(file.stem, first.removeprefix("-- ").strip(), sql, said, of_run)
