"""Jobs and schedules.

Belongs here: which assets run together and when. The three stages of a study differ in what they
are partitioned by, so each is a job; a backfill of the whole graph in the UI needs none of them.
"""

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES

PER_SITE = dg.AssetSelection.tag("per", "site")
PER_STUDY = dg.AssetSelection.tag("per", "study")
OVERVIEWS = PER_STUDY & PER_SITE.downstream(include_self=False)

study_foundations = dg.define_asset_job(
    "study_foundations",
    selection=PER_STUDY - OVERVIEWS,
    partitions_def=PARTITIONS.studies,
    description="Everything of a study that needs no SAE: corpus, tasks, heads, traces",
)
study_layers = dg.define_asset_job(
    "study_layers",
    selection=PER_SITE,
    partitions_def=PARTITIONS.sites,
    description="Activation caches, SAEs, features and dashboards of a study's layers",
)
study_overviews = dg.define_asset_job(
    "study_overviews",
    selection=OVERVIEWS,
    partitions_def=PARTITIONS.studies,
    description="Per-study assets that read all layers",
)
evaluation = dg.define_asset_job(
    "evaluation",
    selection=dg.AssetSelection.assets("sae_evaluation"),
    partitions_def=PARTITIONS.sites,
    description="Evaluate the SAEs again on held-out tokens",
)

JOBS = [study_foundations, study_layers, study_overviews, evaluation]


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


def _range_request(
    context: dg.ScheduleEvaluationContext, first: str, last: str, study: str
) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{first}-{last}-{context.scheduled_execution_time:%Y-%m-%d}",
        tags={
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
            "study": study,
        },
    )
