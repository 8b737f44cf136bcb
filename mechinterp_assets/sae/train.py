"""Training one SAE from a stream of activation rows, resumable bit for bit.

Belongs here: initialisation, schedules, the loop, its log and its checkpoints. Does not belong
here: losses and gradients (a file per architecture), where rows come from (activations/rows.py).
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from mechinterp_assets.activations.rows import RowStream, derived_seed
from mechinterp_assets.sae.architectures import training_step_class
from mechinterp_assets.sae.base import SaeError, SparseAutoencoder
from mechinterp_assets.sae.checkpoints import load_checkpoint, save_checkpoint
from mechinterp_assets.sae.settings import TrainingSettings, training_bytes
from mechinterp_assets.sae.steps import TrainingStep

__all__ = [
    "TrainingResult",
    "TrainingSettings",
    "learning_rate",
    "sae_row",
    "train",
    "training_bytes",
]

logger = logging.getLogger(__name__)

LOG_SCHEMA = {
    "step": pl.Int64,
    "tokens": pl.Int64,
    "learning_rate": pl.Float64,
    "loss": pl.Float64,
    "mse": pl.Float64,
    "sparsity_loss": pl.Float64,
    "l0": pl.Float64,
    "explained_variance": pl.Float64,
    "dead_fraction": pl.Float64,
    "resampled_features": pl.Int64,
}

SAE_SCHEMA = {
    "layer": pl.Int32,
    "architecture": pl.String,
    "d_in": pl.Int32,
    "d_sae": pl.Int32,
    "k": pl.Int32,
    "l1_coefficient": pl.Float64,
    "training_tokens": pl.Int64,
    "steps": pl.Int64,
    "batch_size": pl.Int32,
    "learning_rate": pl.Float64,
    "input_scale": pl.Float64,
    "resampled_features": pl.Int64,
    "seed": pl.Int64,
    "path": pl.String,
    "weights_hash": pl.String,
}


@dataclass(frozen=True)
class TrainingResult:
    """A trained SAE for unscaled inputs, the table sae_training_log without study and layer, and
    numbers of the run: steps, training_tokens, input_scale, resampled_features, seconds,
    tokens_per_second (of this process), resumed_from_step, settings_fingerprint.
    """

    sae: SparseAutoencoder
    log: pl.DataFrame
    info: dict[str, int | float | str]


@dataclass
class _State:
    """What changes from step to step, besides the parameters."""

    step: int
    scale: float
    last_resample: int | None
    resampled: int
    resampled_since_log: int
    seconds: float
    rows_since_log: int
    totals: Tensor
    log: list[dict[str, Any]]


def learning_rate(settings: TrainingSettings, step: int, last_resample: int | None) -> float:
    """lr of a step (0-based): linear warm-up, constant, linear decay; and, after a resampling,
    0.1x rising along a cosine over resample_warmup_steps (K24, App. B), or over a tenth of a
    training too short for that.
    """
    steps = settings.steps
    warmup, decay = round(settings.lr_warmup * steps), round(settings.lr_decay * steps)
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if decay:
        factor *= min(1.0, (steps - step) / decay)
    if last_resample is not None:
        restart = min(settings.resample_warmup_steps, max(1, steps // 10))
        share = (step - last_resample) / restart
        if share < 1:
            factor *= 0.1 + 0.9 * (1 - math.cos(math.pi * share)) / 2
    return settings.lr * factor


def train(
    rows: RowStream,
    settings: TrainingSettings,
    checkpoint_folder: Path | None = None,
    *,
    resume: bool = True,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train one SAE on settings.tokens rows of the stream.

    checkpoint_folder: where the run's checkpoint lives; with resume, training continues from it and
    the result is bit for bit what an uninterrupted run gives (same device, thread count and
    versions). The finished run's checkpoint stays: remove the folder once the SAE is published.
    progress(steps done, steps in all) is called after every step.
    Raises SaeError for impossible settings, non-finite data, a diverged loss, or a checkpoint of
    other settings or data.
    """
    step_class = training_step_class(settings.architecture)
    settings.validate(rows.d_in)
    step_class.validate(settings, rows.d_in)
    saved = load_checkpoint(checkpoint_folder) if checkpoint_folder and resume else None
    if saved is None:
        training, state = _start(step_class, rows, settings, device)
    else:
        training, state = _resume(step_class, rows, settings, device, *saved)
        logger.info("training resumes at step %d of %d", state.step, settings.steps)
    first_step, started = state.step, time.perf_counter()
    earlier_seconds = state.seconds
    resample_steps = set(settings.resample_steps)
    with tqdm(
        total=settings.steps, initial=first_step, desc="train SAE", unit="step", disable=None
    ) as bar:
        while state.step < settings.steps:
            if training.resamples and state.step in resample_steps:
                _resample(training, rows, settings, state)
            x = rows.next(settings.batch_size).to(device, non_blocking=True).mul_(state.scale)
            sums = training.gradients(x, state.step / settings.steps)
            lr = learning_rate(settings, state.step, state.last_resample)
            training.apply(lr)
            state.totals += sums.stacked()
            state.rows_since_log += len(x)
            state.step += 1
            done = state.step == settings.steps
            if state.step % settings.log_every == 0 or done:
                entry = _log(training, settings, state, lr, rows.d_in)
                bar.set_postfix(
                    ev=f"{entry['explained_variance']:.3f}",
                    l0=f"{entry['l0']:.1f}",
                    dead=f"{entry['dead_fraction']:.3f}",
                )
            if checkpoint_folder and (state.step % settings.checkpoint_every == 0 or done):
                state.seconds = earlier_seconds + time.perf_counter() - started
                _save(checkpoint_folder, training, rows, settings, state)
            bar.update()
            if progress is not None:
                progress(state.step, settings.steps)
    seconds = time.perf_counter() - started
    _check_weights(training, state.step)
    return TrainingResult(
        sae=training.build(state.scale),
        log=pl.DataFrame(state.log, schema=LOG_SCHEMA),
        info={
            "steps": state.step,
            "training_tokens": state.step * settings.batch_size,
            "input_scale": state.scale,
            "resampled_features": state.resampled,
            "seconds": earlier_seconds + seconds,
            "tokens_per_second": (state.step - first_step) * settings.batch_size / seconds,
            "resumed_from_step": first_step,
            "settings_fingerprint": settings.fingerprint(),
        },
    )


