"""Group `saes`, sweep: SAEs of several architectures and sparsities per layer; their frontier."""

import hashlib
import shutil
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import dagster as dg
import polars as pl
import torch

from mechinterp_assets.activations.rows import CachedRows, LayerRows, OneLayer
from mechinterp_assets.activations.statistics import mean_z_of
from mechinterp_assets.dashboards.frontier import frontier_thumbnail, render_frontier
from mechinterp_assets.dashboards.places import frontier_folder
from mechinterp_assets.defs.saes.attention_sae import (
    GROUP,
    compute_dtype_on,
    forward_rows,
    held_out_tokens,
    open_cache,
    require_training_memory,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site, sites_by_study
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_variants
from mechinterp_assets.sae.settings import TrainingSettings
from mechinterp_assets.sae.sweep import FRONTIER_SCHEMA, Variant, frontier_rows
from mechinterp_assets.sae.train import Member, train_together
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.sae_settings import sae_settings, sparsity_setting, sweep_sections

SCRATCH_KIND = "sae_frontier"


@dg.multi_asset(
    name="sae_frontier",
    specs=[
        table_asset(
            "sae_frontier",
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["activation_cache", "activation_statistics"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def sae_frontier(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
    dashboards: DashboardsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Train the study's sweep, all variants of a layer in lockstep; measure them; draw the page.

    A killed sweep continues from its checkpoint. Without variants the table is empty.
    """
    publisher = Publisher(context, lake)
    for name, keys in sites_by_study(context.partition_keys).items():
        study = STUDIES[name]
        if not study.sweep.variants:
            for key in keys:
                inputs = Inputs(lake, tensors, study)
                inputs.settings("sweep")
                empty = pl.DataFrame(schema=FRONTIER_SCHEMA)
                publisher.publish(key, inputs, {"sae_frontier": empty})
            continue
        device = compute.prepare(study.sae.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "sae", "sweep")
        tokenized = inputs.table("tokenized_corpus", name)
        tokens = held_out_tokens(tokenized, study, study.sweep.evaluation_tokens)
        for key in keys:
            own = copy(inputs)
            own.versions = dict(inputs.versions)
            frame = _sweep(key, own, model, tokens, tensors, compute, device)
            publisher.publish(
                key,
                own,
                {"sae_frontier": frame},
                {
                    "sae_frontier": {
                        "page": dg.MetadataValue.url(dashboards.url(frontier_folder(name))),
                        "l0_against_ce_recovered": dg.MetadataValue.md(
                            f"![frontier]({frontier_thumbnail(frame)})"
                        ),
                        "training_seconds": float(frame["training_seconds"].to_list()[0]),
                    }
                },
            )
        existing = [key for key in study.sites if lake.exists("sae_frontier", key)]
        with dashboards.publish(frontier_folder(name)) as folder:
            render_frontier(
                folder,
                lake.read("sae_frontier", existing).collect(),
                model=Path(model.source).name,
                provenance=publisher.provenance(inputs),
            )
    yield from publisher.results()


def _sweep(
    key: str,
    inputs: Inputs,
    model: LanguageModel,
    tokens: torch.Tensor,
    tensors: Tensors,
    compute: ComputeResource,
    device: torch.device,
) -> pl.DataFrame:
    """Train and measure all variants of one layer: its rows of sae_frontier."""
    study, layer = inputs.study, site(key)[1]
    settings = {
        name: sae_settings(section, layer, compute_dtype_on(device))
        for name, section in sweep_sections(study).items()
    }
    members = {f"{key} {name}": Member(layer, own) for name, own in settings.items()}
    require_training_memory(
        compute,
        study,
        f"{len(members)} variants of {key}",
        list(settings.values()),
        model.config.d_z,
        1,
    )
    rows, identity = _rows(key, inputs, model, device)
    with tensors.scratch(SCRATCH_KIND, key) as scratch:
        checkpoint = scratch.folder / f"sweep-{_digest(identity, settings)}"
        trained = train_together(rows, members, checkpoint, device=device)
        results = {name: trained[f"{key} {name}"] for name in settings}
        saes: dict[str, SparseAutoencoder] = {name: r.sae for name, r in results.items()}
        mean_z = mean_z_of(inputs.table("activation_statistics", key).collect(), layer)
        evaluation = evaluate_variants(model, {layer: saes}, tokens, {layer: mean_z})
        for folder in scratch.folder.glob("sweep-*/"):
            shutil.rmtree(folder)
    variants = {
        name: Variant(own, results[name], *sparsity_setting(own)) for name, own in settings.items()
    }
    return frontier_rows(layer, variants, evaluation)


def _rows(
    key: str, inputs: Inputs, model: LanguageModel, device: torch.device
) -> tuple[LayerRows, str]:
    """The layer's rows from the source that the study names, and what identifies them."""
    sae, layer = inputs.study.sae, site(key)[1]
    if sae.source == "forward":
        inputs.settings("activations")  # sequences a forward pass
        forward = forward_rows(inputs, model, [layer], sae.seed)
        return forward, forward.identity
    _, reader = open_cache(inputs, key, "train")
    cached = CachedRows(reader, seed=sae.seed, buffer_rows=sae.buffer_rows, device=device)
    return OneLayer(cached, layer), reader.content_hash


def _digest(identity: str, settings: dict[str, TrainingSettings]) -> str:
    parts = [identity, *(own.fingerprint() for own in settings.values())]
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]
