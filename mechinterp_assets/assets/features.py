"""Group `features`: what each SAE feature fires on, writes and reads, and its dashboards."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.assets.publish import Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, site
from mechinterp_assets.assets.saes import open_cache, open_sae
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.attribution.dfa import DFA_MATRIX_SCHEMA
from mechinterp_assets.attribution.dfa import feature_dfa as compute_feature_dfa
from mechinterp_assets.attribution.feature_pass import feature_pass
from mechinterp_assets.attribution.head_attribution import (
    feature_head_attribution as compute_head_attribution,
)
from mechinterp_assets.attribution.intervals import feature_intervals
from mechinterp_assets.attribution.logit_effects import (
    feature_logit_effects as compute_logit_effects,
)
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from resources.compute import ComputeResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Tensors

GROUP = "features"
SEQUENCES_AT_ONCE = 256
DENSITY_BINS = 16


@dg.multi_asset(
    name="feature_pass",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "vocabulary"],
            site_deps=["activation_cache", "attention_sae"],
            kinds=["torch"],
        )
        for name in (
            "feature_statistics",
            "feature_activations",
            "feature_top_examples",
            "feature_intervals",
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def features(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """One streaming pass: statistics, every activation, top examples and intervals."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "features")
        sae = open_sae(inputs, key, model)
        _, reader = open_cache(inputs, key, None)
        kept: list[pl.DataFrame] = []
        result = feature_pass(
            reader.batches(SEQUENCES_AT_ONCE),
            sae,
            top_k=study.features.top_examples,
            window_before=study.features.context_window,
            max_tokens=study.features.max_tokens,
            on_activations=kept.append,
        )
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        statistics = result.statistics(sae)
        tables = {
            "feature_statistics": statistics,
            "feature_activations": pl.concat(kept).sort("feature", "sequence", "position"),
            "feature_top_examples": result.top_examples(model.token_strings()),
            "feature_intervals": feature_intervals(
                kept,
                result.max_activation,
                n_intervals=study.features.intervals,
                n_examples=study.features.interval_examples,
            ),
        }
        density = statistics["log10_density"].drop_nulls().to_numpy()
        counts, _ = np.histogram(density, bins=DENSITY_BINS, range=(-7, 0))
        publisher.publish(
            key,
            inputs,
            {name: frame.with_columns(on_site) for name, frame in tables.items()},
            {
                "feature_statistics": {
                    "tokens": float(result.n_tokens),
                    "l0": float(result.n_active.sum()) / result.n_tokens,
                    "never_active": float((result.n_active == 0).sum()),
                    "log10_density_-7_to_0": dg.MetadataValue.md(
                        f"![density]({tiny_bar_chart(counts.tolist())})"
                    ),
                }
            },
        )
    yield from publisher.results()


@dg.multi_asset(
    name="feature_weights",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "vocabulary"],
            site_deps=["attention_sae"],
            kinds=["torch"],
        )
        for name in ("feature_logit_effects", "feature_head_attribution")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def feature_weights(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """What a feature's decoder row writes: direct logit effects, and the heads it is made of."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "features")
        sae = open_sae(inputs, key, model)
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        effects = compute_logit_effects(
            sae.W_dec,
            model.weights.W_O[layer],
            model.weights.W_U,
            model.token_strings(),
            k=study.features.logit_tokens,
        )
        attribution = compute_head_attribution(sae.W_dec, model.config.n_heads)
        by_head = attribution.group_by("head").agg(pl.col("attribution").mean()).sort("head")
        publisher.publish(
            key,
            inputs,
            {
                "feature_logit_effects": effects.with_columns(on_site),
                "feature_head_attribution": attribution.with_columns(on_site),
            },
            {
                "feature_logit_effects": {
                    "largest_effect": float(effects["effect"].to_numpy().max())
                },
                "feature_head_attribution": {
                    "mean_by_head": dg.MetadataValue.md(
                        f"![heads]({tiny_bar_chart(by_head['attribution'].to_list())})"
                    )
                },
            },
        )
    yield from publisher.results()


@dg.multi_asset(
    name="feature_dfa",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["attention_sae", "feature_top_examples"],
            kinds=["torch"],
        )
        for name in ("feature_dfa", "feature_dfa_matrix")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def feature_dfa(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Direct feature attribution of the top examples: by head, by source, some of them by both."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "features")
        sae = open_sae(inputs, key, model)
        examples = (
            inputs.table("feature_top_examples", key)
            .filter(pl.col("rank") < study.features.dfa_examples)
            .select("feature", "rank", "sequence", "position")
            .collect()
        )
        sequences = inputs.table("tokenized_corpus", study.study).select("sequence", "token_ids")
        matrices = [pl.DataFrame(schema=DFA_MATRIX_SCHEMA)]
        frame = compute_feature_dfa(
            model,
            sae,
            layer,
            examples,
            TokenLookup(sequences, examples["sequence"]),
            matrix_ranks=study.features.dfa_matrix_examples,
            on_matrix=matrices.append,
        )
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        matrix = pl.concat(matrices).sort("feature", "rank", "head")
        publisher.publish(
            key,
            inputs,
            {
                "feature_dfa": frame.with_columns(on_site),
                "feature_dfa_matrix": matrix.with_columns(on_site),
            },
            {"feature_dfa": {"largest_identity_error": _largest(frame["identity_error"])}},
        )
    yield from publisher.results()


class TokenLookup:
    """Token ids [n, position] of sequences given by their numbers."""

    def __init__(self, sequences: pl.LazyFrame, wanted: pl.Series) -> None:
        used = sequences.filter(pl.col("sequence").is_in(wanted.unique().implode())).collect()
        self._rows = {
            int(number): ids
            for number, ids in zip(used["sequence"], used["token_ids"], strict=True)
        }

    def __call__(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.tensor([self._rows[int(number)].to_list() for number in numbers])


def _largest(series: pl.Series) -> float:
    return float(series.to_numpy().max()) if len(series) else 0.0
