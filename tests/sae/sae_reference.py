"""Independent references for SAE training: each loss for autograd, and a planted dictionary.

Written from the papers' formulas, without the package's own steps, so that the two can disagree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mechinterp_assets.sae.settings import TrainingSettings
from mechinterp_assets.sae.steps import TrainingStep


@dataclass(frozen=True)
class Planted:
    """rows [n, d_in] = codes [n, d_sae] @ dictionary [d_sae, d_in] + mean, unit dictionary rows."""

    rows: Tensor
    dictionary: Tensor
    mean: Tensor


def recovered(decoder: Tensor, dictionary: Tensor) -> float:
    """Mean over planted directions of the largest cosine with a learnt one."""
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    return float((dictionary @ decoder.T).max(1).values.mean())


Loss = Callable[[TrainingStep, dict[str, Tensor], Tensor], Tensor]


def standard_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """mean ||x - x_hat||^2 + l1 sum f, written as in K24 section 2."""
    l1 = step.settings.l1_coefficient
    assert l1 is not None
    f = torch.relu((x - w["b_dec"]) @ w["encoder"].T + w["b_enc"])
    x_hat = f @ w["decoder"] + w["b_dec"]
    return ((x - x_hat) ** 2).sum(1).mean() + l1 * f.sum(1).mean()


def topk_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """mean ||x - x_hat||^2 + a mean ||e - e_hat||^2, written as in Gao et al. 2024 (A.2)."""
    settings = step.settings
    assert settings.k is not None
    pre = (x - w["b_dec"]) @ w["encoder"].T + w["b_enc"]
    kth = pre.sort(dim=1, descending=True).values[:, settings.k - 1 : settings.k]
    f = torch.relu(pre) * (pre >= kth)
    x_hat = f @ w["decoder"] + w["b_dec"]
    loss = ((x - x_hat) ** 2).sum(1).mean()
    dead = step.tokens_since_fired >= settings.dead_after_tokens
    if settings.auxk_coefficient and dead.any():
        auxk = min(settings.auxk or x.shape[1] // 2, int(dead.sum()))
        candidates = torch.where(dead, pre, torch.full_like(pre, -math.inf))
        smallest = candidates.sort(dim=1, descending=True).values[:, auxk - 1 : auxk]
        f_dead = torch.relu(pre) * (candidates >= smallest) * dead
        error = (x - x_hat).detach()
        loss = loss + settings.auxk_coefficient * (
            ((error - f_dead @ w["decoder"]) ** 2).sum(1).mean()
        )
    return loss


LOSSES: dict[str, Loss] = {"standard": standard_loss, "topk": topk_loss}


def small_settings(architecture: str, **changes: object) -> TrainingSettings:
    """Settings of a tiny SAE of either architecture."""
    own = {"l1_coefficient": 0.3} if architecture == "standard" else {"k": 3}
    values = {
        "d_sae": 20,
        "tokens": 64_000,
        "batch_size": 64,
        "sparsity_warmup": 0.0,
        **own,
        **changes,
    }
    return TrainingSettings(architecture, **values)  # type: ignore[arg-type]
