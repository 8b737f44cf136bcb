"""z of every layer from one forward pass, and its statistics."""

from collections.abc import Iterator
from contextlib import ExitStack

import dagster as dg

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.orchestration.artefacts import CACHE
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

SEQUENCES_COMPARED = 4


class HarvestError(RuntimeError):
    """Harvested activations that are not what TransformerLens calls hook_z."""


def check_difference(partition: str, difference: float, allowed: float) -> None:
    """Raise HarvestError where harvested z is not the bridge's hook_z, NaN included."""
    if not difference <= allowed:
        raise HarvestError(
            f"{partition}: harvested z differs from the bridge's hook_z by {difference:.2g} of its "
            f"rms on the same residual stream (allowed {allowed}); nothing was published"
        )


@tables(
    "activation_cache",
    "activation_statistics",
    "activation_outliers",
    reads=["language_model", "tokenized_corpus"],
    settings=["activations", "corpus.context_size"],
    seed=0,
    pool=GPU,
    kinds=["torch", "safetensors"],
    together=True,
    needs=["activations"],
)
def activation_cache(run: Run) -> Iterator[Made]:
    """Harvest z of all layers of the run's partitions, one forward pass per study.

    Before anything is published, harvested z must equal the bridge's hook_z on a few sequences.
    """
    import torch

    from mechinterp_assets.activations.cache import DTYPES, write_shards
    from mechinterp_assets.activations.harvest import difference_from_bridge
    from mechinterp_assets.activations.norm_limits import norm_limits
    from mechinterp_assets.corpora.tokenize import token_matrix
    from mechinterp_assets.model.precision import same_layer

    settings, model = run.study.activations, run.model
    sequences = (
        run.table("tokenized_corpus")
        .sort("sequence")
        .head(max(1, settings.max_tokens // run.study.corpus.context_size))
        .select("split", "token_ids")
        .collect()
    )
    token_ids = torch.from_numpy(token_matrix(sequences))
    runs = {layer: run.at(layer) for layer in run.layers}
    differences = difference_from_bridge(model, token_ids[:SEQUENCES_COMPARED], run.layers)
    allowed = same_layer(model.dtype)
    for layer, difference in differences.items():
        check_difference(runs[layer].partition, difference, allowed)
    train = torch.from_numpy((sequences["split"] == "train").to_numpy())
    limits = norm_limits(model, token_ids[train], run.layers, settings.exclude_norm_above)
    with ExitStack() as stack:
        writers = {layer: stack.enter_context(own.writer(CACHE)) for layer, own in runs.items()}
        made = write_shards(
            model,
            token_ids,
            {layer: writer.folder for layer, writer in writers.items()},
            dtype=DTYPES[settings.dtype],
            sequences_per_shard=settings.sequences_per_shard,
            batch_size=settings.batch_size,
            statistics_from=train,
            norm_limits=limits,
        )
    for layer, own in runs.items():
        cache, statistics = made[layer].cache, made[layer].statistics
        outliers = made[layer].outliers
        yield own.made(
            {
                "activation_cache": cache,
                "activation_statistics": statistics,
                "activation_outliers": outliers,
            },
            {
                "activation_outliers": {"tokens": float(outliers.height)},
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
