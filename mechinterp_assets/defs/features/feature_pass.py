"""Group `features`: what each SAE feature fires on, writes and reads, and its dashboards."""

from collections.abc import Callable, Iterator

import dagster as dg
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.activations.cache import ActivationReader
from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.dfa import (
    DFA_MATRIX_SCHEMA,
    DFA_SCHEMA,
    DfaRequest,
    stream_feature_dfa,
)
from mechinterp_assets.attribution.feature_pass import (
    ACTIVATION_SCHEMA,
    FeaturePass,
    feature_pass,
)
from mechinterp_assets.attribution.head_attribution import (
    feature_head_attribution as compute_head_attribution,
)
from mechinterp_assets.attribution.intervals import interval_tables, with_tokens
from mechinterp_assets.attribution.logit_effects import (
    feature_logit_effects as compute_logit_effects,
)
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.saes.attention_sae import open_cache, open_sae
from mechinterp_assets.orchestration.publishing import Metadata, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site, sites_by_study
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.sort import SortedRuns
from mechinterp_assets.storage.tensors import Tensors

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
            "feature_interval_examples",
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
    """One streaming pass: statistics, every activation, top examples, intervals, their examples."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        settings = study.features
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "features")
        sae = open_sae(inputs, key, model)
        _, reader = open_cache(inputs, key, None)
        strings = model.token_strings()
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        # A layer's activations may be larger than memory: they are sorted on disk.
        with lake.scratch() as folder:
            runs = SortedRuns(folder, "feature", ACTIVATION_SCHEMA)
            result = feature_pass(
                reader.batches(SEQUENCES_AT_ONCE),
                sae,
                top_k=settings.top_examples,
                window_before=settings.context_window,
                max_tokens=settings.max_tokens,
                on_activations=runs.add,
            )
            intervals = interval_tables(
                runs.frames(),
                result.max_activation,
                n_intervals=settings.intervals,
                n_top=settings.interval_top_examples,
                n_random=settings.interval_examples,
            )
            statistics = result.statistics(sae)
            examples = with_tokens(
                intervals.examples, tokens_read(reader, result.n_tokens), strings
            )
            frames = {
                "feature_statistics": statistics,
                "feature_top_examples": result.top_examples(strings),
                "feature_intervals": intervals.intervals,
                "feature_interval_examples": examples,
            }
            publisher.publish(
                key,
                inputs,
                {
                    **{name: frame.with_columns(on_site) for name, frame in frames.items()},
                    "feature_activations": (f.with_columns(on_site) for f in runs.frames()),
                },
                {"feature_statistics": _pass_metadata(result, statistics)},
            )
    yield from publisher.results()


def _pass_metadata(result: FeaturePass, statistics: pl.DataFrame) -> Metadata:
    density = statistics["log10_density"].drop_nulls().to_numpy()
    counts, _ = np.histogram(density, bins=DENSITY_BINS, range=(-7, 0))
    return {
        "tokens": float(result.n_tokens),
        "l0": float(result.n_active.sum()) / result.n_tokens,
        "never_active": float((result.n_active == 0).sum()),
        "log10_density_-7_to_0": dg.MetadataValue.md(
            f"![density]({tiny_bar_chart(counts.tolist())})"
        ),
    }


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
                    "largest_effect": float(effects["logit_effect"].to_numpy().max())
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
    """Direct feature attribution of the top examples: by head, by source, some of them by both.

    All layers of a study share one forward pass over the sequences of their examples.
    """
    publisher = Publisher(context, lake)
    for name, keys in sites_by_study(context.partition_keys).items():
        settings = STUDIES[name].features
        inputs, requests = {}, []
        for key in keys:
            study, layer = site(key)
            compute.prepare(study.sae.seed)
            inputs[layer], model = inputs_with_model(lake, tensors, models, study, "features")
            examples = inputs[layer].table("feature_top_examples", key)
            chosen = examples.filter(pl.col("rank") < settings.dfa_examples).collect()
            requests.append(DfaRequest(layer, open_sae(inputs[layer], key, model), chosen))
            # Read by every layer, so that its version is recorded for every layer.
            sequences = inputs[layer].table("tokenized_corpus", name)
        wanted = pl.concat([request.examples["sequence"] for request in requests])
        frames = {request.layer: [pl.DataFrame(schema=DFA_SCHEMA)] for request in requests}
        matrices = {request.layer: [pl.DataFrame(schema=DFA_MATRIX_SCHEMA)] for request in requests}
        for layer, found in stream_feature_dfa(
            model,
            requests,
            TokenLookup(sequences.select("sequence", "token_ids"), wanted),
            matrix_ranks=settings.dfa_matrix_examples,
            on_matrix=_keep_in(matrices),
        ):
            frames[layer].append(found)
        for key in keys:
            _, layer = site(key)
            on_site = pl.lit(layer, pl.Int32).alias("layer")
            frame = pl.concat(frames.pop(layer)).sort("feature", "rank")
            matrix = pl.concat(matrices.pop(layer)).sort("feature", "rank", "head")
            publisher.publish(
                key,
                inputs[layer],
                {
                    "feature_dfa": frame.with_columns(on_site),
                    "feature_dfa_matrix": matrix.with_columns(on_site),
                },
                {"feature_dfa": {"largest_identity_error": _largest(frame["identity_error"])}},
            )
    yield from publisher.results()


def tokens_read(reader: ActivationReader, n_tokens: int) -> TokenGrid:
    """The tokens of a feature pass over `reader` that read `n_tokens` tokens."""
    sequences = torch.arange(reader.n_sequences) + reader.first_sequence
    return TokenGrid.of(sequences, reader.token_ids, reader.valid, n_tokens)


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


def _keep_in(kept: dict[int, list[pl.DataFrame]]) -> Callable[[int, pl.DataFrame], None]:
    def keep(layer: int, frame: pl.DataFrame) -> None:
        kept[layer].append(frame)

    return keep


def _largest(series: pl.Series) -> float:
    return float(series.to_numpy().max()) if len(series) else 0.0
