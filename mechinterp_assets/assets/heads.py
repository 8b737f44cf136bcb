"""Group `heads`: scores of every attention head; roles are the SQL view head_roles over them."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import torch

from mechinterp_assets.assets.publish import Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.heads.scores import HeadScoreSettings
from mechinterp_assets.heads.scores import head_scores as score_heads
from resources.compute import ComputeResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Tensors

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
    """Previous-token, duplicate, induction, copying, sink and positional scores of all heads."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.heads.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
    held_out = (
        inputs.table("tokenized_corpus", study.study)
        .filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(study.heads.sequences)
        .collect()
    )
    scores = score_heads(
        model,
        HeadScoreSettings(
            n_sequences=study.heads.sequences,
            period=study.heads.repeat_length,
            sink_length=min(64, study.corpus.context_size),
            seed=study.heads.seed,
        ),
        text=torch.from_numpy(token_matrix(held_out)),
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
