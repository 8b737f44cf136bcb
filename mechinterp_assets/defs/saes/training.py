"""What training SAEs takes from a study and from the machine, for single SAEs and for sweeps.

Belongs here: rows from forward passes, the refusal of what does not fit
memory. Does not belong here: assets, and training itself (sae/train.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechinterp_assets.orchestration.artefacts import token_ids
from mechinterp_assets.orchestration.run import Run

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Sequence

    from mechinterp_assets.activations.forward_rows import ForwardRows
    from mechinterp_assets.sae.settings import SaeSettings


def forward_rows(run: Run, layers: Sequence[int], seed: int) -> ForwardRows:
    """Rows of some layers from forward passes over the study's train split."""
    from mechinterp_assets.activations.forward_rows import BUFFER_DTYPES, ForwardRows
    from mechinterp_assets.activations.norm_limits import norm_limits

    sae, activations = run.study.sae, run.study.activations
    ids = token_ids(run, "train")
    limits = norm_limits(run.model, ids, layers, activations.exclude_norm_above)
    return ForwardRows(
        run.model,
        ids,
        layers,
        seed=seed,
        buffer_rows=sae.buffer_rows,
        batch_size=activations.batch_size,
        dtype=BUFFER_DTYPES[sae.buffer_dtype],
        norm_limits=limits,
    )


def require_training_memory(
    run: Run, what: str, members: Sequence[SaeSettings], d_in: int, layers: int
) -> None:
    """Raise ComputeError, before work starts, where SAEs trained together do not fit the device.

    layers: how many layers' rows are buffered.
    """
    import torch

    from mechinterp_assets.activations.forward_rows import BUFFER_DTYPES, buffer_bytes
    from mechinterp_assets.sae.memory import lockstep_bytes

    sae = run.study.sae
    dtype = BUFFER_DTYPES[sae.buffer_dtype] if sae.source == "forward" else torch.float32
    settings = "sae.d_sae, sae.batch_size or sae.buffer_rows"
    run.compute.require_memory(
        lockstep_bytes(members, d_in) + buffer_bytes(layers, d_in, sae.buffer_rows, dtype),
        f"{run.study.file}: sae.d_sae: training {what} with d_sae={max(m.d_sae for m in members)}, "
        f"batch_size={sae.batch_size} and buffer_rows={sae.buffer_rows}",
        settings + (", or train fewer layers in one run" if layers > 1 else ""),
    )
