"""Independent references for SAE training: each loss for autograd, and a planted dictionary.

Written from the papers' formulas, without the package's own steps, so that the two can disagree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.registry import sae_class
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.traits import AUXK_SETTINGS, RESAMPLING_SETTINGS, traits_of


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


def auxk_loss(
    step: TrainingStep, w: dict[str, Tensor], x: Tensor, pre: Tensor, x_hat: Tensor
) -> Tensor:
    """a mean ||e - e_hat||^2, written as in Gao et al. 2024 (A.2)."""
    settings = step.settings
    dead = step.tokens_since_fired >= settings.dead_after_tokens
    if not (settings.auxk_coefficient and dead.any()):
        return x.new_zeros(())
    auxk = min(settings.auxk or x.shape[1] // 2, int(dead.sum()))
    candidates = torch.where(dead, pre, torch.full_like(pre, -math.inf))
    smallest = candidates.sort(dim=1, descending=True).values[:, auxk - 1 : auxk]
    f_dead = torch.relu(pre) * (candidates >= smallest) * dead
    error = (x - x_hat).detach()
    return settings.auxk_coefficient * ((error - f_dead @ w["decoder"]) ** 2).sum(1).mean()


def topk_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """mean ||x - x_hat||^2 + aux-k, written as in Gao et al. 2024."""
    settings = step.settings
    assert settings.k is not None
    pre = (x - w["b_dec"]) @ w["encoder"].T + w["b_enc"]
    kth = pre.sort(dim=1, descending=True).values[:, settings.k - 1 : settings.k]
    f = torch.relu(pre) * (pre >= kth)
    x_hat = f @ w["decoder"] + w["b_dec"]
    return ((x - x_hat) ** 2).sum(1).mean() + auxk_loss(step, w, x, pre, x_hat)


def batch_topk_activations(pre: Tensor, count: int) -> Tensor:
    """ReLU, then the `count` largest of the whole batch, written with a full sort."""
    f = torch.relu(pre)
    edge = f.flatten().sort(descending=True).values[min(count, f.numel()) - 1]
    return f * (f >= edge)


def batchtopk_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """mean ||x - x_hat||^2 + aux-k with the k n largest of the batch (Bussmann et al. 2024)."""
    return _nested_loss(step, w, x, (step.settings.d_sae,))


def matryoshka_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The sum over prefixes of mean ||x - x_hat||^2, + aux-k (Bussmann et al. 2025)."""
    assert step.settings.group_sizes is not None
    return _nested_loss(step, w, x, step.settings.group_sizes)


def _nested_loss(
    step: TrainingStep, w: dict[str, Tensor], x: Tensor, widths: tuple[int, ...]
) -> Tensor:
    assert step.settings.k is not None
    pre = (x - w["b_dec"]) @ w["encoder"].T + w["b_enc"]
    f = batch_topk_activations(pre, step.settings.k * len(x))
    x_hats = [f[:, :width] @ w["decoder"][:width] + w["b_dec"] for width in widths]
    loss = auxk_loss(step, w, x, pre, x_hats[-1])
    for x_hat in x_hats:
        loss = loss + ((x - x_hat) ** 2).sum(1).mean()
    return loss


class _Heaviside(torch.autograd.Function):
    """H(pre - theta) with the rectangle kernel's pseudo-derivative in theta, none in pre."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return (pre > theta).to(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, theta = ctx.saved_tensors
        kernel = (((pre - theta) / ctx.bandwidth).abs() < 0.5).to(pre)
        return None, (-kernel / ctx.bandwidth * grads[0]).sum(0), None


class _JumpReLU(torch.autograd.Function):
    """pre H(pre - theta): derivative H in pre, -theta/b K in theta."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        kernel = (((pre - theta) / ctx.bandwidth).abs() < 0.5).to(pre)
        to_theta = (-theta / ctx.bandwidth * kernel * grads[0]).sum(0)
        return (pre > theta) * grads[0], to_theta, None


