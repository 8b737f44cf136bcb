"""Group `features`: what follows from a layer's sparse activations alone.

Belongs here: the n-grams that features fire on, and the features they are active together with or
write alike. Does not belong here: the pass that makes the activations (features.py).
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.neighbours import feature_neighbours
from mechinterp_assets.attribution.ngrams import feature_ngrams
from mechinterp_assets.defs.features.feature_pass import GROUP, tokens_read
from mechinterp_assets.defs.saes.attention_sae import open_cache, open_sae
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, site
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

ROWS_AT_ONCE = 1_000_000


@dg.multi_asset(
    name="feature_relations",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "vocabulary"],
            site_deps=[
                "activation_cache",
                "attention_sae",
                "feature_statistics",
                "feature_activations",
            ],
            kinds=["torch"],
        )
        for name in ("feature_ngrams", "feature_neighbours")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def feature_relations(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """n-grams of every feature, and its neighbours by co-activation and by decoder cosine."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "features")
        sae = open_sae(inputs, key, model)
        tokens = _tokens_of_the_pass(inputs, key)
        activations = inputs.table("feature_activations", key)
        ngrams = feature_ngrams(
            _stream(activations, "feature", "sequence", "position", "activation"),
            tokens,
            model.token_strings(),
            top=study.features.ngrams,
        )
        neighbours = feature_neighbours(
            _stream(activations, "feature", "sequence", "position"),
            tokens,
            sae.W_dec,
            top=study.features.neighbours,
        )
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        publisher.publish(
            key,
            inputs,
            {
                "feature_ngrams": ngrams.with_columns(on_site),
                "feature_neighbours": neighbours.with_columns(on_site),
            },
            {
                "feature_ngrams": {
                    f"features_of_one_{n}-gram": ngrams.filter(
                        (pl.col("ngram_size") == n) & (pl.col("active_share") > 0.5)
                    ).height
                    for n in (1, 2, 3)
                },
                "feature_neighbours": {
                    f"largest_{kind}": _largest(neighbours, kind)
                    for kind in ("coactivation", "decoder_cosine")
                },
            },
        )
    yield from publisher.results()


def _tokens_of_the_pass(inputs: Inputs, key: str) -> TokenGrid:
    _, reader = open_cache(inputs, key, None)
    statistics = inputs.table("feature_statistics", key).select("n_tokens").head(1).collect()
    return tokens_read(reader, int(statistics.item()))


def _stream(table: pl.LazyFrame, *columns: str) -> Iterator[pl.DataFrame]:
    """Some columns of a table in its stored order, some rows at a time."""
    yield from table.select(columns).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True)


def _largest(neighbours: pl.DataFrame, kind: str) -> float | None:
    values = neighbours.filter(pl.col("measure") == kind)["similarity"].to_numpy()
    return float(values.max()) if len(values) else None
