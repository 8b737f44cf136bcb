"""What a change of attention outputs does on direct paths: all heads frozen, MLPs as asked.

Belongs here: the residual stream with chosen heads' outputs changed and every other head's output
kept from an unedited run, and receivers' inputs read off it. Does not belong here: which outputs
change (kinds/path_patching.py, kinds/sae_feature_path.py).

Wang et al. 2022 (appendix B): the change reaches a receiver through the residual stream alone. With
MLPs recomputed (via_mlp) they react to it, with frozen ones it is passed on unchanged. LayerNorms
are recomputed in both. With all heads frozen positions do not see one another, so that only those
at which receivers read are computed, by MLPs alone: no attention, no forward pass.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mechinterp_assets.interventions.runs import CleanRun, bridge_of, weights_of
from mechinterp_assets.interventions.sites import Places, at_places
from mechinterp_assets.model.bridge import AnalysisBridge
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import mlp_output

MLP_TOLERANCE = 1e-3  # relative
LOGIT_TOLERANCE = 1e-3


def frozen_residual(
    model: LanguageModel,
    run: CleanRun,
    changes: Mapping[int, Tensor],
    places: Places,
    *,
    via_mlp: bool,
) -> dict[int, Tensor]:
    """Residual stream at places, before every layer behind the first change and behind the last.

    changes: layer -> what is added to its attention output [row, position, d_model]. Returns layer
    -> resid_pre [place, d_model]; n_layers stands for the end of the last layer. via_mlp is for
    models without an `mlp_gap`.
    """
    n_layers, first = model.config.n_layers, min(changes)
    moved = torch.zeros_like(at_places(changes[first], places))
    residual = {}
    for layer in range(first, n_layers):
        if layer in changes:
            moved = moved + at_places(changes[layer], places)
        before = at_places(run.resid_mid[layer], places)
        after = at_places(run.at("resid_post", layer), places)
        if via_mlp:
            moved = before + moved + _mlp(model, run, layer, before + moved) - after
        residual[layer + 1] = after + moved
    return residual


def receiver_inputs(
    model: LanguageModel, run: CleanRun, layer: int, residual: Tensor, receiver: str
) -> Tensor:
    """Queries, keys or values (receiver q, k, v) of a layer that reads `residual`.

    residual [place, d_model] -> [place, head, d_head], before any rotation. Keys and values of
    grouped-query models are repeated over their query group.
    """
    weights = weights_of(model, run.view)
    matrix, bias = {
        "q": (weights.W_Q, weights.b_Q),
        "k": (weights.W_K, weights.b_K),
        "v": (weights.W_V, weights.b_V),
    }[receiver]
    bridge = bridge_of(model, run.view)
    normalised = bridge.through(bridge.blocks[layer].ln1, residual[None])[0]
    projected: Tensor = torch.einsum("pd,hdk->phk", normalised, matrix[layer])
    return projected + bias[layer]


def logits_at_end(bridge: AnalysisBridge, last: Tensor) -> Tensor:
    """Logits at END [row, d_vocab] by final norm and unembedding alone.

    last [row, position, d_model]: the residual stream behind the last layer. True of models without
    an `unembedding_gap`.
    """
    return bridge.through(bridge.unembed, bridge.through(bridge.ln_final, last[:, -1:]))[:, -1]


def _mlp(model: LanguageModel, run: CleanRun, layer: int, residual: Tensor) -> Tensor:
    return mlp_output(bridge_of(model, run.view), layer, residual)


@torch.no_grad()
def mlp_gap(model: LanguageModel, run: CleanRun) -> str | None:
    """Why MLPs cannot be recomputed with heads frozen, None where they can.

    Layer by layer, on one unedited run: what the MLP makes of the stream behind attention is what
    it adds.
    """
    for layer in range(model.config.n_layers):
        before = run.resid_mid[layer].flatten(0, 1)
        after = run.at("resid_post", layer).flatten(0, 1)
        expected = after - before
        error = (_mlp(model, run, layer, before) - expected).norm()
        # The stream is rounded when the MLP is added, which the difference of two streams inherits.
        rounding = torch.finfo(model.dtype).eps * after.norm()
        if not error <= MLP_TOLERANCE * expected.norm() + rounding:
            return (
                f"the MLP of layer {layer} of {model.source} does not read the residual stream "
                f"behind attention alone (error {float(error):.2g} of {float(expected.norm()):.2g})"
            )
    return None


@torch.no_grad()
def unembedding_gap(model: LanguageModel, run: CleanRun) -> str | None:
    """Why paths to the logits cannot be patched, None where they can."""
    logits = logits_at_end(bridge_of(model, run.view), run.last)
    same = LOGIT_TOLERANCE + torch.finfo(model.dtype).eps
    if torch.allclose(logits, run.logits, rtol=same, atol=same):
        return None
    return f"the logits of {model.source} are not its final norm and unembedding alone"
