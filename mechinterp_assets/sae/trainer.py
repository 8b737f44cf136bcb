"""One SAE in training, one batch at a time.

Belongs here: how an SAE starts, its learning rate, when features are resampled, its log, and what a
checkpoint of it holds. Does not belong here: losses and gradients (a file per architecture), where
rows come from, the loop and its files (train.py).

A step does not wait for the device: sums are kept there and read when a log entry is due.

A few rows of many times the usual norm must not decide what is learned. The input scale and the
start come from a sample without its thousandth of largest norm (activations/outliers.py), dead
features are resampled from such a sample, and a batch's rows that lie farther from the mean than
settings.max_row_norm allows are drawn in to that distance.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.outliers import (
    LARGE_SHARE,
    OUTLIER_SHARE,
    sum_of_squares_about_mean,
    typical_rows,
)
from mechinterp_assets.activations.rows import derived_seed
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.bfloat16_speed import bfloat16_speed
from mechinterp_assets.sae.checkpoints import State
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.settings import EXTERNAL, SaeSettings
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.traits import traits_of

logger = logging.getLogger(__name__)

LOG_SCHEMA = {
    "step": pl.Int64,
    "training_tokens": pl.Int64,
    "step_learning_rate": pl.Float64,
    "training_loss": pl.Float64,
    "mse": pl.Float64,
    "sparsity_loss": pl.Float64,
    "l0": pl.Float64,
    "batch_explained_variance": pl.Float64,
    "recent_dead_fraction": pl.Float64,
    "resampled_features": pl.Int64,
    "clipped_rows": pl.Int64,
}

Sample = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class TrainingResult:
    """A trained SAE for unscaled inputs, the table sae_training_log without study and layer, and
    numbers of the run: steps, training_tokens, input_scale, outlier_variance_share (of the sample
    that the scale comes from), resampled_features, seconds, tokens_per_second (of this process),
    resumed_from_step, settings_fingerprint. Seconds are those of the whole run: SAEs trained in
    lockstep share them.
    """

    sae: SparseAutoencoder
    log: pl.DataFrame
    info: dict[str, int | float | str]


@dataclass
class _Progress:
    """What changes from step to step, besides tensors.

    spread: root mean square of ||x - mean x|| of typical scaled rows; outlier_share: share of the
    sample's variance that its other rows carry.
    """

    step: int
    scale: float
    spread: float
    outlier_share: float
    last_resample: int | None
    resampled: int
    resampled_since_log: int
    seconds: float
    logged_at: int
    log: list[dict[str, Any]]


class Trainer:
    """One SAE in training. `step` takes the batches; `finish` gives the SAE.

    d_in: width of the rows. sample(n, seed) gives n random rows [n, d_in], for initialisation and
    resampling. label: what error messages call this SAE. state: what `state` gave, to continue
    from; the rest is then bit for bit what it would have been (same device, threads, versions).
    Raises SaeError for impossible settings, rows that are not finite or do not vary, or a state of
    other settings.
    """

    def __init__(
        self,
        settings: SaeSettings,
        d_in: int,
        sample: Sample,
        *,
        device: str | torch.device = "cpu",
        label: str = "the SAE",
        state: State | None = None,
    ) -> None:
        settings = settings.on_device(torch.device(device).type)
        check_trainable(settings, d_in, label)
        self.settings, self.label = settings, label
        if settings.compute_dtype == "bfloat16" and torch.device(device).type == "cpu":
            speed = bfloat16_speed()
            if speed < 1:
                logger.warning(_SLOW_BFLOAT16, label, speed)
        self._d_in, self._sample = d_in, sample
        self._device = torch.device(device)
        self._totals = _no_totals(self._device)
        if state is None:
            self._training, self._centre, self._progress = self._start()
        else:
            self._training, self._centre, self._progress = self._resume(*state)
        resamples = traits_of(settings.architecture).resamples
        self._resample_steps = set(settings.resample_steps if resamples else ())
        self._first_step = self._progress.step
        self._earlier_seconds, self._started = self._progress.seconds, time.perf_counter()

    @property
    def steps_done(self) -> int:
        """Steps taken, earlier processes included."""
        return self._progress.step

    @property
    def last_entry(self) -> dict[str, Any] | None:
        """The latest entry of the log."""
        return self._progress.log[-1] if self._progress.log else None

    def step(self, x: Tensor) -> None:
        """Learn from rows x [batch_size, d_in], as they are (unscaled).

        Raises SaeError when a log entry is due and the rows or the loss since the entry before were
        not finite.
        """
        settings, progress, training = self.settings, self._progress, self._training
        if progress.step in self._resample_steps:
            self._resample()
        # a new tensor: SAEs in lockstep share x
        x = x.to(self._device, torch.float32, non_blocking=True) * progress.scale
        n_clipped = self._draw_in_(x)
        sums = training.gradients(x, progress.step / settings.steps)
        lr = learning_rate(settings, progress.step, progress.last_resample)
        training.apply(lr)
        self._totals += torch.cat([sums.stacked(), n_clipped[None]]).to(self._totals)
        progress.step += 1
        if progress.step % settings.log_every == 0 or progress.step == settings.steps:
            self._log(lr)

    def state(self) -> State:
        """Tensors and numbers of a checkpoint. Raises SaeError if a weight is not finite."""
        self._check_weights()
        self._progress.seconds = self._seconds()
        info = {"settings": self.settings.fingerprint(), "progress": vars(self._progress)}
        tensors = {"totals": self._totals, "centre": self._centre}
        return {**self._training.state_tensors(), **tensors}, info

    def finish(self) -> TrainingResult:
        """The trained SAE with its log. Raises SaeError if a weight is not finite."""
        self._check_weights()
        progress, batch = self._progress, self.settings.batch_size
        here = time.perf_counter() - self._started
        return TrainingResult(
            sae=self._training.build(progress.scale),
            log=pl.DataFrame(progress.log, schema=LOG_SCHEMA),
            info={
                "steps": progress.step,
                "training_tokens": progress.step * batch,
                "input_scale": progress.scale,
                "outlier_variance_share": progress.outlier_share,
                "resampled_features": progress.resampled,
                "seconds": self._seconds(),
                "tokens_per_second": (progress.step - self._first_step) * batch / here,
                "resumed_from_step": self._first_step,
                "settings_fingerprint": self.settings.fingerprint(),
            },
        )

    # ---- private ---------------------------------------------------------------------------------

    def _start(self) -> tuple[TrainingStep, Tensor, _Progress]:
        settings, device = self.settings, self._device
        sample = self._sample(settings.sample_rows, derived_seed(settings.seed, 0)).to(device)
        if not torch.isfinite(sample).all():
            raise SaeError(
                f"{self.label}, step 0: activation rows contain NaN or infinity; check the model's "
                "weights and the dtype that activations are stored in"
            )
        n_sampled, total = len(sample), sum_of_squares_about_mean(sample)
        sample = typical_rows(sample)
        variance = sum_of_squares_about_mean(sample) / len(sample)
        if not variance > 0:
            raise SaeError(
                f"{self.label}: all {n_sampled} sampled activation rows are equal, but for at most "
                f"{n_sampled - len(sample)} of large norm; nothing can be learned"
            )
        outlier_share = max(0.0, 1 - variance * len(sample) / total)
        if outlier_share > LARGE_SHARE:
            logger.warning(_OUTLIERS_RULE, self.label, 100 * OUTLIER_SHARE, 100 * outlier_share)
        scale = math.sqrt(self._d_in / variance) if settings.normalize_input else 1.0
        sample = sample * scale
        centre = sample.mean(0)
        b_dec = centre if settings.b_dec_init == "mean" else geometric_median(sample)
        generator = torch.Generator().manual_seed(derived_seed(settings.seed, 1))
        if settings.decoder_init == "data":
            centred = sample - b_dec
            centred = centred[centred.norm(dim=1) > 0]
            drawn = torch.randperm(max(len(centred), settings.d_sae), generator=generator)
            decoder = centred[(drawn[: settings.d_sae] % len(centred)).to(device)]
        else:
            decoder = torch.randn(settings.d_sae, self._d_in, generator=generator).to(device)
        decoder = decoder / decoder.norm(dim=1, keepdim=True)
        training = training_step_class(settings.architecture)(settings, decoder, b_dec)
        progress = _Progress(
            step=0,
            scale=scale,
            spread=math.sqrt(variance) * scale,
            outlier_share=outlier_share,
            last_resample=None,
            resampled=0,
            resampled_since_log=0,
            seconds=0.0,
            logged_at=0,
            log=[],
        )
        return training, centre, progress

    def _resume(
        self, tensors: dict[str, Tensor], info: dict[str, Any]
    ) -> tuple[TrainingStep, Tensor, _Progress]:
        settings, device = self.settings, self._device
        if info["settings"] != settings.fingerprint():
            raise SaeError(
                f"{self.label}: the checkpoint was made with other settings (fingerprint "
                f"{info['settings']}, now {settings.fingerprint()}); remove its folder or pass "
                "resume=False to start afresh"
            )
        step_class = training_step_class(settings.architecture)
        training = step_class(settings, tensors["decoder"].to(device), tensors["b_dec"].to(device))
        training.load_state_tensors(tensors)
        self._totals.copy_(tensors["totals"])
        return training, tensors["centre"].to(device), _Progress(**info["progress"])

    def _draw_in_(self, x: Tensor) -> Tensor:
        """Move rows of x [n, d_in] (scaled) that lie too far from the mean towards it, in place.

        Returns their number, 0-dim. The others stay as they are, bit for bit.
        """
        limit, centre = self.settings.max_row_norm, self._centre
        if limit is None:
            return x.new_zeros(())
        squares = torch.linalg.vecdot(x, x) - 2 * (x @ centre) + torch.dot(centre, centre)
        distance = squares.clamp_min(0).sqrt()
        factor: Tensor = (limit * self._progress.spread / distance).clamp_max(1)
        x.mul_(factor[:, None]).addr_(1 - factor, centre)
        return (factor < 1).sum().to(x.dtype)

    def _resample(self) -> None:
        settings, progress = self.settings, self._progress
        seed = derived_seed(settings.seed, 2, progress.step)
        sample = self._sample(settings.sample_rows, seed).to(self._device) * progress.scale
        sample = typical_rows(sample)
        self._draw_in_(sample)
        resampled = self._training.resample(sample, torch.Generator().manual_seed(seed))
        if resampled:
            progress.last_resample = progress.step
            progress.resampled += resampled
            progress.resampled_since_log += resampled
        logger.info("%s, step %d: %d dead features resampled", self.label, progress.step, resampled)

    def _log(self, lr: float) -> None:
        """Append the means since the last entry to the log; SaeError when they are not finite."""
        progress, settings = self._progress, self.settings
        dead = self._training.dead().sum()
        *sums, n_dead = torch.cat([self._totals, dead.to(self._totals)[None]]).tolist()
        loss, sparsity, error, residual_variance, total_variance, active, clipped = sums
        between = (
            f"{self.label}: between steps {progress.logged_at + 1} and {progress.step} the "
            f"%s became %s; "
        )
        if not math.isfinite(total_variance):
            raise SaeError(
                between % ("activation rows", "NaN or infinite")
                + "check the model's weights and the dtype that activations are stored in"
            )
        if not math.isfinite(loss):
            raise SaeError(
                between
                % ("loss", loss)
                + f"lower learning_rate (now {settings.learning_rate}), or set max_gradient_norm, "
                "and check the activations for outliers"
            )
        n = (progress.step - progress.logged_at) * settings.batch_size
        varies = total_variance != 0
        entry = {
            "step": progress.step,
            "training_tokens": progress.step * settings.batch_size,
            "step_learning_rate": lr,
            "training_loss": loss / n,
            "mse": error / (n * self._d_in) / progress.scale**2,
            "sparsity_loss": sparsity / n,
            "l0": active / n,
            "batch_explained_variance": 1 - residual_variance / total_variance if varies else None,
            "recent_dead_fraction": n_dead / settings.d_sae,
            "resampled_features": progress.resampled_since_log,
            "clipped_rows": round(clipped),
        }
        progress.log.append(entry)
        self._totals.zero_()
        progress.logged_at = progress.step
        progress.resampled_since_log = 0
        logger.info("%s, %s", self.label, _in_words(entry))

    def _check_weights(self) -> None:
        sums = [parameter.sum() for parameter in self._training.parameters().values()]
        if not bool(torch.isfinite(torch.stack(sums)).all()):
            raise SaeError(
                f"{self.label}: a weight is NaN or infinite after step {self.steps_done}; lower "
                f"learning_rate (now {self.settings.learning_rate}) or set max_gradient_norm"
            )

    def _seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._started


_OUTLIERS_RULE = (
    "%s: the %.1f%% of sampled rows with the largest norm carry %.0f%% of their variance. The "
    "input scale is that of the others, and rows beyond sae.max_row_norm are drawn in; read "
    "typical_explained_variance of sae_evaluation, and see which tokens they are"
)

_SLOW_BFLOAT16 = (
    "%s: sae.compute_dtype is bfloat16, whose products run at %.2f of float32's speed on this "
    "processor; set it to float32 or auto"
)


def check_trainable(settings: SaeSettings, d_in: int, label: str = "the SAE") -> None:
    """Raise SaeError, naming `label`, for an SAE that is not trained, or rows without width."""
    if settings.architecture == EXTERNAL:
        raise SaeError(f"{label}: external SAEs are not trained; name an architecture")
    if d_in <= 0:
        raise SaeError(f"{label}: rows have width {d_in}")


def learning_rate(settings: SaeSettings, step: int, last_resample: int | None) -> float:
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
    return settings.learning_rate * factor


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


def _no_totals(device: torch.device) -> Tensor:
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(7, dtype=dtype, device=device)


def _in_words(entry: dict[str, Any]) -> str:
    variance = entry["batch_explained_variance"]
    shown = "undefined" if variance is None else f"{variance:.4f}"
    return (
        f"step {entry['step']}: loss {entry['training_loss']:.4g}, explained variance {shown}, "
        f"L0 {entry['l0']:.1f}, dead {entry['recent_dead_fraction']:.3f}"
    )