def sae_row(
    layer: int, settings: TrainingSettings, result: TrainingResult, path: str
) -> pl.DataFrame:
    """Table attention_sae without study: one row, of a trained SAE whose weights are in `path`."""
    row = {
        "layer": layer,
        "architecture": result.sae.architecture,
        "d_in": result.sae.d_in,
        "d_sae": result.sae.d_sae,
        "k": result.sae.k,
        "l1_coefficient": settings.l1_coefficient,
        "training_tokens": result.info["training_tokens"],
        "steps": result.info["steps"],
        "batch_size": settings.batch_size,
        "learning_rate": settings.lr,
        "input_scale": result.info["input_scale"],
        "resampled_features": result.info["resampled_features"],
        "seed": settings.seed,
        "path": path,
        "weights_hash": result.sae.weights_hash(),
    }
    return pl.DataFrame([row], schema=SAE_SCHEMA)


def geometric_median(rows: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Point [d] with the least sum of distances to rows [n, d] (Weiszfeld's algorithm)."""
    median = rows.mean(0)
    for _ in range(iterations):
        weights = 1 / (rows - median).norm(dim=1).clamp_min(1e-12)
        moved = (weights / weights.sum()) @ rows
        change = (moved - median).norm()
        median = moved
        if change <= tolerance * median.norm():
            break
    return median


# ---- private -------------------------------------------------------------------------------------


def _start(
    step_class: type[TrainingStep],
    rows: RowStream,
    settings: TrainingSettings,
    device: str | torch.device,
) -> tuple[TrainingStep, _State]:
    sample = rows.sample(settings.sample_rows, derived_seed(settings.seed, 0)).to(device)
    if not torch.isfinite(sample).all():
        raise SaeError(
            "activation rows contain NaN or infinity; check the model and the cache dtype"
        )
    variance = float((sample - sample.mean(0)).square().sum(1).mean())
    if not variance > 0:
        raise SaeError(
            f"all {len(sample)} sampled activation rows are equal; nothing can be learned"
        )
    scale = math.sqrt(rows.d_in / variance) if settings.normalize_input else 1.0
    sample = sample * scale
    b_dec = sample.mean(0) if settings.b_dec_init == "mean" else geometric_median(sample)
    generator = torch.Generator().manual_seed(derived_seed(settings.seed, 1))
    if settings.decoder_init == "data":
        centred = sample - b_dec
        centred = centred[centred.norm(dim=1) > 0]
        drawn = torch.randperm(max(len(centred), settings.d_sae), generator=generator)
        decoder = centred[(drawn[: settings.d_sae] % len(centred)).to(device)]
    else:
        decoder = torch.randn(settings.d_sae, rows.d_in, generator=generator).to(device)
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    training = step_class(settings, decoder, b_dec)
    state = _State(
        step=0,
        scale=scale,
        last_resample=None,
        resampled=0,
        resampled_since_log=0,
        seconds=0.0,
        rows_since_log=0,
        totals=_no_totals(device),
        log=[],
    )
    return training, state


def _no_totals(device: str | torch.device) -> Tensor:
    dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
    return torch.zeros(6, dtype=dtype, device=device)


def _resume(
    step_class: type[TrainingStep],
    rows: RowStream,
    settings: TrainingSettings,
    device: str | torch.device,
    tensors: dict[str, Tensor],
    info: dict[str, Any],
) -> tuple[TrainingStep, _State]:
    if info["settings"] != settings.fingerprint():
        raise SaeError(
            f"the checkpoint was made with other settings (fingerprint {info['settings']}, now "
            f"{settings.fingerprint()}); remove its folder or pass resume=False to start afresh"
        )
    try:
        rows.load_state_dict(info["stream"])
    except ValueError as error:
        raise SaeError(f"the checkpoint does not fit this data: {error}") from error
    training = step_class(settings, tensors["decoder"].to(device), tensors["b_dec"].to(device))
    training.load_state_tensors(tensors)
    totals = _no_totals(device)
    totals.copy_(tensors["totals"])
    return training, _State(totals=totals, **info["state"])


def _save(
    folder: Path,
    training: TrainingStep,
    rows: RowStream,
    settings: TrainingSettings,
    state: _State,
) -> None:
    _check_weights(training, state.step)
    kept = {name: value for name, value in vars(state).items() if name != "totals"}
    save_checkpoint(
        folder,
        {**training.state_tensors(), "totals": state.totals},
        {"settings": settings.fingerprint(), "stream": rows.state_dict(), "state": kept},
    )


def _resample(
    training: TrainingStep, rows: RowStream, settings: TrainingSettings, state: _State
) -> None:
    seed = derived_seed(settings.seed, 2, state.step)
    device = training.decoder.device
    sample = rows.sample(settings.sample_rows, seed).to(device).mul_(state.scale)
    resampled = training.resample(sample, torch.Generator().manual_seed(seed))
    if resampled:
        state.last_resample = state.step
        state.resampled += resampled
        state.resampled_since_log += resampled
    logger.info("step %d: %d dead features resampled", state.step, resampled)


def _log(
    training: TrainingStep, settings: TrainingSettings, state: _State, lr: float, d_in: int
) -> dict[str, Any]:
    """Append the means since the last entry to the log; SaeError when they are not finite."""
    loss, sparsity, error, residual_variance, total_variance, active = state.totals.tolist()
    n = state.rows_since_log
    if not math.isfinite(loss):
        raise SaeError(
            f"the loss became {loss} between steps {state.step - settings.log_every + 1} and "
            f"{state.step}; lower lr (now {settings.lr}), or set max_gradient_norm, and check the "
            "activations for outliers"
        )
    entry = {
        "step": state.step,
        "tokens": state.step * settings.batch_size,
        "learning_rate": lr,
        "loss": loss / n,
        "mse": error / (n * d_in) / state.scale**2,
        "sparsity_loss": sparsity / n,
        "l0": active / n,
        "explained_variance": 1 - residual_variance / total_variance if total_variance else None,
        "dead_fraction": float(training.dead().double().mean()),
        "resampled_features": state.resampled_since_log,
    }
    state.log.append(entry)
    state.totals.zero_()
    state.rows_since_log = 0
    state.resampled_since_log = 0
    logger.info(
        "step %(step)d: loss %(loss).4g, explained variance %(explained_variance).4f, "
        "L0 %(l0).1f, dead %(dead_fraction).3f",
        entry,
    )
    return entry


def _check_weights(training: TrainingStep, step: int) -> None:
    parameters = training.parameters().values()
    if not all(bool(torch.isfinite(parameter.sum())) for parameter in parameters):
        raise SaeError(
            f"a weight is NaN or infinite after step {step}; lower lr or set max_gradient_norm"
        )
