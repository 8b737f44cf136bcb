"""What heads of later layers read at a token when nothing but layer 0's MLP has run.

Belongs here: token embeddings before and after MLP0, and the normalisation before attention, in
processed weights. Does not belong here: scores made of them.
"""

import torch
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import mlp_output

_BLOCK = 8192


@torch.no_grad()
def first_mlp_output(model: LanguageModel, token_ids: Tensor) -> Tensor:
    """MLP0(LN2(W_E)) of tokens [token] -> [token, d_model]: no position, no attention.

    Processed weights. Published successor-head code sometimes leaves out LN2; the model has it.
    """
    embeddings = model.weights.W_E[token_ids.to(model.device)]
    return torch.cat(
        [mlp_output(model.processed, 0, part) for part in torch.split(embeddings, _BLOCK)]
    )


def effective_embedding(model: LanguageModel, token_ids: Tensor) -> Tensor:
    """W_EE = W_E + MLP0(LN2(W_E)) of tokens [token] -> [token, d_model].

    McDougall et al. 2023 (arXiv 2310.04625), section 3: the tied embedding of GPT-2 small says
    little before its first MLP.
    """
    return model.weights.W_E[token_ids.to(model.device)] + first_mlp_output(model, token_ids)


def normalised(model: LanguageModel, residual: Tensor) -> Tensor:
    """What a head reads of `residual` [..., d_model]: norm without its weights (folded)."""
    if model.config.normalization == "LN":
        residual = residual - residual.mean(dim=-1, keepdim=True)
    return residual / (residual.square().mean(dim=-1, keepdim=True) + model.config.eps).sqrt()
