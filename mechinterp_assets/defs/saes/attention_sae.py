"""Group `saes`: one attention-output SAE per layer, its training log and its evaluation."""

import hashlib
import math
import shutil
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import dagster as dg
import polars as pl
import torch

from mechinterp_assets.activations.cache import ActivationReader
from mechinterp_assets.activations.forward_rows import BUFFER_DTYPES, ForwardRows, buffer_bytes
from mechinterp_assets.activations.rows import CachedRows
from mechinterp_assets.activations.statistics import mean_z_of
from mechinterp_assets.corpora.tokenize import token_matrix
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.publishing import (
    Inputs,
    Metadata,
    Publisher,
    inputs_with_model,
)
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site, sites_by_study
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_layers
from mechinterp_assets.sae.external import check_explains, external_row, read_external
from mechinterp_assets.sae.io import (
    SaeMetadata,
    check_compatible,
    load_sae,
    read_metadata,
    save_sae,
    verify_saved,
)
from mechinterp_assets.sae.settings import TrainingSettings, lockstep_bytes
from mechinterp_assets.sae.train import Member, TrainingResult, sae_row, train, train_together
from mechinterp_assets.sae.trainer import LOG_SCHEMA
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Artefact, Scratch, Tensors
from mechinterp_assets.studies.sae_settings import ComputeDtype, sae_settings
from mechinterp_assets.studies.study import Study, site_key

GROUP = "saes"
VERIFIED_ROWS = 4096
EXTERNAL_ROWS = 16_384
SAE_KIND = "attention_sae"
CACHE_KIND = "activation_cache"


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

    Rows come from each layer's activation cache, or (sae.source: forward) from one forward pass
    shared by all layers of the run. Before an SAE is published it is loaded again from what was
    saved and must give the same L0 and explained variance. SAEs trained elsewhere (architecture
    external) are adopted when they explain the study's own activations.
    """
    publisher = Publisher(context, lake)
    resources = _Resources(lake, tensors, models, compute)
    for keys in sites_by_study(context.partition_keys).values():
        if site(keys[0])[0].sae.architecture == "external":
            for key in keys:
                _adopt_external(key, publisher, resources)
        elif site(keys[0])[0].sae.source == "forward":
            _train_from_forward_passes(keys, publisher, resources)
        else:
            for key in keys:
                _train_from_cache(key, publisher, resources)
    yield from publisher.results()


@dataclass(frozen=True)
class _Resources:
    lake: Lake
    tensors: Tensors
    models: LanguageModelResource
    compute: ComputeResource


def compute_dtype_on(device: torch.device) -> ComputeDtype:
    """What compute_dtype `auto` stands for: bfloat16 where it is known to be faster."""
    return "bfloat16" if device.type == "cuda" else "float32"


def train_tokens(inputs: Inputs) -> torch.Tensor:
    """Token ids [sequence, position] of the study's train split."""
    sequences = (
        inputs.table("tokenized_corpus", inputs.study.study)
        .filter(pl.col("split") == "train")
        .sort("sequence")
        .select("token_ids")
        .collect()
    )
    return torch.from_numpy(token_matrix(sequences))


