"""SAEs of several architectures and sparsities per layer, and their frontier."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.places import frontier_folder
from mechinterp_assets.defs.saes.training import (
    forward_rows,
    require_training_memory,
)
from mechinterp_assets.orchestration.artefacts import open_cache, token_ids
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from torch import Tensor

    from mechinterp_assets.activations.rows import LayerRows
    from mechinterp_assets.sae.settings import SaeSettings

FRONTIER = "sae_frontier"


@tables(
    "sae_frontier",
    reads=["language_model", "tokenized_corpus", "activation_cache", "activation_statistics"],
    settings=[
        *("sae", "sweep", "corpus.context_size"),
        *("activations.batch_size", "activations.exclude_norm_above"),
    ],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    together=True,
)
def sae_frontier(run: Run) -> Iterator[Made]:
    """Train the study's sweep, all variants of a layer in lockstep; measure them; draw the page.

    A killed sweep continues from its checkpoint. Without variants the table is empty.
    """
    from mechinterp_assets.sae.sweep import FRONTIER_SCHEMA

    sweep = run.study.sweep
    if not sweep.variants:
        for layer in run.layers:
            yield run.at(layer).made({FRONTIER: pl.DataFrame(schema=FRONTIER_SCHEMA)})
        return
    from mechinterp_assets.dashboards.frontier import frontier_thumbnail, render_frontier

    wanted = sweep.evaluation_tokens or run.study.sae.evaluation_tokens
    tokens = token_ids(run, "held_out", max(1, wanted // run.study.corpus.context_size))
    name = frontier_folder(run.name)
    for layer in run.layers:
        own = run.at(layer)
        frame, seconds = _sweep(own, tokens)
        yield own.made(
            {FRONTIER: frame},
            {
                FRONTIER: {
                    "page": dg.MetadataValue.url(run.dashboards.url(name)),
                    "l0_against_ce_recovered": dg.MetadataValue.md(
                        f"![frontier]({frontier_thumbnail(frame)})"
                    ),
                    "training_seconds": seconds,
                }
            },
        )
    every = run.so_far(FRONTIER)
    with run.dashboards.publish(name) as folder:
        render_frontier(folder, every, model=Path(run.model.source).name, provenance=run.provenance)


def _sweep(run: Run, tokens: Tensor) -> tuple[pl.DataFrame, float]:
    """Train and measure all variants of one layer: its rows of sae_frontier, and the seconds of
    training, which earlier processes of a resumed one count to."""
    from mechinterp_assets.activations.statistics import mean_z_of
    from mechinterp_assets.sae.evaluation import evaluate_variants
    from mechinterp_assets.sae.sweep import Variant, frontier_rows
    from mechinterp_assets.sae.train import Member, train_together

    layer, key, device = run.layer, run.partition, run.device
    settings = {
        name: variant.for_layer(layer).on_device(device.type)
        for name, variant in run.study.sweep.of(run.study.sae).items()
    }
    members = {f"{key} {name}": Member(layer, own) for name, own in settings.items()}
    require_training_memory(
        run, f"{len(members)} variants of {key}", list(settings.values()), run.model.config.d_z, 1
    )
    rows, identity = _rows(run)
    with run.checkpoints(FRONTIER) as scratch:
        checkpoint = scratch.folder / f"sweep-{_digest(identity, settings)}"
        trained = train_together(rows, members, checkpoint, device=device)
        results = {name: trained[f"{key} {name}"] for name in settings}
        saes = {name: result.sae for name, result in results.items()}
        mean_z = mean_z_of(run.frame("activation_statistics"), layer)
        evaluation = evaluate_variants(run.model, {layer: saes}, tokens, {layer: mean_z})
        for folder in scratch.folder.glob("sweep-*/"):
            shutil.rmtree(folder)
    variants = {name: Variant(own, results[name], *own.sparsity) for name, own in settings.items()}
    seconds = float(next(iter(results.values())).info["seconds"])
    return frontier_rows(layer, variants, evaluation), seconds


def _rows(run: Run) -> tuple[LayerRows, str]:
    """The layer's rows from the source that the study names, and what identifies them."""
    from mechinterp_assets.activations.rows import CachedRows, OneLayer

    sae = run.study.sae
    if sae.source == "forward":
        forward = forward_rows(run, [run.layer], sae.seed)
        return forward, forward.identity
    reader = open_cache(run, "train")
    cached = CachedRows(reader, seed=sae.seed, buffer_rows=sae.buffer_rows, device=run.device)
    return OneLayer(cached, run.layer), reader.content_hash


def _digest(identity: str, settings: dict[str, SaeSettings]) -> str:
    parts = [identity, *(own.fingerprint() for own in settings.values())]
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]
