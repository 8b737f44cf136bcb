"""Training steps and folders against sae-lens: the same weights, batch and dead features.

Both sides run in float64, ours with derived gradients, theirs with autograd. Where the definitions
differ, the difference is accounted for:
- their penalties weigh a feature by its decoder row's norm. Our rows have unit norm, where that
  changes only the gradient along the row, which the projection removes: decoder gradients are
  compared after it.
- their aux-k keeps negative pre-activations and shrinks the loss when fewer than d_in / 2 features
  are dead; ours passes them through ReLU, as TopK itself does, and has one coefficient. Compared
  where the chosen pre-activations are positive and enough features are dead.
- their JumpReLU trains the threshold itself, ours its logarithm: d/dlog theta = theta d/dtheta.
- their gated auxiliary reconstruction passes gradient to the decoder, though Rajamanoharan et al.
  2024a (eq. 8) freeze a copy of it, as we do: their extra gradient is added here.
- their BatchTopK threshold is a moving average that starts at 0 (and is too low in short runs),
  ours the same average divided by the sum of its weights.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor

from mechinterp_assets.sae.architectures.batchtopk import BatchTopKStep
from mechinterp_assets.sae.io import SaeMetadata, load_sae, save_sae
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.steps import TrainingStep, project_gradient

HEADS, D_HEAD, D_SAE, N = 3, 4, 40, 64
D_IN = HEADS * D_HEAD
COMMON: dict[str, Any] = {
    "d_sae": D_SAE,
    "training_tokens": 10**6,
    "batch_size": N,
    "sparsity_warmup": 0.0,
}
OURS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 0.7},
    "topk": {"k": 4, "auxk_coefficient": 0.3},
    "batchtopk": {"k": 4, "auxk_coefficient": 0.3},
    "matryoshka": {"k": 4, "auxk_coefficient": 0.3, "group_sizes": (5, 18, D_SAE)},
    "jumprelu": {"l0_coefficient": 0.7, "bandwidth": 0.8, "initial_threshold": 0.5},
    "gated": {"l1_coefficient": 0.7},
}
THEIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, {"l1_coefficient": 0.7}),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 4, "aux_loss_coefficient": 0.3}),
    "batchtopk": (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        {"k": 4, "aux_loss_coefficient": 0.3},
    ),
    "matryoshka": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": 4, "aux_loss_coefficient": 0.3, "matryoshka_widths": [5, 18, D_SAE]},
    ),
    "jumprelu": (
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        {"l0_coefficient": 0.7, "jumprelu_bandwidth": 0.8},
    ),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig, {"l1_coefficient": 0.7}),
}
TOPK_FAMILY = ("topk", "batchtopk", "matryoshka")


def _step(architecture: str, dtype: torch.dtype = torch.float64) -> TrainingStep:
    """A step at a generic point: no two parameters are tied, no bias is zero."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    settings = SaeSettings(architecture=architecture, **COMMON, **OURS[architecture])
    decoder = draw(D_SAE, D_IN)
    step = training_step_class(architecture)(
        settings, decoder / decoder.norm(dim=1, keepdim=True), draw(D_IN)
    )
    with torch.no_grad():
        step.encoder.copy_(draw(D_SAE, D_IN) * 0.5)
        step.b_enc.copy_(draw(D_SAE) * 0.3)
        for parameter in step.extra.values():
            parameter.add_(draw(D_SAE) * 0.3)
    return step


def _rows(n: int = N, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D_IN, generator=generator, dtype=torch.float64) * 2


def _peer(step: TrainingStep) -> Any:
    """sae-lens's training SAE with the step's weights."""
    architecture = step.settings.architecture
    kind, config, own = THEIRS[architecture]
    peer = kind(config(d_in=D_IN, d_sae=D_SAE, dtype="float64", decoder_init_norm=None, **own))
    weights = {
        "W_enc": step.encoder.T,
        "W_dec": step.decoder,
        "b_dec": step.b_dec,
        "b_gate" if architecture == "gated" else "b_enc": step.b_enc,
    }
    if architecture == "jumprelu":
        weights["threshold"] = step.extra["log_threshold"].exp()
    elif architecture == "gated":
        weights |= step.extra
    with torch.no_grad():
        for name, value in weights.items():
            getattr(peer, name).copy_(value)
    if architecture == "jumprelu":  # theirs is float32: round ours to it
        with torch.no_grad():
            step.extra["log_threshold"].copy_(peer.threshold.double().log())
    return peer


def _their_step(peer: Any, x: Tensor, dead: Tensor | None = None) -> Tensor:
    coefficients = {name: c.value for name, c in peer.get_coefficients().items()}
    peer.zero_grad()
    output = peer.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=dead,
            n_training_steps=0,
            is_logging_step=False,
        )
    )
    output.loss.backward()
    return output.loss.detach()