def jumprelu_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """mean ||x - x_hat||^2 + l0 sum H(pre - theta), as in Rajamanoharan et al. 2024b, sec. 3."""
    settings = step.settings
    assert settings.bandwidth is not None
    assert settings.l0_coefficient is not None
    theta = w["log_threshold"].exp()
    pre = (x - w["b_dec"]) @ w["encoder"].T + w["b_enc"]
    f = apply(_JumpReLU, pre, theta, settings.bandwidth)
    x_hat = f @ w["decoder"] + w["b_dec"]
    n_active = apply(_Heaviside, pre, theta, settings.bandwidth).sum(1)
    return ((x - x_hat) ** 2).sum(1).mean() + settings.l0_coefficient * n_active.mean()


def apply(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """function.apply with a type."""
    untyped: Any = function.apply
    result: Tensor = untyped(*arguments)
    return result


def gated_loss(step: TrainingStep, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Reconstruction, L1 of the gate, gate's reconstruction by a frozen decoder
    (Rajamanoharan et al. 2024a, eq. 8); the tied weights written out."""
    l1 = step.settings.l1_coefficient
    assert l1 is not None
    W_mag = w["encoder"] * w["r_mag"].exp()[:, None]
    gate = (x - w["b_dec"]) @ w["encoder"].T + w["b_enc"]
    magnitude = torch.relu((x - w["b_dec"]) @ W_mag.T + w["b_mag"])
    x_hat = ((gate > 0) * magnitude) @ w["decoder"] + w["b_dec"]
    by_gate = torch.relu(gate) @ w["decoder"].detach() + w["b_dec"].detach()
    return (
        ((x - x_hat) ** 2).sum(1) + l1 * torch.relu(gate).sum(1) + ((x - by_gate) ** 2).sum(1)
    ).mean()


LOSSES: dict[str, Loss] = {
    "standard": standard_loss,
    "topk": topk_loss,
    "batchtopk": batchtopk_loss,
    "jumprelu": jumprelu_loss,
    "gated": gated_loss,
    "matryoshka": matryoshka_loss,
}

OWN_SETTINGS: dict[str, dict[str, object]] = {
    "standard": {"l1_coefficient": 0.3},
    "topk": {"k": 3},
    "batchtopk": {"k": 3},
    "jumprelu": {"l0_coefficient": 0.4, "bandwidth": 0.9, "initial_threshold": 0.5},
    "gated": {"l1_coefficient": 0.3},
    "matryoshka": {"k": 3, "group_sizes": (4, 9, 20)},
}


def small_settings(architecture: str, **changes: Any) -> SaeSettings:
    """Settings of a tiny SAE of any architecture."""
    common: dict[str, Any] = {
        "d_sae": 20,
        "training_tokens": 64_000,
        "batch_size": 64,
        "sparsity_warmup": 0.0,
    }
    values = {**common, **OWN_SETTINGS[architecture], **changes}
    return SaeSettings(architecture=architecture, **values)


def with_use(architecture: str, **given: Any) -> dict[str, Any]:
    """Those of the given settings of aux-k and resampling that the architecture has."""
    traits = traits_of(architecture)
    without = (() if traits.auxk else AUXK_SETTINGS) + (
        () if traits.resamples else RESAMPLING_SETTINGS
    )
    return {name: value for name, value in given.items() if name not in without}


def random_sae(
    architecture: str, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, k: int
) -> SparseAutoencoder:
    """A trained SAE of any architecture with these weights; what else it has is drawn at random."""
    generator = torch.Generator().manual_seed(11)

    def draw() -> Tensor:
        return torch.randn(b_enc.shape, generator=generator).to(b_enc) * 0.3

    kind = sae_class(architecture)
    if issubclass(kind, TopKSAE):
        return kind(W_enc, b_enc, W_dec, b_dec, k=k)
    if issubclass(kind, GatedSAE):
        return kind(W_enc, b_enc, draw(), draw(), W_dec, b_dec)
    if issubclass(kind, JumpReLUSAE):
        return kind(W_enc, b_enc, W_dec, b_dec, threshold=draw().abs())
    return kind(W_enc, b_enc, W_dec, b_dec)
