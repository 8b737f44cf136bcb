"""Group `ioi`: how well the model does it, Omega's singular values, the slices attention uses.

The traced circuit is in traces.py.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.circuits.baseline import ioi_baseline as answer_prompts
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.omega import attention_svd as singular_values
from mechinterp_assets.circuits.slice_usage import slice_usage as measure_slice_usage
from mechinterp_assets.circuits.slice_usage import text_of_the_same_lengths
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.orchestration.publishing import Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "ioi"


@dg.multi_asset(
    name="ioi_baseline",
    specs=[
        table_asset(
            "ioi_baseline",
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def ioi_baseline(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Logits and probabilities of both names at the end of every prompt."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.ioi.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study)
    prompts = inputs.table("ioi_prompts", study.study).collect()
    baseline = answer_prompts(model, prompts)
    base = baseline.join(prompts.filter(pl.col("variant") == "base"), on="prompt", how="semi")
    by_template = (
        base.join(prompts, on="prompt")
        .group_by("template")
        .agg(pl.col("logit_diff").mean())
        .sort("template")
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"ioi_baseline": baseline},
        {
            "ioi_baseline": {
                "prefers_io": float(base["prefers_io"].cast(pl.Float64).to_numpy().mean()),
                "logit_diff": float(base["logit_diff"].to_numpy().mean()),
                "logit_diff_by_template": dg.MetadataValue.md(
                    f"![templates]({tiny_bar_chart(by_template['logit_diff'].to_list())})"
                ),
            }
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="attention_svd",
    specs=[
        table_asset(
            "attention_svd",
            per="study",
            group=GROUP,
            study_deps=["language_model"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def attention_svd(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Singular values of every head's Omega, from one batched QR and small SVD."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.ioi.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study)
    frame = singular_values(model)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"attention_svd": frame},
        {"attention_svd": {"largest": float(frame["singular_value"].to_numpy().max())}},
    )
    yield from publisher.results()


@dg.multi_asset(
    name="slice_usage",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts", "tokenized_corpus"],
            kinds=["torch"],
        )
        for name in ("attention_slice_counts", "attention_slice_usage")
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def slice_usage(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Slices that attention uses on IOI prompts and on unspecific text, firing and not firing."""
    study = STUDIES[context.partition_key]
    settings = study.ioi
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "ioi")
    prompts = inputs.table("ioi_prompts", study.study).filter(pl.col("variant") == "base").collect()
    held_out = (
        inputs.table("tokenized_corpus", study.study)
        .filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(settings.usage_sequences)
        .collect()
    )
    omega = ModelOmega(model)
    texts = {"ioi": prompts, "corpus": text_of_the_same_lengths(held_out, prompts)}
    counts, usage = [], []
    for text, frame in texts.items():
        found = measure_slice_usage(
            model, frame, threshold=settings.firing_threshold, seed=settings.seed, omega=omega
        )
        label = pl.lit(text).alias("text_source")
        counts.append(found.counts.with_columns(label))
        usage.append(found.usage.with_columns(label))
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"attention_slice_counts": pl.concat(counts), "attention_slice_usage": pl.concat(usage)},
        {
            "attention_slice_counts": {
                f"mean_slices_{text}": _mean_slices(frame)
                for text, frame in zip(texts, counts, strict=True)
            }
        },
    )
    yield from publisher.results()


def _mean_slices(counts: pl.DataFrame) -> float | None:
    pairs = counts["n_pairs"].to_numpy()
    return (
        float((counts["n_slices"].to_numpy() * pairs).sum() / pairs.sum()) if len(pairs) else None
    )