def held_out_tokens(
    tokenized: pl.LazyFrame, study: Study, tokens: int | None = None
) -> torch.Tensor:
    """Token ids [sequence, position] to evaluate on: about `tokens` of the held-out split (default:
    the study's sae.evaluation_tokens), at least one sequence.
    """
    wanted = tokens or study.sae.evaluation_tokens
    sequences = (
        tokenized.filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(max(1, wanted // study.corpus.context_size))
        .select("token_ids")
        .collect()
    )
    return torch.from_numpy(token_matrix(sequences))


def forward_rows(
    inputs: Inputs, model: LanguageModel, layers: Sequence[int], seed: int
) -> ForwardRows:
    """Rows of some layers from forward passes over the study's train split."""
    sae = inputs.study.sae
    return ForwardRows(
        model,
        train_tokens(inputs),
        layers,
        seed=seed,
        buffer_rows=sae.buffer_rows,
        batch_size=inputs.study.activations.batch_size,
        dtype=BUFFER_DTYPES[sae.buffer_dtype],
    )


def require_training_memory(
    compute: ComputeResource,
    study: Study,
    what: str,
    members: Sequence[TrainingSettings],
    d_in: int,
    layers: int,
) -> None:
    """Raise ComputeError, before work starts, where SAEs trained together do not fit the device.

    layers: how many layers' rows are buffered.
    """
    sae = study.sae
    forward = sae.source == "forward"
    dtype = BUFFER_DTYPES[sae.buffer_dtype] if forward else torch.float32
    settings = "sae.d_sae, sae.batch_size or sae.buffer_rows"
    compute.require_memory(
        lockstep_bytes(members, d_in) + buffer_bytes(layers, d_in, sae.buffer_rows, dtype),
        f"{study.file}: sae.d_sae: training {what} with d_sae={max(m.d_sae for m in members)}, "
        f"batch_size={sae.batch_size} and buffer_rows={sae.buffer_rows}",
        settings + (", or train fewer layers in one run" if layers > 1 else ""),
    )


def _train_from_cache(key: str, publisher: Publisher, resources: _Resources) -> None:
    study, layer = site(key)
    device = resources.compute.prepare(study.sae.seed)
    inputs, model = inputs_with_model(
        resources.lake, resources.tensors, resources.models, study, "sae"
    )
    settings = sae_settings(study.sae, layer, compute_dtype_on(device))
    require_training_memory(resources.compute, study, key, [settings], model.config.d_z, 1)
    _, reader = open_cache(inputs, key, "train")
    rows = CachedRows(reader, seed=settings.seed, buffer_rows=study.sae.buffer_rows, device=device)
    with resources.tensors.scratch(SAE_KIND, key) as scratch:
        # A checkpoint of other settings or other activations is not this run's: leave it aside.
        checkpoint = scratch.folder / f"{settings.fingerprint()}-{reader.content_hash[:16]}"
        result = train(rows, settings, checkpoint, device=device, label=key)
        sample = rows.sample(VERIFIED_ROWS, settings.seed)
        _publish_sae(key, inputs, model, settings, result, sample, publisher, resources.tensors)
        _remove_checkpoints(scratch)


def _train_from_forward_passes(
    keys: list[str], publisher: Publisher, resources: _Resources
) -> None:
    study = site(keys[0])[0]
    device = resources.compute.prepare(study.sae.seed)
    inputs, model = inputs_with_model(
        resources.lake, resources.tensors, resources.models, study, "sae"
    )
    inputs.settings("activations")  # sequences a forward pass
    dtype = compute_dtype_on(device)
    members = {
        key: Member(site(key)[1], sae_settings(study.sae, site(key)[1], dtype)) for key in keys
    }
    require_training_memory(
        resources.compute,
        study,
        f"{len(keys)} layers of {study.study} in lockstep",
        [member.settings for member in members.values()],
        model.config.d_z,
        len(keys),
    )
    layers = [member.layer for member in members.values()]
    rows = forward_rows(inputs, model, layers, study.sae.seed)
    with resources.tensors.scratch(SAE_KIND, study.study) as scratch:
        identity = [rows.identity, *(m.settings.fingerprint() for m in members.values())]
        digest = hashlib.sha256("/".join(identity).encode()).hexdigest()[:16]
        results = train_together(rows, members, scratch.folder / f"forward-{digest}", device=device)
        for key, member in members.items():
            settings = member.settings
            sample = rows.sample(member.layer, VERIFIED_ROWS, settings.seed)
            own = copy(inputs)  # each layer's provenance names its own SAE
            _publish_sae(
                key, own, model, settings, results[key], sample, publisher, resources.tensors
            )
        _remove_checkpoints(scratch)


def _adopt_external(key: str, publisher: Publisher, resources: _Resources) -> None:
    study, layer = site(key)
    tensors = resources.tensors
    inputs, model = inputs_with_model(resources.lake, tensors, resources.models, study, "sae")
    context_size = study.corpus.context_size
    external = read_external(
        study.sae.external_folder(layer), model, layer, context_size=context_size
    )
    _, reader = open_cache(inputs, key, "train")
    sample = CachedRows(reader, seed=study.sae.seed).sample(EXTERNAL_ROWS, study.sae.seed)
    measures = check_explains(external, sample, study.sae.min_explained_variance)
    with tensors.writer(
        SAE_KIND, key, publisher.provenance(inputs), inputs=inputs.versions
    ) as writer:
        save_sae(writer.folder, external.sae, external.adopted(model, layer, context_size))
        verify_saved(writer.folder, external.sae, sample[:VERIFIED_ROWS])
    inputs.sae_version = external.sae.weights_hash()
    numbers: Metadata = {
        name: float(value) for name, value in measures.items() if isinstance(value, float)
    }
    publisher.publish(
        key,
        inputs,
        {
            "attention_sae": external_row(layer, external, f"{SAE_KIND}/{key}"),
            "sae_training_log": pl.DataFrame(schema={"layer": pl.Int32, **LOG_SCHEMA}),
        },
        {
            "attention_sae": {
                "folder": dg.MetadataValue.path(writer.published.path),
                "external_folder": dg.MetadataValue.path(str(external.folder)),
                "warnings": "; ".join(external.warnings) or "none",
                **numbers,
            }
        },
    )


def _remove_checkpoints(scratch: Scratch) -> None:
    for folder in scratch.folder.glob("*-*/"):
        shutil.rmtree(folder)


def _publish_sae(
    key: str,
    inputs: Inputs,
    model: LanguageModel,
    settings: TrainingSettings,
    result: TrainingResult,
    sample: torch.Tensor,
    publisher: Publisher,
    tensors: Tensors,
) -> None:
    """Write one SAE and its log; `sample` are rows [n, d_in] that the written SAE must agree on."""
    study, layer = site(key)
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
        verify_saved(writer.folder, result.sae, sample)
    inputs.sae_version = result.sae.weights_hash()
    log = result.log
    last = log.row(-1, named=True)
    publisher.publish(
        key,
        inputs,
        {
            "attention_sae": sae_row(
                layer, settings, result, f"{SAE_KIND}/{key}", study.sae.source
            ),
            "sae_training_log": log.with_columns(layer=pl.lit(layer, pl.Int32)),
        },
        {
            "attention_sae": {
                "folder": dg.MetadataValue.path(writer.published.path),
                "tokens_per_second": float(result.info["tokens_per_second"]),
                "training_seconds": float(result.info["seconds"]),
                "resumed_from_step": int(result.info["resumed_from_step"]),
                "batch_explained_variance": float(last["batch_explained_variance"]),
                "l0": float(last["l0"]),
                "recent_dead_fraction": float(last["recent_dead_fraction"]),
            },
            "sae_training_log": {
                "training_loss": float(last["training_loss"]),
                "loss_over_training": dg.MetadataValue.md(
                    f"![loss]({tiny_bar_chart(_thinned(log['training_loss'].to_list()))})"
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
        held_out = held_out_tokens(lake.read("tokenized_corpus", name), study)
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
        result = evaluate_layers(model, saes, held_out, means)
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
