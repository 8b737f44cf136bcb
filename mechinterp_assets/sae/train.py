"""Training SAEs from streams of activation rows, resumable bit for bit.

Belongs here: the loop over batches, for one SAE and for several in lockstep from shared batches
(the layers of a model, the variants of a sweep), its checkpoints, and the row that describes a
trained SAE. Does not belong here: what one SAE does with a batch (trainer.py), where rows come from
(activations/rows.py, activations/forward_rows.py).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from tqdm import tqdm

from mechinterp_assets.activations.rows import LayerRows, OneLayer, RowStream
from mechinterp_assets.sae.checkpoints import (
    Checkpoint,
    clear_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.trainer import Trainer, TrainingResult, check_trainable

logger = logging.getLogger(__name__)

SAE_SCHEMA = {
    "layer": pl.Int32,
    "architecture": pl.String,
    "d_in": pl.Int32,
    "d_sae": pl.Int32,
    "k": pl.Int32,
    "l1_coefficient": pl.Float64,
    "l0_coefficient": pl.Float64,
    "trained_on": pl.String,
    "training_source": pl.String,
    "compute_dtype": pl.String,
    "training_tokens": pl.Int64,
    "steps": pl.Int64,
    "batch_size": pl.Int32,
    "learning_rate": pl.Float64,
    "input_scale": pl.Float64,
    "outlier_variance_share": pl.Float64,
    "resampled_features": pl.Int64,
    "seed": pl.Int64,
    "path": pl.String,
    "weights_hash": pl.String,
    "external_folder": pl.String,
    "external_hash": pl.String,
    "external_warnings": pl.String,
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """One of several SAEs trained together: the layer whose rows it learns, and its settings."""

    layer: int
    settings: SaeSettings


def train(
    rows: RowStream,
    settings: SaeSettings,
    checkpoint_folder: Path | None = None,
    *,
    resume: bool = True,
    device: str | torch.device = "cpu",
    label: str = "the SAE",
    progress: Progress | None = None,
) -> TrainingResult:
    """Train one SAE on settings.training_tokens rows of the stream; see train_together."""
    results = train_together(
        OneLayer(rows),
        {label: Member(0, settings)},
        checkpoint_folder,
        resume=resume,
        device=device,
        progress=progress,
    )
    return results[label]


def train_together(
    rows: LayerRows,
    members: Mapping[str, Member],
    checkpoint_folder: Path | None = None,
    *,
    resume: bool = True,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, TrainingResult]:
    """Train several SAEs in lockstep, each batch read (or harvested) once for all of them.

    members: by the name that errors and the log use; all with the same batch_size and number of
    steps. Each ends as it would alone on the same rows.
    checkpoint_folder: where the run's checkpoint lives; with resume, training continues from it and
    the result is bit for bit what an uninterrupted run gives (same device, thread count and
    versions). The finished run's checkpoint stays: remove the folder once the SAEs are published.
    progress(steps done, steps in all) is called after every step.
    Raises SaeError for impossible settings, non-finite data, a diverged loss, or a checkpoint of
    other settings or data.
    """
    steps, batch_size = _shared_shape(members)
    for name, member in members.items():
        check_trainable(member.settings, rows.d_in, name)
    if checkpoint_folder and not resume:
        clear_checkpoints(checkpoint_folder)
    saved = load_checkpoint(checkpoint_folder) if checkpoint_folder else None
    if saved is not None:
        _continue_rows(rows, members, saved)
    trainers = {
        name: Trainer(
            member.settings,
            rows.d_in,
            partial(rows.sample, member.layer),
            device=device,
            label=name,
            state=saved.states[i] if saved else None,
        )
        for i, (name, member) in enumerate(members.items())
    }
    first = next(iter(trainers.values()))
    if saved is not None:
        logger.info("training resumes at step %d of %d", first.steps_done, steps)
        del saved
    checkpoint_every = min(member.settings.checkpoint_every for member in members.values())
    with tqdm(
        total=steps, initial=first.steps_done, desc=_title(members), unit="step", disable=None
    ) as bar:
        shown = None
        for step in range(first.steps_done + 1, steps + 1):
            batch = rows.next(batch_size)
            for name, trainer in trainers.items():
                trainer.step(batch[members[name].layer])
            if first.last_entry is not shown:
                shown = first.last_entry
                bar.set_postfix(_postfix(shown))
            if checkpoint_folder and (step % checkpoint_every == 0 or step == steps):
                save_checkpoint(
                    checkpoint_folder,
                    step,
                    (trainer.state() for trainer in trainers.values()),
                    {"names": list(members), "stream": rows.state_dict()},
                )
            bar.update()
            if progress is not None:
                progress(step, steps)
    return {name: trainer.finish() for name, trainer in trainers.items()}


def sae_row(
    layer: int, settings: SaeSettings, result: TrainingResult, path: str, source: str
) -> pl.DataFrame:
    """Table attention_sae without study: one row, of a trained SAE whose weights are in `path`.

    source: where its rows came from.
    """
    row = {
        "layer": layer,
        "architecture": result.sae.architecture,
        "d_in": result.sae.d_in,
        "d_sae": result.sae.d_sae,
        "k": result.sae.k,
        "l1_coefficient": settings.l1_coefficient,
        "l0_coefficient": settings.l0_coefficient,
        "trained_on": "raw",
        "training_source": source,
        "compute_dtype": settings.compute_dtype,
        "training_tokens": result.info["training_tokens"],
        "steps": result.info["steps"],
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "input_scale": result.info["input_scale"],
        "outlier_variance_share": result.info["outlier_variance_share"],
        "resampled_features": result.info["resampled_features"],
        "seed": settings.seed,
        "path": path,
        "weights_hash": result.sae.weights_hash(),
    }
    return pl.DataFrame([row], schema=SAE_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _shared_shape(members: Mapping[str, Member]) -> tuple[int, int]:
    """Steps and batch size of all members; SaeError where they differ."""
    if not members:
        raise SaeError("no SAE to train; name at least one")
    shapes = {
        name: (member.settings.steps, member.settings.batch_size)
        for name, member in members.items()
    }
    first, shape = next(iter(shapes.items()))
    for name, other in shapes.items():
        if other != shape:
            raise SaeError(
                f"{name} takes {other[0]} steps of {other[1]} rows, {first} {shape[0]} of "
                f"{shape[1]}: SAEs trained together need one training_tokens and one batch_size"
            )
    return shape


def _continue_rows(rows: LayerRows, members: Mapping[str, Member], saved: Checkpoint) -> None:
    if saved.info["names"] != list(members):
        raise SaeError(
            f"the checkpoint {saved.path} is of {saved.info['names']}, not of {list(members)}; "
            "remove its folder or pass resume=False to start afresh"
        )
    try:
        rows.load_state_dict(saved.info["stream"])
    except ValueError as error:
        raise SaeError(f"the checkpoint does not fit this data: {error}") from error


def _title(members: Mapping[str, Member]) -> str:
    return "train SAE" if len(members) == 1 else f"train {len(members)} SAEs"


def _postfix(entry: dict[str, Any] | None) -> dict[str, str]:
    if entry is None:
        return {}
    variance = entry["batch_explained_variance"]
    return {
        "ev": "-" if variance is None else f"{variance:.3f}",
        "l0": f"{entry['l0']:.1f}",
        "dead": f"{entry['recent_dead_fraction']:.3f}",
    }
