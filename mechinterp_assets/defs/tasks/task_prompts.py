"""Group `tasks`: prompts with answers beside IOI, in one form for every task."""

from collections.abc import Iterator

import dagster as dg

from mechinterp_assets.defs.tasks.suites import study_suite
from mechinterp_assets.orchestration.publishing import Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "tasks"


@dg.multi_asset(
    name="task_prompts",
    specs=[table_asset("task_prompts", per="study", group=GROUP, study_deps=["language_model"])],
    partitions_def=PARTITIONS.studies,
)
def task_prompts(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Assemble the prompts of every task from segments, with every role's position."""
    study = STUDIES[context.partition_key]
    inputs, model = inputs_with_model(lake, tensors, models, study, "tasks")
    built = study_suite(study, model, inputs)
    for name, reason in built.skipped.items():
        context.log.warning(f"{name} is left out: {reason}")
    counts = built.prompts["task"].value_counts(sort=True)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"task_prompts": built.prompts},
        {
            "task_prompts": {
                **{f"prompts_{task}": float(n) for task, n in counts.iter_rows()},
                "left_out": ", ".join(built.skipped) or "none",
            }
        },
    )
    yield from publisher.results()
