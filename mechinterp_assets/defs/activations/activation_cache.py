"""Group `activations`: z of every layer from one forward pass, and its statistics."""

from collections.abc import Iterator
from contextlib import ExitStack

import dagster as dg
import torch

from mechinterp_assets.activations.cache import DTYPES, write_shards
from mechinterp_assets.activations.harvest import difference_from_bridge
from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.orchestration.publishing import Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, site, sites_by_study
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "activations"
# SDPA against eager attention in one precision; a wrong hook differs by the size of z itself.
LARGEST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
SEQUENCES_COMPARED = 4


class HarvestError(RuntimeError):
    """Harvested activations that are not what TransformerLens calls hook_z."""


@dg.multi_asset(
    name="activation_cache",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            kinds=["torch", "safetensors"],
        )
        for name in ("activation_cache", "activation_statistics")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def activation_cache(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Harvest z of all layers of the run's partitions, one forward pass per study.

    Before anything is published, harvested z must equal the bridge's hook_z on a few sequences.
    """
    publisher = Publisher(context, lake)
    for keys in sites_by_study(context.partition_keys).values():
        _harvest_study(context, keys, publisher, lake, tensors, models, compute)
    yield from publisher.results()


def _harvest_study(
    context: dg.AssetExecutionContext,
    keys: list[str],
    publisher: Publisher,
    lake: Lake,
    tensors: Tensors,
    models: LanguageModelResource,
    compute: ComputeResource,
) -> None:
    study = site(keys[0])[0]
    layers = {site(key)[1]: key for key in keys}
    compute.prepare(seed=0)
    inputs, model = inputs_with_model(lake, tensors, models, study, "activations")
    sequences = (
        inputs.table("tokenized_corpus", study.study)
        .sort("sequence")
        .head(max(1, study.activations.max_tokens // study.corpus.context_size))
        .select("split", "token_ids")
        .collect()
    )
    token_ids = torch.from_numpy(token_matrix(sequences))
    differences = difference_from_bridge(model, token_ids[:SEQUENCES_COMPARED], list(layers))
    allowed = LARGEST_DIFFERENCE[study.model.dtype]
    for layer, difference in differences.items():
        if difference > allowed:
            raise HarvestError(
                f"{layers[layer]}: harvested z differs from the bridge's hook_z by "
                f"{difference:.2g} of its rms (allowed {allowed}); nothing was published"
            )
    with ExitStack() as stack:
        writers = {
            layer: stack.enter_context(
                tensors.writer(
                    "activation_cache", key, publisher.provenance(inputs), inputs=inputs.versions
                )
            )
            for layer, key in layers.items()
        }
        tables = write_shards(
            model,
            token_ids,
            {layer: writer.folder for layer, writer in writers.items()},
            dtype=DTYPES[study.activations.dtype],
            sequences_per_shard=study.activations.sequences_per_shard,
            batch_size=study.activations.batch_size,
            statistics_from=torch.from_numpy((sequences["split"] == "train").to_numpy()),
        )
    for layer, key in layers.items():
        cache, statistics = tables[layer].cache, tables[layer].statistics
        publisher.publish(
            key,
            inputs,
            {
                "activation_cache": cache,
                "activation_statistics": statistics,
            },
            {
                "activation_cache": {
                    "folder": dg.MetadataValue.path(writers[layer].published.path),
                    "tokens": float(cache["n_tokens"].sum()),
                    "gigabytes": float(cache["bytes"].sum()) / 1e9,
                    "difference_from_bridge": differences[layer],
                },
                "activation_statistics": {
                    "mean_rms": float(statistics["rms"].to_numpy().mean()),
                    "mean_norm_by_head": dg.MetadataValue.md(
                        f"![norm]({tiny_bar_chart(statistics['mean_norm'].to_list())})"
                    ),
                },
            },
        )
