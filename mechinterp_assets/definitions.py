"""The one entry point of the code location.

Belongs here: putting assets, checks, jobs, schedules and resources together. `build_definitions`
takes resources to override, for tests and other set-ups.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mechinterp_assets.defs.activations import activation_cache as activations
from mechinterp_assets.defs.automation import JOBS, SCHEDULES
from mechinterp_assets.defs.checks import CHECKS
from mechinterp_assets.defs.circuits import circuit_quality, qk_features
from mechinterp_assets.defs.corpus import corpus
from mechinterp_assets.defs.features import feature_dashboards as dashboards
from mechinterp_assets.defs.features import feature_meaning, feature_relations
from mechinterp_assets.defs.features import feature_pass as features
from mechinterp_assets.defs.features import feature_rdfa as rdfa
from mechinterp_assets.defs.heads import head_dashboards, head_features, prefix_induction
from mechinterp_assets.defs.heads import head_scores as heads
from mechinterp_assets.defs.interventions import experiment_dashboards
from mechinterp_assets.defs.interventions import intervention_results as interventions
from mechinterp_assets.defs.ioi import ioi_baseline as ioi
from mechinterp_assets.defs.ioi import ioi_trace as traces
from mechinterp_assets.defs.reproduction import reproduction
from mechinterp_assets.defs.saes import attention_sae as saes
from mechinterp_assets.defs.saes import sae_frontier as sweeps
from mechinterp_assets.defs.saes import sae_matching as sae_comparison
from mechinterp_assets.defs.tasks import task_effects
from mechinterp_assets.defs.tasks import task_prompts as tasks
from mechinterp_assets.orchestration.logging import short_console_logger
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.lake import LakeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.resources.tensors import TensorsResource
from mechinterp_assets.storage.home import dashboard_folder, lake_folder, tensor_folder

ASSET_MODULES = [
    corpus,
    activations,
    saes,
    sweeps,
    features,
    feature_relations,
    feature_meaning,
    rdfa,
    sae_comparison,
    dashboards,
    experiment_dashboards,
    heads,
    prefix_induction,
    head_features,
    head_dashboards,
    ioi,
    interventions,
    tasks,
    task_effects,
    traces,
    circuit_quality,
    qk_features,
    reproduction,
]


def default_resources() -> dict[str, Any]:
    """Resources over MECHINTERP_HOME and the best device of this machine."""
    compute = ComputeResource()
    return {
        "compute": compute,
        "models": LanguageModelResource(compute=compute),
        "lake": LakeResource(root=str(lake_folder())),
        "tensors": TensorsResource(root=str(tensor_folder())),
        "dashboards": DashboardsResource(root=str(dashboard_folder())),
    }


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything the code location offers, with `resources` in place of the defaults."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules(ASSET_MODULES),
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        loggers={"console": short_console_logger},
        resources={**default_resources(), **(resources or {})},
        # One process per run: the model is loaded once, and pools still hold their limits.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location `mechinterp`."""
    return build_definitions()
