"""Jobs, schedules and sensors.

Belongs here: which assets run together and when. The stages of a study differ in what they are
partitioned by, so each is a job; a backfill of the whole graph in the UI needs none of them.
"""

import json
import warnings

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mechinterp_assets.orchestration.partitions import range_tags
from mechinterp_assets.orchestration.plan import stages
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.shape import SHAPES
from mechinterp_assets.orchestration.sources import data_versions
from mechinterp_assets.studies.registry import load_registry

LOOK_EVERY_SECONDS = 15

# What each stage of a study is called and makes; the stages follow from what assets read.
_STAGES = {
    "study_foundations": "Everything of a study that needs no SAE: corpus, tasks, heads, traces",
    "study_layers": "Activation caches, SAEs and features of a study's layers",
    "study_overviews": "Per-study tables that read all layers, interventions, labels",
    "layer_pages": "Pages of a study's layers",
    "study_pages": "Pages of a study",
}


def stage_jobs() -> list[UnresolvedAssetJobDefinition]:
    """A job per stage, to be run one after the other; and the evaluation by itself."""
    jobs = []
    for (name, description), steps in zip(_STAGES.items(), stages(), strict=True):
        shapes = [SHAPES[step] for step in steps]
        partitions = PARTITIONS.studies if shapes[0].per == "study" else PARTITIONS.sites
        jobs.append(
            dg.define_asset_job(
                name,
                selection=dg.AssetSelection.assets(*(t for one in shapes for t in one.tables)),
                partitions_def=partitions,
                description=description,
            )
        )
    return [*jobs, evaluation]


evaluation = dg.define_asset_job(
    "evaluation",
    selection=dg.AssetSelection.assets("sae_evaluation"),
    partitions_def=PARTITIONS.sites,
    description="Evaluate the SAEs again on held-out tokens",
)


@dg.schedule(job=evaluation, cron_schedule="0 3 * * 1", execution_timezone="UTC")
def weekly_evaluation(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """Every Monday: evaluate all SAEs that exist again, one run per study."""
    materialized = context.instance.get_materialized_partitions(dg.AssetKey("attention_sae"))
    requests = []
    for study in STUDIES.values():
        sites = [site for site in study.sites if site in materialized]
        if sites == study.sites:
            requests.append(_range_request(context, sites[0], sites[-1], study.study))
        else:
            requests += [_range_request(context, s, s, study.study) for s in sites]
    return requests


SCHEDULES = [weekly_evaluation]

with warnings.catch_warnings():
    # Evaluating in the code server is in beta in Dagster 1.13; the lock on 1.13 keeps it as it is.
    warnings.simplefilter("ignore", dg.BetaWarning)
    rerun_what_is_stale = dg.AutomationConditionSensorDefinition(
        "rerun_what_is_stale",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        use_user_code_server=True,
        description="Makes what is missing or stale of studies whose file says `automation: true`, "
        "each once for what made it so; other studies are left alone",
    )


@dg.sensor(
    minimum_interval_seconds=LOOK_EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks at study files and the files they name; what changed becomes an observation "
    "of its source asset (settings/..., files/...). New files in a corpus folder are seen here",
)
def study_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Observations of the sources whose data version changed since the last look."""
    known = set(PARTITIONS.studies.get_partition_keys())
    studies = [one for one in load_registry().studies.values() if one.study in known]
    versions = {
        f"{key.to_user_string()}:{study}": version
        for key, many in data_versions(studies).items()
        for study, version in many.items()
    }
    before = json.loads(context.cursor or "{}")
    events = [
        dg.AssetObservation(
            dg.AssetKey(name.rpartition(":")[0].split("/")),
            partition=name.rpartition(":")[2],
            tags={DATA_VERSION_TAG: version},
        )
        for name, version in versions.items()
        if before.get(name) != version
    ]
    return dg.SensorResult(asset_events=events, cursor=json.dumps(versions))


SENSORS = [rerun_what_is_stale, study_files]


def _range_request(
    context: dg.ScheduleEvaluationContext, first: str, last: str, study: str
) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{first}-{last}-{context.scheduled_execution_time:%Y-%m-%d}",
        tags={**range_tags(first, last), "study": study},
    )
