"""What models do with tasks: answers, head ablation, heads that tasks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.suites import IOI_SETTINGS, study_ioi, study_suite
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from mechinterp_assets.tasks.ablation import Sweep

UPSTREAM = ("language_model", "ioi_prompts", "task_prompts")
CLEAN_PROMPTS = 64  # of a clean run, whose z of all layers is held


@tables(
    "task_baseline",
    reads=UPSTREAM,
    settings=["tasks", *IOI_SETTINGS],
    files=["tasks.own"],
    seed="tasks.seed",
    pool=GPU,
    kinds=["torch"],
)
def task_baseline(run: Run) -> Made:
    """Loss, probability, rank and logit difference of every prompt's answer."""
    from mechinterp_assets.tasks.baseline import task_accuracy
    from mechinterp_assets.tasks.baseline import task_baseline as answer

    prompts, skipped = _prompts(run), study_suite(run).skipped
    if (reason := study_ioi(run)[1]) is not None:
        skipped = {"ioi": reason, **skipped}
    baseline = answer(run.model, prompts, skipped)
    accuracy = task_accuracy(baseline)
    return run.made(
        {"task_baseline": baseline},
        {"task_baseline": {f"top1_accuracy_{task}": share for task, share in accuracy.items()}},
    )


@tables(
    "task_head_effects",
    "component_reuse",
    "component_reuse_faithfulness",
    reads=UPSTREAM,
    settings=["task_effects", "tasks.names", "tasks.own"],
    seed="task_effects.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["processed_weights"],
)
def task_effects(run: Run) -> Made:
    """Every head ablated on every task, with intervals; whether tasks share their top heads."""
    from mechinterp_assets.prompts.common import BASE
    from mechinterp_assets.tasks.ablation import leave_one_out_means, sweep_heads
    from mechinterp_assets.tasks.head_effects import EFFECTS_SCHEMA, head_effects, random_prompts
    from mechinterp_assets.tasks.reuse import (
        FAITHFULNESS_SCHEMA,
        component_reuse,
        fresh_prompts,
        reuse_faithfulness,
    )

    settings, model = run.study.task_effects, run.model
    wanted = run.study.tasks.to_ablate if settings.tasks == "auto" else settings.tasks
    base = _prompts(run).filter((pl.col("variant") == BASE) & pl.col("task").is_in(wanted))
    for task in base.filter(pl.len().over("task") < 2)["task"]:
        run.log.warning(f"{task} is left out: it has one prompt, and means are over the others")
    base = base.filter(pl.len().over("task") > 1)
    effects = pl.DataFrame(schema=EFFECTS_SCHEMA)
    faithfulness = pl.DataFrame(schema=FAITHFULNESS_SCHEMA)
    if base.is_empty():
        run.log.warning(f"none of {wanted} has prompts; nothing is ablated")
    else:
        scored = base.group_by("task", maintain_order=True).head(settings.prompts)
        random = random_prompts(model, scored, settings.null_prompts, settings.seed)
        means = leave_one_out_means(model, pl.concat([base, random]), CLEAN_PROMPTS)

        def sweep(prompts: pl.DataFrame) -> Sweep:
            references = {"mean_leave_one_out": means}
            return sweep_heads(
                model,
                prompts,
                modes=settings.ablations,
                references=references,
                position_role=settings.position_role,
            )

        effects = head_effects(
            sweep(scored), sweep(random), n_bootstrap=settings.bootstrap, seed=settings.seed
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
    return run.made(
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


def _prompts(run: Run) -> pl.DataFrame:
    """Base IOI prompts and all prompts of the other tasks, in the common form."""
    from mechinterp_assets.prompts.common import BASE, IOI, from_ioi

    ioi = from_ioi(run.table("ioi_prompts").filter(pl.col("variant") == BASE).collect())
    others = run.frame("task_prompts")
    assert IOI not in others["task"]
    return pl.concat([ioi, others.select(ioi.columns)])