def _assert_same_gradients(step: TrainingStep, peer: Any, rtol: float = 1e-9) -> None:
    project_gradient(step.decoder.detach(), step.decoder.grad)
    project_gradient(step.decoder.detach(), peer.W_dec.grad)
    pairs = {
        "encoder": peer.W_enc.grad.T,
        "b_enc": (peer.b_gate if step.settings.architecture == "gated" else peer.b_enc).grad,
        "decoder": peer.W_dec.grad,
        "b_dec": peer.b_dec.grad,
    }
    if "log_threshold" in step.extra:
        theta = step.extra["log_threshold"].detach().exp()
        pairs["log_threshold"] = theta * peer.threshold.grad.double()
    for name in ("r_mag", "b_mag"):
        if name in step.extra:
            pairs[name] = getattr(peer, name).grad
    assert set(pairs) == set(step.parameters())
    for name, theirs in pairs.items():
        # thresholds and their gradients are float32 there
        tolerance = max(rtol, 1e-6) if name == "log_threshold" else rtol
        torch.testing.assert_close(
            step.parameters()[name].grad, theirs, rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize("architecture", ["standard", *TOPK_FAMILY, "jumprelu"])
def test_loss_and_gradients_are_sae_lens_s(architecture: str) -> None:
    step, x = _step(architecture), _rows()
    peer = _peer(step)
    loss = _their_step(peer, x)
    sums = step.gradients(x, progress=1.0)
    torch.testing.assert_close(sums.loss / N, loss, rtol=1e-10, atol=0)
    _assert_same_gradients(step, peer)


@pytest.mark.parametrize("architecture", TOPK_FAMILY)
def test_aux_k_is_sae_lens_s_where_it_acts_on_positive_pre_activations(architecture: str) -> None:
    step, x = _step(architecture), _rows()
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[5:30] = True
    step.tokens_since_fired[dead] = step.settings.dead_after_tokens
    with torch.no_grad():
        step.b_enc[dead] += 8
    peer = _peer(step)
    pre = step.encode_pre(x - step.b_dec)
    assert (pre[:, dead].topk(D_IN // 2, dim=1).values > 0).all()
    loss = _their_step(peer, x, dead)
    sums = step.gradients(x, progress=1.0)
    assert sums.sparsity_loss > 0
    torch.testing.assert_close(sums.loss / N, loss, rtol=1e-10, atol=0)
    _assert_same_gradients(step, peer)


def test_gated_differs_from_sae_lens_by_the_frozen_decoder_alone() -> None:
    step, x = _step("gated"), _rows()
    peer = _peer(step)
    loss = _their_step(peer, x)
    with torch.no_grad():
        gate = ((x - step.b_dec) @ step.encoder.T + step.b_enc).relu()
        residual = gate @ step.decoder + step.b_dec - x
    sums = step.gradients(x, progress=1.0)
    torch.testing.assert_close(sums.loss / N, loss, rtol=1e-10, atol=0)
    peer.W_dec.grad -= 2 / N * gate.T @ residual
    peer.b_dec.grad -= 2 / N * residual.sum(0)
    _assert_same_gradients(step, peer)


def test_the_batch_topk_threshold_is_sae_lens_s_without_its_start_at_zero() -> None:
    step = _step("batchtopk")
    assert isinstance(step, BatchTopKStep)
    peer = _peer(step)
    for i in range(30):
        x = _rows(seed=i)
        _their_step(peer, x)
        step.gradients(x, progress=1.0)
    expected = peer.topk_threshold / (1 - 0.99**30)
    torch.testing.assert_close(step.threshold.detach(), expected)
    assert peer.topk_threshold < 0.3 * step.threshold


@pytest.mark.parametrize("architecture", list(OURS))
def test_sae_lens_reads_our_folders_and_we_read_what_it_writes_back(
    architecture: str, tmp_path: Path
) -> None:
    step = _step(architecture, torch.float32)
    step.gradients(_rows().float(), 1.0)
    step.gradients(_rows(seed=5).float(), 1.0)
    metadata = SaeMetadata("a-model", 2, HEADS, D_HEAD, 16, "0" * 16, "1" * 16)
    sae = step.build(scale=1.3)
    save_sae(tmp_path / "ours", sae, metadata)
    theirs = SAE.load_from_disk(tmp_path / "ours")
    x = _rows(200, seed=3).float()
    activations = theirs.encode(x.view(-1, HEADS, D_HEAD))
    torch.testing.assert_close(activations, sae.encode(x))
    assert torch.equal(activations > 0, sae.encode(x) > 0)
    assert (activations > 0).any()
    torch.testing.assert_close(theirs.decode(activations).flatten(-2), sae(x))
    assert theirs.cfg.metadata.hook_name == metadata.hook_name
    theirs.save_model(tmp_path / "theirs")
    back = load_sae(tmp_path / "theirs")
    assert back.architecture == architecture
    assert back.weights_hash() == sae.weights_hash()
    assert torch.equal(back(x), sae(x))


@pytest.mark.parametrize("architecture", list(OURS))
def test_we_read_what_sae_lens_trained(architecture: str, tmp_path: Path) -> None:
    """Their own decoders have any norm; TopK SAEs rescale activations by it when saved."""
    step = _step(architecture)
    peer = _peer(step).to(torch.float32)
    peer.cfg.dtype = "float32"
    with torch.no_grad():
        peer.W_dec *= 0.3 + torch.rand(D_SAE, 1, generator=torch.Generator().manual_seed(2))
        if architecture in ("batchtopk", "matryoshka"):
            peer.topk_threshold += 1.1
    peer.save_inference_model(tmp_path)
    theirs, ours = SAE.load_from_disk(tmp_path), load_sae(tmp_path)
    expected = "jumprelu" if architecture in ("batchtopk", "matryoshka") else architecture
    assert ours.architecture == expected
    x = _rows(200, seed=3).float()
    activations = theirs.encode(x)
    assert (activations > 0).any()
    torch.testing.assert_close(ours.encode(x), activations)
    torch.testing.assert_close(ours(x), theirs.decode(activations))
