"""What happens when activations are changed, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.interventions.study_plan import plan_of_study
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterator


@tables(
    "intervention_results",
    "intervention_sets",
    "intervention_experiments",
    "intervention_plan",
    reads=[
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "trace_edges",
        "trace_graph",
        *SCORE_TABLES,
        "attention_sae",
    ],
    settings=["interventions"],
    seed="interventions.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["processed_weights"],
)
def interventions(run: Run) -> Made:
    """Ablation of every head, edits of traced edges, published experiments and the study's own.

    Everything is planned for the model at hand before anything runs; what it cannot express is left
    out, and intervention_plan says why.
    """
    from mechinterp_assets.interventions.plan import PLAN_SCHEMA, without_rows
    from mechinterp_assets.interventions.published import EXPERIMENTS_SCHEMA
    from mechinterp_assets.interventions.runner import RESULTS_SCHEMA, intervention_sets

    plan = plan_of_study(run)
    before = pl.DataFrame(plan.rows, schema=PLAN_SCHEMA)
    for line in _left_out(before):
        run.log.warning(line)
    empty = pl.DataFrame(schema=RESULTS_SCHEMA)
    results = pl.concat([empty, *(request.run() for _, request in plan.batches)])
    planned, unmade = without_rows(before, results)
    listed = pl.DataFrame(schema=EXPERIMENTS_SCHEMA)
    if plan.published is not None:
        listed = plan.published.experiments.join(
            unmade, on=["task", "intervention"], how="anti", nulls_equal=False
        )
    shape = run.model.config
    members = [
        intervention_sets(request.interventions, shape, batch.task, batch.reference_variant)
        for batch, request in plan.batches
    ]
    sets = pl.concat([intervention_sets((), shape), *members])
    changed = results.filter(pl.col("metric") == "logit_diff").select(
        "kind", effect=pl.col("patched") - pl.col("clean")
    )
    drops = changed.group_by("kind").agg(pl.col("effect").min()).sort("kind")
    decisions = planned["decision"].value_counts(sort=True)
    return run.made(
        {
            "intervention_results": results,
            "intervention_sets": sets.join(unmade, on=["task", "intervention"], how="anti"),
            "intervention_experiments": listed,
            "intervention_plan": planned,
        },
        {
            "intervention_results": {
                "interventions": float(results["intervention"].n_unique()),
                **{
                    f"largest_drop_{kind}": float(value)
                    for kind, value in drops.iter_rows()
                    if value is not None
                },
            },
            "intervention_plan": {name: float(count) for name, count in decisions.iter_rows()},
        },
    )


@tables(
    "intervention_summary",
    reads=["intervention_results"],
    settings=["interventions.bootstrap", "interventions.seed"],
)
def intervention_summary(run: Run) -> Made:
    """Mean effects with bootstrap intervals over prompts, beside those of the random controls."""
    from mechinterp_assets.interventions.summary import intervention_summary as summarise

    settings = run.study.interventions
    summary = summarise(
        run.frame("intervention_results"), n_bootstrap=settings.bootstrap, seed=settings.seed
    )
    worst = summary.filter(pl.col("metric") == "logit_diff").sort("mean_effect").head(20)
    return run.made(
        {"intervention_summary": summary},
        {
            "intervention_summary": {
                "twenty_most_harmful": dg.MetadataValue.md(
                    f"![effects]({tiny_bar_chart((-worst['mean_effect']).to_list())})"
                )
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _left_out(plan: pl.DataFrame) -> Iterator[str]:
    """A line for every setting and reason."""
    rows = plan.filter(pl.col("decision") == "left out")
    for (asked_by, reason), own in rows.group_by(["asked_by", "reason"], maintain_order=True):
        named = own["intervention"].drop_nulls()
        which = "" if named.is_empty() else f"{named.len()} interventions ({named[0]}, for one): "
        yield f"{asked_by} is left out: {which}{reason}"
