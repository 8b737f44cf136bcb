"""Checks of the tables of a study: which partitions there are, and the bounds that it sets.

Belongs here: what the checks see of a study. Does not belong here: the checks (sql/checks, storage)
and how Dagster shows them (defs/checks.py).
"""

from collections.abc import Iterable, Iterator

import polars as pl

from mechinterp_assets.storage.check_runs import CheckResult, Scope, frame, run_checks
from mechinterp_assets.storage.checks import TableCheck, table_checks
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.table_spec import Per
from mechinterp_assets.studies.study import Study, parse_site


def scope(study: Study, partition: str, per: Per) -> Scope:
    """A partition of a study, with the study's bounds (section `checks`) as variables, and by how
    much its model rounds."""
    bounds = {f"checks.{name}": value for name, value in study.checks.model_dump().items()}
    bounds["model.rounding"] = study.model.rounding
    place: dict[str, str | int] = {"study": study.study}
    if per == "site":
        place["layer"] = parse_site(partition)[1]
    return Scope(partition, {**place, **bounds})


def study_results(
    lake: Lake, study: Study, checks: Iterable[TableCheck] | None = None
) -> Iterator[CheckResult]:
    """Run checks (default: all) on every partition of the study that the lake has."""
    wanted = [one for of in table_checks().values() for one in of] if checks is None else checks
    by_table: dict[str, list[TableCheck]] = {}
    for check in wanted:
        by_table.setdefault(check.table, []).append(check)
    yield from run_checks(
        lake,
        [
            (own, scope(study, key, lake.declared.tables[table].per))
            for table, own in by_table.items()
            for key in _present(lake, study, table)
        ],
    )


def _present(lake: Lake, study: Study, table: str) -> list[str]:
    per_study = lake.declared.tables[table].per == "study"
    there = set(lake.partitions(table))
    return [key for key in ([study.study] if per_study else study.sites) if key in there]


def check_study(lake: Lake, study: Study) -> pl.DataFrame:
    """All checks of a study's tables.

    Returns:
        One row per check and partition: table, partition, check, severity (error, warn), passed,
        and what did not hold.
    """
    return frame(study_results(lake, study))
