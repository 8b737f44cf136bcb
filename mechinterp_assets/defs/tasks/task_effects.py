"""Group `tasks`, what models do with them: answers, head ablation, heads that tasks share."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.suites import study_suite
from mechinterp_assets.defs.tasks.task_prompts import GROUP
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.prompts.common import BASE, IOI, from_ioi
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study
from mechinterp_assets.tasks.ablation import Sweep, leave_one_out_means, sweep_heads
from mechinterp_assets.tasks.baseline import task_accuracy
from mechinterp_assets.tasks.baseline import task_baseline as answer_prompts
from mechinterp_assets.tasks.head_effects import EFFECTS_SCHEMA, head_effects, random_prompts
from mechinterp_assets.tasks.reuse import (
    FAITHFULNESS_SCHEMA,
    component_reuse,
    fresh_prompts,
    reuse_faithfulness,
)

UPSTREAM = ["language_model", "ioi_prompts", "task_prompts"]
CLEAN_PROMPTS = 64  # of a clean run, whose z of all layers is held


@dg.multi_asset(
    name="task_baseline",
    specs=[
        table_asset("task_baseline", per="study", group=GROUP, study_deps=UPSTREAM, kinds=["torch"])
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def task_baseline(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Loss, probability, rank and logit difference of every prompt's answer."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.tasks.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "tasks")
    prompts = _prompts(study, inputs)
    baseline = answer_prompts(model, prompts, study_suite(study, model, inputs).skipped)
    accuracy = task_accuracy(baseline)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"task_baseline": baseline},
        {"task_baseline": {f"accuracy_{task}": share for task, share in accuracy.items()}},
    )
    yield from publisher.results()


@dg.multi_asset(
    name="task_effects",
    specs=[
        table_asset(name, per="study", group=GROUP, study_deps=UPSTREAM, kinds=["torch"])
        for name in ("task_head_effects", "component_reuse", "component_reuse_faithfulness")
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def task_effects(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Every head ablated on every task, with intervals; whether tasks share their top heads."""
    study = STUDIES[context.partition_key]
    settings = study.task_effects
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "task_effects")
    wanted = study.tasks.to_ablate if settings.tasks == "auto" else settings.tasks
    base = _prompts(study, inputs).filter(
        (pl.col("variant") == BASE) & pl.col("task").is_in(wanted)
    )
    effects = pl.DataFrame(schema=EFFECTS_SCHEMA)
    faithfulness = pl.DataFrame(schema=FAITHFULNESS_SCHEMA)
    if base.is_empty():
        context.log.warning(f"none of {wanted} has prompts; nothing is ablated")
    else:
        scored = base.group_by("task", maintain_order=True).head(settings.prompts)
        random = random_prompts(
            model,
            scored,
            settings.null_prompts,
            settings.seed,
            special_ids=model.tokenizer.all_special_ids,
        )
        means = leave_one_out_means(model, pl.concat([base, random]), CLEAN_PROMPTS)

        def sweep(prompts: pl.DataFrame) -> Sweep:
            references = {"mean_leave_one_out": means}
            return sweep_heads(model, prompts, modes=settings.ablations, references=references)

        found = sweep(scored)
        effects = head_effects(
            found, sweep(random), n_bootstrap=settings.bootstrap, seed=settings.seed
        )
        if "mean_leave_one_out" in settings.ablations:
            fresh, held_out = fresh_prompts(base, settings.prompts)
            faithfulness = reuse_faithfulness(
                model,
                fresh,
                effects,
                means,
                kept_share=settings.kept_share,
                held_out=held_out,
                n_bootstrap=settings.bootstrap,
                seed=settings.seed,
            )
    harm = effects.filter(
        (pl.col("metric") == "loss") & (pl.col("mode") == settings.ablations[-1])
    ).sort("layer", "head")
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "task_head_effects": effects,
            "component_reuse": component_reuse(effects, settings.top_shares),
            "component_reuse_faithfulness": faithfulness,
        },
        {
            "task_head_effects": {
                f"loss_by_head_{task}": dg.MetadataValue.md(
                    f"![{task}]({tiny_bar_chart(frame['mean_effect'].to_list())})"
                )
                for (task,), frame in harm.group_by(["task"], maintain_order=True)
            }
        },
    )
    yield from publisher.results()


def _prompts(study: Study, inputs: Inputs) -> pl.DataFrame:
    """Base IOI prompts and all prompts of the other tasks, in the common form."""
    ioi = inputs.table("ioi_prompts", study.study).filter(pl.col("variant") == BASE).collect()
    others = inputs.table("task_prompts", study.study).collect()
    assert IOI not in others["task"]
    return pl.concat([from_ioi(ioi), others.select(from_ioi(ioi).columns)])
