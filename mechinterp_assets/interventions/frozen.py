"""What a change of attention outputs does on direct paths: all heads frozen, MLPs as asked.

Belongs here: the residual stream with chosen heads' outputs changed and every other head's output
kept from an unedited run, and receivers' inputs read off it. Does not belong here: which outputs
change (path_patching.py, sae_paths.py).

Wang et al. 2022 (appendix B): the change reaches a receiver through the residual stream alone. With
MLPs recomputed (via_mlp) they react to it, with frozen ones it is passed on unchanged. LayerNorms
are recomputed in both.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.interventions.runs import (
    CleanRun,
    NamedHook,
    bridge_of,
    hook_name,
    weights_of,
)
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.partial_forward import run_from


def frozen_residual(
    model: LanguageModel, run: CleanRun, changes: Mapping[int, Tensor], *, via_mlp: bool
) -> dict[int, Tensor]:
    """Residual stream before every layer behind the first change, and behind the last one.

    changes: layer -> what is added to its attention output [row, position, d_model]. Returns layer
    -> resid_pre [row, position, d_model]; n_layers stands for the end of the last layer.
    """
    n_layers, first = model.config.n_layers, min(changes)
    if not via_mlp:
        total = torch.zeros_like(changes[first])
        residual = {}
        for layer in range(first, n_layers):
            if layer in changes:
                total = total + changes[layer]
            residual[layer + 1] = run.at("resid_post", layer) + total
        return residual

    seen: dict[int, Tensor] = {}

    def freeze(layer: int) -> NamedHook:
        own = run.at("attn_out", layer)
        own = own + changes[layer] if layer in changes else own

        def hook(attn_out: Tensor, hook: Any) -> Tensor:
            attn_out.copy_(own)
            return attn_out

        return hook_name("attn_out", layer), hook

    def read(layer: int) -> NamedHook:
        def hook(value: Tensor, hook: Any) -> None:
            seen[layer + 1] = value.clone()

        return hook_name("resid_post", layer), hook

    layers = range(first, n_layers)
    hooks = [freeze(layer) for layer in layers] + [read(layer) for layer in layers]
    run_from(bridge_of(model, run.view), run.resid_pre[first].clone(), first, hooks)
    return seen


def receiver_inputs(
    model: LanguageModel, run: CleanRun, layer: int, residual: Tensor, receiver: str
) -> Tensor:
    """Queries, keys or values (receiver q, k, v) of a layer that reads `residual`.

    residual [row, position, d_model] -> [row, position, head, d_head], before any rotation. Keys
    and values of grouped-query models are repeated over their query group.
    """
    weights = weights_of(model, run.view)
    matrix, bias = {
        "q": (weights.W_Q, weights.b_Q),
        "k": (weights.W_K, weights.b_K),
        "v": (weights.W_V, weights.b_V),
    }[receiver]
    normalised = bridge_of(model, run.view).blocks[layer].ln1(residual)
    projected: Tensor = torch.einsum("rpd,hdk->rphk", normalised, matrix[layer])
    return projected + bias[layer]
