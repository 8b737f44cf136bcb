"""Training with sae-lens, for benchmarks/frontier.py and shared_forward.py. Needs `make peers`.

The peer gets what it needs to do well: rows scaled as ours are (so one coefficient means one
objective), the same shares of warm-up and decay, dead features counted over as many tokens, and
JumpReLU's start: threshold, bandwidth and norms (from its own 0.01 and 0.05 thresholds do not get
anywhere in runs this short, so that L0 hardly depends on the coefficient). Everything else is its
default: Adam's betas, gradient clipping at norm 1, the decoder's initial norm, the weight of the
aux-k loss.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from mechinterp_assets.activations.rows import RowStream
from mechinterp_assets.sae.architectures.jumprelu import BANDWIDTH, INITIAL_THRESHOLD
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.io import load_sae
from mechinterp_assets.sae.settings import SaeSettings

CLASSES = {
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig),
}


def train_with_sae_lens(
    rows: RowStream, settings: SaeSettings, scale: float, folder: Path
) -> SparseAutoencoder:
    """An SAE trained by sae-lens as `settings` say, written to `folder` by it and read by us.

    rows: raw; each batch is multiplied by `scale`, which is folded into the weights at the end.
    """
    torch.manual_seed(settings.seed)
    kind, _ = CLASSES[settings.architecture]
    sae = kind(sae_config(settings, rows.d_in))
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=settings.steps * settings.batch_size,
            train_batch_size_samples=settings.batch_size,
            **schedule(settings),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=_batches(rows, settings.batch_size, scale),
    )
    trained = trainer.fit()
    trained.fold_activation_norm_scaling_factor(scale)
    trained.save_inference_model(folder)
    return load_sae(folder)


def sae_config(settings: SaeSettings, d_in: int, **own: Any) -> TrainingSAEConfig:
    """sae-lens's configuration of the SAE that `settings` describe; `own` are keys of its own."""
    _, config_kind = CLASSES[settings.architecture]
    return config_kind(d_in=d_in, d_sae=settings.d_sae, **_sparsity(settings), **own)


def schedule(settings: SaeSettings) -> dict[str, Any]:
    """Learning rate and window of dead features, as keywords of sae-lens's trainers and runners."""
    warmup = round(settings.lr_warmup * settings.steps)
    return {
        "lr": settings.learning_rate,
        "lr_end": settings.learning_rate / 10,
        "lr_warm_up_steps": warmup if warmup > 1 else 0,
        "lr_decay_steps": round(settings.lr_decay * settings.steps),
        "dead_feature_window": max(1, settings.dead_after_tokens // settings.batch_size),
    }


# ---- private -------------------------------------------------------------------------------------


def _batches(rows: RowStream, size: int, scale: float) -> Iterator[Tensor]:
    while True:
        yield rows.next(size).mul_(scale)


def _sparsity(settings: SaeSettings) -> dict[str, object]:
    warmup = round(settings.sparsity_warmup * settings.steps)
    if settings.architecture in ("standard", "gated"):
        return {"l1_coefficient": settings.l1_coefficient, "l1_warm_up_steps": warmup}
    if settings.architecture == "jumprelu":
        return {
            "l0_coefficient": settings.l0_coefficient,
            "l0_warm_up_steps": warmup,
            "jumprelu_init_threshold": INITIAL_THRESHOLD,
            "jumprelu_bandwidth": BANDWIDTH,
            "decoder_init_norm": 1.0,  # and the encoder's: below it nothing reaches the threshold
        }
    if settings.architecture == "matryoshka":
        assert settings.group_sizes is not None
        return {"k": settings.k, "matryoshka_widths": list(settings.group_sizes)}
    return {"k": settings.k}
