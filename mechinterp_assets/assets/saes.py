"""Group `saes`: one attention-output SAE per layer, its training log and its evaluation."""

import math
import shutil
from collections.abc import Iterator

import dagster as dg
import polars as pl
import torch

from mechinterp_assets.activations.cache import ActivationReader
from mechinterp_assets.activations.rows import CachedRows
from mechinterp_assets.activations.statistics import mean_z_of
from mechinterp_assets.assets.publish import Inputs, Metadata, Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES, site, sites_by_study
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_layers
from mechinterp_assets.sae.io import (
    SaeMetadata,
    check_compatible,
    load_sae,
    read_metadata,
    save_sae,
    verify_saved,
)
from mechinterp_assets.sae.settings import TrainingSettings, training_bytes
from mechinterp_assets.sae.train import sae_row, train
from mechinterp_assets.study import Study, site_key
from resources.compute import ComputeResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Artefact, Tensors

GROUP = "saes"
VERIFIED_ROWS = 4096
SAE_KIND = "attention_sae"
CACHE_KIND = "activation_cache"


def training_settings(study: Study, layer: int) -> TrainingSettings:
    """The study's SAE section as training settings; each layer has its own seed."""
    sae = study.sae
    return TrainingSettings(
        architecture=sae.architecture,
        d_sae=sae.d_sae,
        tokens=sae.training_tokens,
        k=sae.k if sae.architecture == "topk" else None,
        l1_coefficient=sae.l1_coefficient if sae.architecture == "standard" else None,
        batch_size=sae.batch_size,
        lr=sae.learning_rate,
        dead_after_tokens=sae.dead_after_tokens,
        seed=sae.seed * 1000 + layer,
    )


def open_cache(inputs: Inputs, key: str, split: str | None) -> tuple[Artefact, ActivationReader]:
    """The activation cache of a site, restricted to one split of the corpus."""
    artefact = inputs.artefact(CACHE_KIND, key)
    reader = ActivationReader(artefact.path)
    if split is None:
        return artefact, reader
    splits = (
        inputs.table("tokenized_corpus", inputs.study.study)
        .sort("sequence")
        .select(pl.col("split") == split)
        .slice(reader.first_sequence, reader.n_sequences)
        .collect()
    )
    return artefact, ActivationReader(artefact.path, torch.from_numpy(splits["split"].to_numpy()))


def open_sae(inputs: Inputs, key: str, model: LanguageModel) -> SparseAutoencoder:
    """The SAE of a site, refused if it was made for another model, tokenizer or width."""
    artefact = inputs.artefact(SAE_KIND, key)
    metadata = read_metadata(artefact.path)
    check_compatible(metadata, model.config, model.weights_hash, model.tokenizer_hash)
    sae = load_sae(artefact.path)
    inputs.sae_version = sae.weights_hash()
    return sae.to(model.device)


