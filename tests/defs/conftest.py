"""The tiny study, materialized once per test process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from mechinterp_assets.app.in_process_runs import FinishedRun
from mechinterp_assets.app.materialize import Materializer
from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study


@dataclass(frozen=True)
class Materialized:
    """A materialized study with everything that a test may look at."""

    study: Study
    home: Path
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    results: list[FinishedRun]

    @property
    def lake(self) -> Lake:
        """The lake of this home."""
        return Lake(self.home / "lake")

    def inputs(
        self, lake: Lake | None = None, tensors: Tensors | None = None, *settings: str
    ) -> Inputs:
        """Inputs that may read every table, of this home or of a copy."""
        reads = [*self.lake.declared.tables]
        declared = DeclaredSettings(self.study, settings, "a test")
        return Inputs(lake or self.lake, tensors or self.tensors, declared, reads, "a test")

    @property
    def tensors(self) -> Tensors:
        """The tensor store of this home."""
        return Tensors(self.home / "tensors")

    def run(
        self, assets: list[str], *, partition: str, raise_on_error: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Materialize some assets (and those computed with them) for one partition."""
        selection = dg.AssetSelection.assets(*assets).required_multi_asset_neighbors()
        job = dg.define_asset_job("some", selection=selection)
        definitions = dg.Definitions.merge(self.definitions, dg.Definitions(jobs=[job]))
        return definitions.resolve_job_def("some").execute_in_process(
            instance=self.instance, partition_key=partition, raise_on_error=raise_on_error
        )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materialized]:
    """Every asset of the study `tiny`, in a home of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINTERP_HOME", str(home))
        definitions = build_definitions()
        with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
            study = STUDIES["tiny"]
            work = Materializer(definitions, study, Lake(home / "lake"), instance)
            results = list(work.run_all())
            yield Materialized(study, home, definitions, instance, results)
