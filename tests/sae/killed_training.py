"""A training of two architectures in lockstep that a test kills: python killed_training.py
<forward | cache> <folder> <threads>. The test runs the same function to its end and compares.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mechinterp_assets.activations.cache import ActivationReader, write_shards
from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.activations.rows import CachedRows, LayerRows, OneLayer
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import Member, train_together
from mechinterp_assets.sae.trainer import TrainingResult

STEPS, CHECKPOINT_EVERY = 160, 40


def settings(architecture: str) -> SaeSettings:
    """Features die and are revived: what a checkpoint must hold to continue."""
    resampling: dict[str, Any] = {"resample_at": (0.3, 0.6), "resample_warmup_steps": 15}
    own = {"l1_coefficient": 30.0, **resampling} if architecture == "standard" else {"k": 2}
    return SaeSettings(
        architecture=architecture,
        **own,
        d_sae=24,
        training_tokens=STEPS * 64,
        batch_size=64,
        learning_rate=0.02,
        dead_after_tokens=256,
        sample_rows=300,
        log_every=30,
        checkpoint_every=CHECKPOINT_EVERY,
    )


def rows(source: str, model: LanguageModel, folder: Path) -> tuple[LayerRows, int, int]:
    """Rows of about 500 sequences, several buffers a pass, and the layers of the two SAEs."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.d_vocab, (300, 12), generator=generator)
    if source == "forward":
        return ForwardRows(model, ids, [1, 3], seed=5, buffer_rows=900, batch_size=32), 1, 3
    cache = folder / "cache"
    if not cache.exists():
        write_shards(model, ids, {1: cache})
    reader = ActivationReader(cache)
    return OneLayer(CachedRows(reader, seed=5, buffer_rows=900, block_sequences=4), 1), 1, 1


def run(
    source: str,
    model: LanguageModel,
    folder: Path,
    checkpoints: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, TrainingResult]:
    """Train both SAEs to their end."""
    stream, topk_layer, standard_layer = rows(source, model, folder)
    members = {
        "topk": Member(topk_layer, settings("topk")),
        "standard": Member(standard_layer, settings("standard")),
    }
    return train_together(stream, members, checkpoints, progress=progress)


def _slow(done: int, total: int) -> None:
    if done > CHECKPOINT_EVERY + 10:
        time.sleep(0.1)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    place = Path(sys.argv[2])
    organism = LanguageModel.load(ORGANISM_FOLDER)
    run(sys.argv[1], organism, place, place / "checkpoints", _slow)