@dg.multi_asset(
    name="attention_sae",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["activation_cache", "activation_statistics"],
            kinds=["torch", "safetensors"],
        )
        for name in ("attention_sae", "sae_training_log")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def attention_sae(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Train an SAE on z_cat of each layer; a killed run continues from its checkpoint.

    Before an SAE is published it is loaded again from what was saved and must give the same L0 and
    explained variance.
    """
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        _train_site(context, key, publisher, lake, tensors, models, compute)
    yield from publisher.results()


def _train_site(
    context: dg.AssetExecutionContext,
    key: str,
    publisher: Publisher,
    lake: Lake,
    tensors: Tensors,
    models: LanguageModelResource,
    compute: ComputeResource,
) -> None:
    study, layer = site(key)
    device = compute.prepare(study.sae.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "sae")
    settings = training_settings(study, layer)
    compute.require_memory(
        training_bytes(settings, model.config.d_z),
        f"{study.file}: sae.d_sae: training {key} with d_sae={settings.d_sae} and "
        f"batch_size={settings.batch_size}",
        "sae.d_sae or sae.batch_size",
    )
    _, reader = open_cache(inputs, key, "train")
    rows = CachedRows(reader, seed=settings.seed, device=device)
    with tensors.scratch(SAE_KIND, key) as scratch:
        # A checkpoint of other settings or other activations is not this run's: leave it aside.
        checkpoint = scratch.folder / f"{settings.fingerprint()}-{reader.content_hash[:16]}"
        result = train(rows, settings, checkpoint, device=device)
        with tensors.writer(
            SAE_KIND, key, publisher.provenance(inputs), inputs=inputs.versions
        ) as writer:
            save_sae(
                writer.folder,
                result.sae,
                SaeMetadata.of(
                    model,
                    layer,
                    context_size=study.corpus.context_size,
                    dataset=str(study.corpus.path or study.corpus.dataset or "structured"),
                    training={"settings": settings.fingerprint(), "study": study.study},
                ),
            )
            verify_saved(writer.folder, result.sae, rows.sample(VERIFIED_ROWS, settings.seed))
        for folder in scratch.folder.glob("*-*/"):
            shutil.rmtree(folder)
    inputs.sae_version = result.sae.weights_hash()
    log = result.log
    last = log.row(-1, named=True)
    publisher.publish(
        key,
        inputs,
        {
            "attention_sae": sae_row(layer, settings, result, f"{SAE_KIND}/{key}"),
            "sae_training_log": log.with_columns(layer=pl.lit(layer, pl.Int32)),
        },
        {
            "attention_sae": {
                "folder": dg.MetadataValue.path(writer.published.path),
                "tokens_per_second": float(result.info["tokens_per_second"]),
                "training_seconds": float(result.info["seconds"]),
                "explained_variance": float(last["explained_variance"]),
                "l0": float(last["l0"]),
                "dead_fraction": float(last["dead_fraction"]),
            },
            "sae_training_log": {
                "loss": float(last["loss"]),
                "loss_over_training": dg.MetadataValue.md(
                    f"![loss]({tiny_bar_chart(_thinned(log['loss'].to_list()))})"
                ),
            },
        },
    )


@dg.multi_asset(
    name="sae_evaluation",
    specs=[
        table_asset(
            "sae_evaluation",
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["attention_sae", "activation_statistics"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def sae_evaluation(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """L0, explained variance, CE loss recovered, KL and more, on held-out sequences.

    The layers of one run share the clean forward passes.
    """
    publisher = Publisher(context, lake)
    for name, keys in sites_by_study(context.partition_keys).items():
        study = STUDIES[name]
        compute.prepare(study.sae.seed)
        model = models.load(study)
        held_out = (
            lake.read("tokenized_corpus", name)
            .filter(pl.col("split") == "held_out")
            .sort("sequence")
            .head(max(1, study.sae.evaluation_tokens // study.corpus.context_size))
            .select("token_ids")
            .collect()
        )
        inputs_of: dict[int, Inputs] = {}
        saes: dict[int, SparseAutoencoder] = {}
        means: dict[int, torch.Tensor] = {}
        for key in keys:
            layer = site(key)[1]
            inputs = inputs_of[layer] = Inputs(lake, tensors, study)
            inputs.settings("sae")
            inputs.model(model)
            inputs.table("tokenized_corpus", name)
            saes[layer] = open_sae(inputs, key, model)
            means[layer] = mean_z_of(inputs.table("activation_statistics", key).collect(), layer)
        result = evaluate_layers(model, saes, torch.from_numpy(token_matrix(held_out)), means)
        for layer, inputs in inputs_of.items():
            row = result.filter(pl.col("layer") == layer)
            numbers: Metadata = {
                column: float(value)
                for column, value in row.row(0, named=True).items()
                if isinstance(value, float)
            }
            publisher.publish(
                site_key(name, layer), inputs, {"sae_evaluation": row}, {"sae_evaluation": numbers}
            )
    yield from publisher.results()


def _thinned(values: list[float], count: int = 24) -> list[float]:
    step = max(1, math.ceil(len(values) / count))
    return values[::step]
