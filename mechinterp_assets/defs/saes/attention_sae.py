"""One attention-output SAE per layer, and its training log."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.saes.training import forward_rows, require_training_memory
from mechinterp_assets.orchestration.artefacts import SAE, open_cache
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from torch import Tensor

    from mechinterp_assets.sae.settings import SaeSettings
    from mechinterp_assets.sae.trainer import TrainingResult
    from mechinterp_assets.storage.tensors import Scratch

VERIFIED_ROWS = 4096
EXTERNAL_ROWS = 16_384


@tables(
    "attention_sae",
    "sae_training_log",
    "sae_adoption",
    reads=["language_model", "tokenized_corpus", "activation_cache"],
    gates=["activation_statistics"],
    settings=[
        "sae",
        "activations.batch_size",
        "activations.exclude_norm_above",
        "corpus.context_size",
        "corpus.path",
        "corpus.dataset",
    ],
    files=["sae.path"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch", "safetensors"],
    together=True,
)
def attention_sae(run: Run) -> Iterator[Made]:
    """Train an SAE on z_cat of each layer; a killed run continues from its checkpoint.

    Rows come from each layer's activation cache, or (sae.source: forward) from one forward pass
    shared by all layers of the run. Before an SAE is published it is loaded again from what was
    saved and must give the same L0 and explained variance. SAEs trained elsewhere (architecture
    external) are adopted when they fit the study's own activations, as they are said to be read.
    """
    sae = run.study.sae
    if sae.architecture != "external" and sae.source == "forward":
        yield from _train_from_forward_passes(run)
        return
    for layer in run.layers:
        one = _adopt_external if sae.architecture == "external" else _train_from_cache
        yield from one(run.at(layer))


def _train_from_cache(run: Run) -> Iterator[Made]:
    from mechinterp_assets.activations.rows import CachedRows
    from mechinterp_assets.sae.train import train

    sae, device = run.study.sae, run.compute.prepare(run.study.sae.seed)
    settings = sae.for_layer(run.layer).on_device(device.type)
    require_training_memory(run, run.partition, [settings], run.model.config.d_z, 1)
    reader = open_cache(run, "train")
    rows = CachedRows(reader, seed=settings.seed, buffer_rows=sae.buffer_rows, device=device)
    with run.checkpoints(SAE) as scratch:
        # A checkpoint of other settings or other activations is not this run's: leave it aside.
        checkpoint = scratch.folder / f"{settings.fingerprint()}-{reader.content_hash[:16]}"
        result = train(rows, settings, checkpoint, device=device, label=run.partition)
        yield _saved(run, settings, result, rows.sample(VERIFIED_ROWS, settings.seed))
        _remove_checkpoints(scratch)


def _train_from_forward_passes(run: Run) -> Iterator[Made]:
    from mechinterp_assets.sae.train import Member, train_together

    sae, device = run.study.sae, run.device
    runs = {(own := run.at(layer)).partition: own for layer in run.layers}
    members = {
        key: Member(own.layer, sae.for_layer(own.layer).on_device(device.type))
        for key, own in runs.items()
    }
    require_training_memory(
        run,
        f"{len(members)} layers of {run.name} in lockstep",
        [member.settings for member in members.values()],
        run.model.config.d_z,
        len(members),
    )
    rows = forward_rows(run, run.layers, sae.seed)
    with run.checkpoints(SAE) as scratch:
        identity = [rows.identity, *(m.settings.fingerprint() for m in members.values())]
        digest = hashlib.sha256("/".join(identity).encode()).hexdigest()[:16]
        results = train_together(rows, members, scratch.folder / f"forward-{digest}", device=device)
        for key, member in members.items():
            sample = rows.sample(member.layer, VERIFIED_ROWS, member.settings.seed)
            yield _saved(runs[key], member.settings, results[key], sample)
        _remove_checkpoints(scratch)


def _adopt_external(run: Run) -> Iterator[Made]:
    from mechinterp_assets.activations.rows import CachedRows
    from mechinterp_assets.model.value_offset import value_offset
    from mechinterp_assets.sae.external import (
        Expectation,
        adoption_rows,
        check_fits,
        external_row,
        measure_fit,
        read_external,
    )
    from mechinterp_assets.sae.io import save_sae, verify_saved
    from mechinterp_assets.sae.trainer import LOG_SCHEMA

    sae, context_size, model = run.study.sae, run.study.corpus.context_size, run.model
    external = read_external(
        sae.external_folder(run.layer), model, run.layer, context_size=context_size
    )
    reader = open_cache(run, "train")
    sample = CachedRows(reader, seed=sae.seed).sample(EXTERNAL_ROWS, sae.seed)
    expected = Expectation(
        trained_on=sae.trained_on,
        max_fvu=sae.max_fvu,
        l0=sae.of_layer("expected_l0", run.layer),
        folder_hash=sae.of_layer("expected_hash", run.layer),
    )
    offset = value_offset(model, run.layer)
    fit = measure_fit(external, sample, offset, model.config.n_heads, expected)
    check_fits(external, fit)
    warnings = (*external.warnings, *fit.warnings)
    for warning in warnings:
        run.log.warning(f"{run.partition}: {external.folder}: {warning}")
    with run.writer(SAE) as writer:
        adopted = external.adopted(model, run.layer, context_size, fit.chosen.name)
        save_sae(writer.folder, fit.sae, adopted)
        verify_saved(writer.folder, fit.sae, sample[:VERIFIED_ROWS])
    run.inputs.came_from(sae_version=fit.sae.weights_hash())
    yield run.made(
        {
            "attention_sae": external_row(run.layer, external, fit, f"{SAE}/{run.partition}"),
            "sae_training_log": pl.DataFrame(schema={"layer": pl.Int32, **LOG_SCHEMA}),
            "sae_adoption": adoption_rows(run.layer, fit),
        },
        {
            "attention_sae": {
                "folder": dg.MetadataValue.path(writer.published.path),
                "external_folder": dg.MetadataValue.path(str(external.folder)),
                "warnings": "; ".join(warnings) or "none",
                "trained_on": fit.chosen.name,
                "fvu": fit.chosen.loss,
                "l0": fit.chosen.l0,
            }
        },
    )


def _remove_checkpoints(scratch: Scratch) -> None:
    for folder in scratch.folder.glob("*-*/"):
        shutil.rmtree(folder)


def _saved(run: Run, settings: SaeSettings, result: TrainingResult, sample: Tensor) -> Made:
    """Write one SAE, and give its row and log; `sample` are rows [n, d_in] that the written SAE
    must agree on."""
    from mechinterp_assets.sae.external import ADOPTION_SCHEMA
    from mechinterp_assets.sae.io import SaeMetadata, save_sae, verify_saved
    from mechinterp_assets.sae.train import sae_row

    corpus = run.study.corpus
    with run.writer(SAE) as writer:
        save_sae(
            writer.folder,
            result.sae,
            SaeMetadata.of(
                run.model,
                run.layer,
                context_size=corpus.context_size,
                dataset=str(corpus.path or corpus.dataset or "structured"),
                training={"settings": settings.fingerprint(), "study": run.name},
            ),
        )
        verify_saved(writer.folder, result.sae, sample)
    run.inputs.came_from(sae_version=result.sae.weights_hash())
    log = result.log
    last = log.row(-1, named=True)
    row = sae_row(run.layer, settings, result, f"{SAE}/{run.partition}", run.study.sae.source)
    return run.made(
        {
            "attention_sae": row,
            "sae_training_log": log,
            "sae_adoption": pl.DataFrame(schema=ADOPTION_SCHEMA),
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


def _thinned(values: list[float], count: int = 24) -> list[float]:
    step = max(1, math.ceil(len(values) / count))
    return values[::step]
