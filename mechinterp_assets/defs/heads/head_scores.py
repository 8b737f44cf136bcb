"""Group `heads`: scores of every attention head; roles are the SQL view head_roles over them."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.heads.head_scores import head_scores as score_heads
from mechinterp_assets.heads.ioi_head_scores import ioi_head_scores as score_heads_on_ioi
from mechinterp_assets.heads.ioi_head_scores import mover_scores
from mechinterp_assets.heads.settings import HeadScoreSettings
from mechinterp_assets.heads.sinks import sink_datasets, sinks
from mechinterp_assets.orchestration.head_roles import head_roles, heads_with_role
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study

GROUP = "heads"


@dg.multi_asset(
    name="head_scores",
    specs=[
        table_asset(
            "head_scores",
            per="study",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def head_scores(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Attention, copying, copy suppression, successor, sink and positional scores of all heads."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.heads.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
    scores = score_heads(
        model,
        _settings(study),
        text=_held_out(inputs, study.heads.sequences),
        text_name=f"held-out text of {study.study}",
    )
    best = scores.sort("value", descending=True).group_by("score", maintain_order=True).first()
    induction = scores.filter(pl.col("score") == "induction").sort("layer", "head")
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
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
    yield from publisher.results()


@dg.multi_asset(
    name="ioi_head_scores",
    specs=[
        table_asset(
            "ioi_head_scores",
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def ioi_head_scores(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Direct effects, attention and name copying at END; then scores relative to the movers."""
    study = STUDIES[context.partition_key]
    settings = study.heads
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
    prompts = inputs.table("ioi_prompts", study.study).collect()
    base = prompts.filter(pl.col("variant") == "base").head(settings.ioi_prompts)
    alone = score_heads_on_ioi(model, base)
    movers = heads_with_role("name_mover", alone) if settings.movers == "auto" else settings.movers
    same_pairs = prompts.join(base, on="pair_id", how="semi", maintain_order="left")
    relative = mover_scores(model, same_pairs, movers, patched_prompts=settings.patched_prompts)
    scores = pl.concat([alone, relative]).sort("layer", "head", "score")
    roles = head_roles(scores).group_by("role", maintain_order=True).len()
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"ioi_head_scores": scores},
        {
            "ioi_head_scores": {
                "movers": ", ".join(f"{layer}.{head}" for layer, head in movers) or "none",
                **{f"heads_{role}": float(count) for role, count in roles.iter_rows()},
            }
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="attention_sinks",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            kinds=["torch"],
        )
        for name in ("attention_sinks", "massive_activations")
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def attention_sinks(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """What heads do with the first positions, and the largest entries of the residual stream."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.heads.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
    text = _held_out(inputs, study.heads.sequences)
    name = f"held-out text of {study.study}"
    found = sinks(model, sink_datasets(model, _settings(study), text, name))
    first = found.attention_sinks.filter(
        (pl.col("position") == 0) & (pl.col("tokens") == "natural") & pl.col("with_bos")
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
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
    yield from publisher.results()


# ---- private -------------------------------------------------------------------------------------


def _settings(study: Study) -> HeadScoreSettings:
    heads = study.heads
    return HeadScoreSettings(
        n_sequences=heads.sequences,
        period=heads.repeat_length,
        sink_length=min(64, study.corpus.context_size),
        suppression_tokens=heads.suppression_tokens,
        cspa_sequences=heads.cspa_sequences,
        seed=heads.seed,
    )


def _held_out(inputs: Inputs, sequences: int) -> Tensor:
    """The first held-out sequences of the study [sequence, position]."""
    rows = (
        inputs.table("tokenized_corpus", inputs.study.study)
        .filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(sequences)
        .collect()
    )
    return torch.from_numpy(token_matrix(rows))
