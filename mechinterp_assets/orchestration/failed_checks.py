"""Tables that failed a blocking check: nothing is made from them until they are made again.

Belongs here: asking the checks of what a unit reads. Dagster blocks within a run; this holds for
the runs after it, of command line and daemon. Does not belong here: the checks (sql/checks).
"""

from collections.abc import Iterable

from mechinterp_assets.orchestration.plan import StudyGraph, Unit
from mechinterp_assets.orchestration.table_checks import scope
from mechinterp_assets.storage.check_runs import run_checks
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Version


class FailedChecks:
    """Answers of a study's blocking checks, each asked once per version of a partition."""

    def __init__(self, lake: Lake, graph: StudyGraph) -> None:
        self._lake, self._graph = lake, graph
        self._known: dict[tuple[str, str, str, str], str] = {}

    def among(self, units: Iterable[Unit]) -> dict[Unit, str]:
        """Those of these units that were made and failed a check, with what did not hold."""
        shapes = self._graph.shapes
        steps = {unit.step for unit in units}
        current = {
            (version.table, version.partition): version
            for version in self._lake.current_of(t for step in steps for t in shapes[step].tables)
        }
        found: dict[Unit, str] = {}
        for unit in units:
            made = [current.get((table, unit.partition)) for table in shapes[unit.step].tables]
            failed = [why for version in made if version and (why := self._failure(version))]
            if failed:
                found[unit] = "; ".join(failed)
        return found

    def _failure(self, version: Version) -> str:
        study = self._graph.study
        bounds = study.checks.model_dump_json()
        key = (version.table, version.partition, version.data_version, bounds)
        if key not in self._known:
            checks = [one for one in table_checks()[version.table] if one.severity == "error"]
            per = self._lake.declared.tables[version.table].per
            work = [(checks, scope(study, version.partition, per))]
            self._known[key] = "; ".join(
                f"check {one.check.name} of {version.table} of {version.partition}: {one.what}"
                for one in run_checks(self._lake, work)
                if not one.passed
            )
        return self._known[key]
