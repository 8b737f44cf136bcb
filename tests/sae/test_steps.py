"""Hand-derived training steps against autograd in float64."""

import pytest
import torch
from sae_reference import LOSSES, small_settings
from torch import Tensor

from mechinterp_assets.sae.architectures.batchtopk import BatchTopKSAE
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.traits import architecture_names

D_IN, ROWS = 12, 37


def _step(settings: SaeSettings, seed: int = 0) -> TrainingStep:
    """A step in float64 at a generic point: encoder and decoder differ, biases are not zero."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    decoder = draw(settings.d_sae, D_IN)
    step = training_step_class(settings.architecture)(
        settings, decoder / decoder.norm(dim=1, keepdim=True), draw(D_IN)
    )
    with torch.no_grad():
        step.encoder.copy_(draw(settings.d_sae, D_IN) * 0.5)
        step.b_enc.copy_(draw(settings.d_sae) * 0.3)
        for parameter in step.extra.values():
            parameter.add_(draw(settings.d_sae) * 0.3)
    return step


def _rows(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, D_IN, generator=generator, dtype=torch.float64) * 2


def _reference(step: TrainingStep, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    weights = {
        name: parameter.detach().clone().requires_grad_(True)
        for name, parameter in step.parameters().items()
    }
    loss = LOSSES[step.settings.architecture](step, weights, x)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return loss.detach(), dict(zip(weights, gradients, strict=True))


CASES = {
    "standard": small_settings("standard"),
    "standard without penalty": small_settings("standard", l1_coefficient=0.0),
    "topk": small_settings("topk"),
    "topk with few dead": small_settings("topk", dead_after_tokens=10, auxk=6),
    "topk with many dead": small_settings("topk", dead_after_tokens=10, auxk=2),
    "topk, aux-k of default size": small_settings("topk", dead_after_tokens=10),
    "topk without aux-k": small_settings("topk", dead_after_tokens=10, auxk_coefficient=0.0),
    "topk with every feature": small_settings("topk", k=20),
    "batchtopk": small_settings("batchtopk"),
    "batchtopk with few dead": small_settings("batchtopk", dead_after_tokens=10, auxk=6),
    "batchtopk with many dead": small_settings("batchtopk", dead_after_tokens=10, auxk=2),
    "batchtopk with more k than positive": small_settings("batchtopk", k=20),
    "matryoshka": small_settings("matryoshka"),
    "matryoshka of one prefix": small_settings("matryoshka", group_sizes=(20,)),
    "matryoshka with dead": small_settings("matryoshka", dead_after_tokens=10, auxk=3),
    "jumprelu": small_settings("jumprelu"),
    "jumprelu with a narrow window": small_settings("jumprelu", bandwidth=0.05),
    "jumprelu without penalty": small_settings("jumprelu", l0_coefficient=0.0),
    "gated": small_settings("gated"),
    "gated without penalty": small_settings("gated", l1_coefficient=0.0),
}


def _with_dead(step: TrainingStep) -> None:
    step.tokens_since_fired[[1, 4, 5, 11, 17]] = 10


@pytest.mark.parametrize("case", list(CASES))
def test_loss_and_gradients_equal_autograd(case: str) -> None:
    step, x = _step(CASES[case]), _rows()
    if "dead" in case or "aux" in case:
        _with_dead(step)
    loss, gradients = _reference(step, x)
    sums = step.gradients(x, progress=1.0)
    torch.testing.assert_close(sums.loss / ROWS, loss, rtol=1e-10, atol=0)
    for name, parameter in step.parameters().items():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-10)


def test_aux_k_changes_only_dead_features_and_b_dec() -> None:
    with_aux = _step(small_settings("topk", dead_after_tokens=10, auxk=3))
    without = _step(small_settings("topk", dead_after_tokens=10, auxk_coefficient=0.0))
    _with_dead(with_aux)
    dead = with_aux.dead()
    x = _rows()
    with_aux.gradients(x, 1.0)
    without.gradients(x, 1.0)
    for name in ("encoder", "b_enc", "decoder"):
        a, b = with_aux.parameters()[name], without.parameters()[name]
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad[~dead], b.grad[~dead])
        assert not torch.equal(a.grad[dead], b.grad[dead])


@pytest.mark.parametrize("architecture", architecture_names())
def test_float32_steps_follow_the_float64_reference(architecture: str) -> None:
    """25 steps of Adam with projected gradient: hand-derived float32 against autograd float64."""
    settings = small_settings(architecture, learning_rate=3e-3, adam_betas=(0.9, 0.99))
    exact = _step(settings)
    step = training_step_class(architecture)(
        settings, exact.decoder.detach().float(), exact.b_dec.detach().float()
    )
    with torch.no_grad():
        step.encoder.copy_(exact.encoder)
        step.b_enc.copy_(exact.b_enc)
        for name, parameter in step.extra.items():
            parameter.copy_(exact.extra[name])
    weights = {
        name: parameter.detach().clone().requires_grad_(True)
        for name, parameter in exact.parameters().items()
    }
    adam = torch.optim.Adam(
        list(weights.values()), lr=3e-3, betas=(0.9, 0.99), eps=settings.adam_epsilon
    )
    for i in range(25):
        x = _rows(seed=i)
        step.gradients(x.float(), progress=1.0)
        step.apply(3e-3)
        adam.zero_grad()
        LOSSES[architecture](exact, weights, x).backward()
        decoder = weights["decoder"]
        assert decoder.grad is not None
        with torch.no_grad():
            along = (decoder.grad * decoder).sum(1, keepdim=True)
            decoder.grad -= along * decoder
            adam.step()
            decoder /= decoder.norm(dim=1, keepdim=True)
    for name, parameter in step.parameters().items():
        torch.testing.assert_close(
            parameter.detach().double(), weights[name].detach(), rtol=1e-4, atol=2e-5
        )


@pytest.mark.parametrize("architecture", architecture_names())
def test_decoder_rows_stay_unit_and_the_gradient_is_tangent(architecture: str) -> None:
    step = _step(small_settings(architecture, learning_rate=0.05))
    for i in range(5):
        step.gradients(_rows(seed=i), 1.0)
        before = step.decoder.detach().clone()
        step.apply(0.05)
        assert step.decoder.grad is not None
        assert (step.decoder.grad * before).sum(1).abs().max() < 1e-12
        norms = step.decoder.detach().norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=0)


@pytest.mark.parametrize("architecture", architecture_names())
def test_sums_describe_the_batch(architecture: str) -> None:
    step, x = _step(small_settings(architecture)), _rows()
    sums = step.gradients(x, 1.0)
    sae = step.build(scale=1.0)
    if isinstance(sae, BatchTopKSAE):  # after one batch: its smallest kept value, left out by >
        sae.threshold = sae.threshold * (1 - 1e-12)
    x_hat = sae(x)
    residual = x - x_hat
    close = torch.testing.assert_close
    close(sums.squared_error, residual.square().sum())
    close(sums.residual_variance, (residual - residual.mean(0)).square().sum())
    close(sums.total_variance, (x - x.mean(0)).square().sum())
    assert int(sums.n_active) == int((sae.encode(x) > 0).sum())
    fired = (sae.encode(x) > 0).any(0)
    assert torch.equal(step.tokens_since_fired == 0, fired)
    assert (step.tokens_since_fired[~fired] == ROWS).all()


@pytest.mark.parametrize("architecture", architecture_names())
def test_the_input_scale_folds_into_the_biases(architecture: str) -> None:
    step, x = _step(small_settings(architecture)), _rows()
    for seed in (2, 3):  # a threshold that no pre-activation of x equals
        step.gradients(_rows(seed), 1.0)
    scale = 3.7
    trained, folded = step.build(scale=1.0), step.build(scale=scale)
    torch.testing.assert_close(folded(x / scale) * scale, trained(x))
    torch.testing.assert_close(folded.encode(x / scale) * scale, trained.encode(x))
    assert torch.equal(folded.W_dec, trained.W_dec)


def test_resampling_follows_bricken() -> None:
    settings = small_settings("standard", dead_after_tokens=10)
    step = _step(settings)
    step.gradients(_rows(), 1.0)
    step.apply(1e-3)
    dead = torch.tensor([2, 3, 19])
    step.tokens_since_fired[:] = 0
    step.tokens_since_fired[dead] = 10
    before = {name: tensor.clone() for name, tensor in step.state_tensors().items()}
    # one row has almost all of the loss, so its direction is what the dead features get
    rows = torch.zeros(50, D_IN, dtype=torch.float64) + step.b_dec.detach()
    rows += 1e-3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    outlier = torch.randn(D_IN, generator=torch.Generator().manual_seed(1)).double()
    rows[7] += 1e4 * outlier
    assert step.resample(rows[7:8].repeat(3, 1), torch.Generator().manual_seed(0)) == 3
    direction = outlier / outlier.norm()
    living = torch.ones(20, dtype=torch.bool).index_fill(0, dead, False)
    norm = before["encoder"][living].norm(dim=1).mean()
    for feature in dead.tolist():
        torch.testing.assert_close(step.decoder.detach()[feature], direction)
        torch.testing.assert_close(step.encoder.detach()[feature], 0.2 * norm * direction)
    after = step.state_tensors()
    for name in ("encoder", "b_enc", "decoder"):
        assert torch.equal(after[name][living], before[name][living])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert (after[f"adam.{name}.{moment}"][dead] == 0).all()
            assert torch.equal(
                after[f"adam.{name}.{moment}"][living], before[f"adam.{name}.{moment}"][living]
            )
    assert (after["b_enc"][dead] == 0).all()
    assert not step.dead().any()
    assert step.resample(rows, torch.Generator().manual_seed(0)) == 0


def test_resampling_prefers_rows_with_a_large_loss() -> None:
    step = _step(small_settings("standard", dead_after_tokens=10))
    step.tokens_since_fired[4] = 10
    generator = torch.Generator().manual_seed(3)
    rows = step.b_dec.detach() + 0.1 * torch.randn(
        200, D_IN, generator=generator, dtype=torch.float64
    )
    rows[150] *= 100
    step.resample(rows, generator)
    expected = rows[150] - step.b_dec.detach()
    torch.testing.assert_close(step.decoder.detach()[4], expected / expected.norm())
