"""Tables that failed a blocking check: nothing is made from them until they are made again.

Belongs here: asking the checks of what a unit reads. Dagster blocks within a run; this holds for
the runs after it, of command line and daemon. Does not belong here: the checks (sql/checks).
"""

from collections.abc import Collection
from pathlib import Path

from cachetools import LRUCache

from mechinterp_assets.orchestration.plan import StudyGraph, Unit
from mechinterp_assets.orchestration.table_checks import scope
from mechinterp_assets.storage.check_runs import run_checks
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.studies.study import Study

# What a version was asked: lake, table, partition, data version, the study's bounds, statements.
_Question = tuple[Path, str, str, str, str, tuple[str, ...]]
# What does not hold, for all looks of a process: the daemon's code server takes one every few
# seconds, and a partition whose run failed stays ready to be started.
_ANSWERS: LRUCache[_Question, str] = LRUCache(maxsize=20_000)


def failed_checks(lake: Lake, graph: StudyGraph, units: Collection[Unit]) -> dict[Unit, str]:
    """Those of a study's units that were made and failed a blocking check, with what did not hold.

    A version is asked once per process; all that are new are asked through one connection.
    """
    unit_of = {
        (table, unit.partition): unit for unit in units for table in graph.shapes[unit.step].tables
    }
    made = [
        version
        for version in lake.current_of({table for table, _ in unit_of})
        if (version.table, version.partition) in unit_of
    ]
    found: dict[Unit, list[str]] = {}
    for version, answer in zip(made, _answers(lake, graph.study, made), strict=True):
        if answer:
            found.setdefault(unit_of[version.table, version.partition], []).append(answer)
    return {unit: "; ".join(found[unit]) for unit in units if unit in found}


def _answers(lake: Lake, study: Study, versions: list[Version]) -> list[str]:
    """What does not hold in each version; empty where all does."""
    blocking = {
        table: [check for check in checks if check.severity == "error"]
        for table, checks in table_checks().items()
    }
    bounds = study.checks.model_dump_json()
    questions = [
        (
            *(lake.root, version.table, version.partition, version.data_version, bounds),
            tuple(check.sql for check in blocking[version.table]),
        )
        for version in versions
    ]
    answers = {question: _ANSWERS.get(question) for question in questions}
    new = [question for question, answer in answers.items() if answer is None]
    if new:
        tables = lake.declared.tables
        failed: dict[tuple[str, str], list[str]] = {}
        for one in run_checks(
            lake,
            [
                (blocking[table], scope(study, partition, tables[table].per))
                for _, table, partition, *_ in new
            ],
        ):
            if not one.passed:
                table = one.check.table
                failed.setdefault((table, one.partition), []).append(
                    f"check {one.check.name} of {table} of {one.partition}: {one.what}"
                )
        for question in new:
            _, table, partition, *_ = question
            answers[question] = _ANSWERS[question] = "; ".join(failed.get((table, partition), []))
    return [answers[question] or "" for question in questions]
