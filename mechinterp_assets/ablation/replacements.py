"""How an activation moves towards what replaces it.

Belongs here: replacements that are computed from a prompt's own activations, and the strength of
an ablation. Does not belong here: means over other prompts (references.py), where it is edited.
"""

import torch
from torch import Tensor


def uniform_attention(v: Tensor, z: Tensor) -> Tensor:
    """z if every head attended equally to all positions up to its own, in the shape of z.

    v [row, position, group, d_head], z [row, position, head, d_head]: the mean of v over positions
    up to each; groups of query heads share v.
    """
    v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
    counts = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
    return v.cumsum(dim=1) / counts[:, None, None]


def change(x: Tensor, target: Tensor, alpha: float) -> Tensor:
    """What is added to x so that it goes the share `alpha` of the way to `target`."""
    return alpha * (target - x)
