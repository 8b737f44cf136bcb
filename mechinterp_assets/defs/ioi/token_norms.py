"""How much of each token lies in what the keys of traced nodes read."""

import polars as pl

from mechinterp_assets.defs.tasks.prompts_of import base_prompts
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables


@tables(
    "attention_token_norms",
    reads=["language_model", "ioi_prompts", "task_prompts", "attention_consensus"],
    pool=GPU,
    kinds=["torch"],
    needs=["tracing", "direct_effects"],
)
def token_norms(run: Run) -> Made:
    """Norms of tokens in the consensus subspaces of the trace: names against other tokens."""
    from mechinterp_assets.circuits.omega import ModelOmega
    from mechinterp_assets.circuits.token_norms import token_norms

    consensus = run.frame("attention_consensus")
    found = [*run.no_rows("attention_token_norms").values()]
    if consensus.height:
        omega = ModelOmega(run.model)
        for task in consensus["task"].unique(maintain_order=True).to_list():
            norms = token_norms(
                run.model, base_prompts(run, task), consensus.filter(task=task), omega=omega
            )
            found.append(norms.with_columns(task=pl.lit(task)))
    return run.made({"attention_token_norms": pl.concat(found, how="diagonal")})
