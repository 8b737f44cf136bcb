"""The one entry point of the code location.

Belongs here: putting what is in `defs` together with resources. `build_definitions` takes resources
to override, for tests and other set-ups. Importing it imports no science: assets do that when they
run.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mechinterp_assets import defs as every_group
from mechinterp_assets.defs.automation import SCHEDULES, SENSORS, stage_jobs
from mechinterp_assets.orchestration.automation import StaleAndReady
from mechinterp_assets.orchestration.logging import short_console_logger
from mechinterp_assets.orchestration.sources import study_sources
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.lake import LakeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.resources.tensors import TensorsResource
from mechinterp_assets.storage.home import (
    dashboard_folder,
    lake_folder,
    models_folder,
    tensor_folder,
)


def default_resources() -> dict[str, Any]:
    """Resources over MECHINTERP_HOME and the best device of this machine."""
    compute = ComputeResource()
    return {
        "compute": compute,
        "models": LanguageModelResource(root=str(models_folder()), compute=compute),
        "lake": LakeResource(root=str(lake_folder())),
        "tensors": TensorsResource(root=str(tensor_folder())),
        "dashboards": DashboardsResource(root=str(dashboard_folder())),
    }


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything the code location offers, with `resources` in place of the defaults."""
    loaded = dg.load_assets_from_package_module(every_group)
    tables = dg.map_asset_specs(
        lambda spec: spec.replace_attributes(automation_condition=StaleAndReady()),
        [one for one in loaded if isinstance(one, dg.AssetsDefinition)],
    )
    return dg.Definitions(
        assets=[*tables, *study_sources()],
        asset_checks=dg.load_asset_checks_from_package_module(every_group),
        jobs=stage_jobs(),
        schedules=SCHEDULES,
        sensors=SENSORS,
        loggers={"console": short_console_logger},
        resources={**default_resources(), **(resources or {})},
        # One process per run: the model is loaded once, and pools still hold their limits.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location `mechinterp`."""
    return build_definitions()
