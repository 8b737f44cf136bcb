"""What runs of IOI prompts with something done to heads share: answers, their logits, z.

Belongs here: what scores relative to the movers need of a run. Does not belong here: what is done
to the heads (files of `scores/`).
"""

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64


def answer_ids(group: pl.DataFrame, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of IO and of S [prompt]."""
    io, s = (torch.tensor(group[c].to_list()) for c in ("io_token_id", "s_token_id"))
    return io.to(device), s.to(device)


def logit_difference(logits: Tensor, io: Tensor, s: Tensor) -> Tensor:
    """logit(IO) - logit(S) of logits [row, d_vocab] -> [row] float64 on the CPU."""
    picked = logits.gather(1, torch.stack([io, s], dim=1))
    return float64(picked[:, 0] - picked[:, 1]).cpu()


def z_names(model: LanguageModel) -> list[str]:
    """Hook names of z of all layers."""
    return [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)]
