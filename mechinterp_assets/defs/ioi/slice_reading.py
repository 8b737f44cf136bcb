"""What traced heads read: who wrote it, and how much of each token lies in it."""

import polars as pl

from mechinterp_assets.defs.tasks.prompts_of import base_prompts
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

TABLES = ("attention_token_norms", "attention_slice_writers")


@tables(
    *TABLES,
    reads=[
        *("language_model", "ioi_prompts", "task_prompts"),
        *("attention_consensus", "attention_slices"),
    ],
    pool=GPU,
    kinds=["torch"],
    needs=["tracing", "direct_effects"],
)
def slice_reading(run: Run) -> Made:
    """Contributions of every upstream head to typical pairs; norms of tokens, names and others."""
    from mechinterp_assets.circuits.omega import ModelOmega
    from mechinterp_assets.circuits.slice_writers import PAIR_COLUMNS, slice_writers
    from mechinterp_assets.circuits.token_norms import token_norms

    consensus = run.frame("attention_consensus")
    slices = run.table("attention_slices").select("task", *PAIR_COLUMNS)
    found = {name: [none] for name, none in run.no_rows(*TABLES).items()}
    if consensus.height:
        omega = ModelOmega(run.model)
        for task in consensus["task"].unique(maintain_order=True).to_list():
            prompts = base_prompts(run, task)
            own = slices.filter(pl.col("task") == task).collect()
            frames = (
                token_norms(run.model, prompts, consensus.filter(task=task), omega=omega),
                slice_writers(run.model, prompts, own, omega=omega),
            )
            for name, frame in zip(TABLES, frames, strict=True):
                found[name].append(frame.with_columns(task=pl.lit(task)))
    return run.made({name: pl.concat(parts, how="diagonal") for name, parts in found.items()})
