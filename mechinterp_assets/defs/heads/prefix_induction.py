"""Group `heads`: induction by prefix length, on random tokens, in text, and after edits of text.

How many matching tokens a head needs decides its class, the SQL view prefix_induction_heads.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import torch

from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_line_chart
from mechinterp_assets.heads.prefix_corpus import prefix_corpus
from mechinterp_assets.heads.prefix_induction import PrefixSettings
from mechinterp_assets.heads.prefix_induction import prefix_induction as score_by_prefix
from mechinterp_assets.heads.prefix_intervention import prefix_intervention
from mechinterp_assets.orchestration.publishing import Metadata, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "heads"
LENGTH = 48  # tokens of a random sequence, where the study's context has room for them
FALLBACK_HEADS = 5  # edited where no head has the role induction
DRAWN_HEADS = 5


@dg.multi_asset(
    name="prefix_induction",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus", "head_scores"],
            kinds=["torch"],
        )
        for name in (
            "prefix_induction",
            "prefix_induction_corpus",
            "prefix_induction_intervention",
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def prefix_induction(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Induction score, direct effect, attention in text and its causes, by prefix length."""
    study = STUDIES[context.partition_key]
    settings = study.prefix_induction
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "prefix_induction")
    heads = _induction_heads(inputs.table("head_scores", study.study).collect())
    held_out = (
        inputs.table("tokenized_corpus", study.study)
        .filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(settings.corpus_sequences)
        .collect()
    )
    text = torch.from_numpy(token_matrix(held_out))
    scores = score_by_prefix(
        model,
        PrefixSettings(
            n_sequences=settings.sequences,
            length=min(LENGTH, study.corpus.context_size),
            seed=settings.seed,
        ),
    )
    corpus = prefix_corpus(
        model, text, text_name=f"held-out text of {study.study}", seed=settings.seed
    )
    edits = prefix_intervention(
        model, text, corpus.attended, heads, n_cases=settings.cases, seed=settings.seed
    )
    drops = dict(edits.group_by("edit").agg(pl.col("mean_drop").mean()).iter_rows())
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "prefix_induction": scores,
            "prefix_induction_corpus": corpus.frame,
            "prefix_induction_intervention": edits,
        },
        {
            "prefix_induction": _score_metadata(scores),
            "prefix_induction_corpus": {"cases": _cases(corpus.frame)},
            "prefix_induction_intervention": {
                f"mean_drop_{edit}": drop for edit, drop in sorted(drops.items())
            },
        },
    )
    yield from publisher.results()


# ---- private -------------------------------------------------------------------------------------


def _induction_heads(scores: pl.DataFrame) -> list[tuple[int, int]]:
    """Heads with the role induction, by the rule of the view head_roles; else the strongest few."""
    induction = scores.filter(pl.col("score") == "induction").sort("value", descending=True)
    with_role = induction.filter(
        (pl.col("value") > pl.col("threshold"))
        & (pl.col("value") > pl.col("null_mean") + 3 * pl.col("null_sd"))
    )
    chosen = with_role if len(with_role) else induction.head(FALLBACK_HEADS)
    return sorted((row["layer"], row["head"]) for row in chosen.to_dicts())


def _score_metadata(scores: pl.DataFrame) -> Metadata:
    """The strongest heads by their longest prefix, as numbers and as lines over prefix length."""
    strongest = (
        scores.sort("prefix_length")
        .group_by("layer", "head", maintain_order=True)
        .agg(pl.col("mean_attention"))
        .sort(pl.col("mean_attention").list.last(), descending=True)
        .head(DRAWN_HEADS)
    )
    lines = {f"{r['layer']}.{r['head']}": r["mean_attention"] for r in strongest.to_dicts()}
    return {
        **{
            f"score_by_length_{head}": ", ".join(f"{a:.2f}" for a in y) for head, y in lines.items()
        },
        "score_by_prefix_length": dg.MetadataValue.md(
            f"![score by prefix length]({tiny_line_chart(lines)})"
        ),
    }


def _cases(corpus: pl.DataFrame) -> int:
    """Induction cases of the text, counted once."""
    one_head = corpus.filter((pl.col("layer") == 0) & (pl.col("head") == 0))
    return int(one_head.filter(pl.col("prefix_length") > 0)["n"].sum())
