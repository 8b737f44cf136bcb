"""Scores of every attention head; roles are the SQL view head_roles over them."""

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.prompts_of import NO_IOI
from mechinterp_assets.model.names import head_names
from mechinterp_assets.orchestration.artefacts import token_ids
from mechinterp_assets.orchestration.head_roles import head_roles, heads_with_role
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

SIZES = ("heads.sequences", "heads.repeat_length", "heads.sink_length")


@tables(
    "head_scores",
    reads=["language_model", "tokenized_corpus"],
    settings=[
        *SIZES,
        "heads.batch_size",
        "heads.null_draws",
        "heads.suppression_tokens",
        "heads.cspa_sequences",
        "heads.cspa_length",
    ],
    seed="heads.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["activations"],
)
def head_scores(run: Run) -> Made:
    """Attention, copying, copy suppression, successor, sink and positional scores of all heads."""
    from mechinterp_assets.heads.head_scores import head_scores as score_heads

    heads = run.study.heads
    scores = score_heads(
        run.model,
        heads,
        text=token_ids(run, "held_out", heads.sequences),
        text_name=_text_name(run),
    )
    best = scores.sort("value", descending=True).group_by("score", maintain_order=True).first()
    induction = scores.filter(pl.col("score") == "induction").sort("layer", "head")
    return run.made(
        {"head_scores": scores},
        {
            "head_scores": {
                **{f"strongest_{row['score']}": row["value"] for row in best.to_dicts()},
                "induction_by_head": dg.MetadataValue.md(
                    f"![induction]({tiny_bar_chart(induction['value'].to_list())})"
                ),
            }
        },
    )


@tables(
    "ioi_head_scores",
    reads=["language_model", "ioi_prompts"],
    settings=["heads.ioi_prompts", "heads.patched_prompts", "heads.movers"],
    seed="heads.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["processed_weights"],
)
def ioi_head_scores(run: Run) -> Made:
    """Direct effects, attention and name copying at END; then scores relative to the movers."""
    from mechinterp_assets.heads.ioi_head_scores import ioi_head_scores as score_heads_on_ioi
    from mechinterp_assets.heads.ioi_head_scores import mover_scores
    from mechinterp_assets.prompts.ioi import PromptError

    settings, model, prompts = run.study.heads, run.model, run.frame("ioi_prompts")
    if prompts.is_empty():
        return run.nothing(NO_IOI, "ioi_head_scores")
    base = prompts.filter(pl.col("variant") == "base").head(settings.ioi_prompts)
    try:
        alone = score_heads_on_ioi(model, base)
    except PromptError as reason:  # too few names for a null
        return run.nothing(str(reason), "ioi_head_scores")
    movers = heads_with_role("name_mover", alone) if settings.movers == "auto" else settings.movers
    same_pairs = prompts.join(base, on="pair_id", how="semi", maintain_order="left")
    relative = mover_scores(model, same_pairs, movers, patched_prompts=settings.patched_prompts)
    scores = pl.concat([alone, relative]).sort("layer", "head", "score")
    roles = head_roles(scores).group_by("role", maintain_order=True).len()
    return run.made(
        {"ioi_head_scores": scores},
        {
            "ioi_head_scores": {
                "movers": head_names(movers) or "none",
                **{f"heads_{role}": float(count) for role, count in roles.iter_rows()},
            }
        },
    )


@tables(
    "attention_sinks",
    "massive_activations",
    reads=["language_model", "tokenized_corpus"],
    settings=SIZES,
    seed="heads.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["activations"],
)
def attention_sinks(run: Run) -> Made:
    """What heads do with the first positions, and the largest entries of the residual stream."""
    from mechinterp_assets.heads.sinks import sink_datasets, sinks

    heads = run.study.heads
    text = token_ids(run, "held_out", heads.sequences)
    found = sinks(run.model, sink_datasets(run.model, heads, text, _text_name(run)))
    first = found.attention_sinks.filter(
        (pl.col("position") == 0) & (pl.col("tokens") == "natural") & pl.col("with_bos")
    )
    return run.made(
        {
            "attention_sinks": found.attention_sinks,
            "massive_activations": found.massive_activations,
        },
        {
            "attention_sinks": {
                "share_of_heads_above_0.3": float((first["mean_attention"].to_numpy() > 0.3).mean())
            },
            "massive_activations": {
                "largest_ratio": float(
                    found.massive_activations["magnitude_ratio"].to_numpy().max()
                )
            },
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _text_name(run: Run) -> str:
    return f"held-out text of {run.name}"
