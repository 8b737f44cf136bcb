"""ReLU passes against plain torch, and a step's sparse way against its dense one."""

import math
from types import ModuleType

import pytest
import torch
from sae_reference import small_settings
from torch import Tensor

from mechinterp_assets.sae import cpu_kernels, relu_ops, sparse_ops
from mechinterp_assets.sae.architectures import gated, jumprelu, standard
from mechinterp_assets.sae.architectures.standard import StandardStep
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.relu_ops import (
    positive_encode,
    positive_entries,
    relu_backward_sums_,
    relu_sums_,
)
from mechinterp_assets.sae.settings import SaeSettings


@pytest.fixture(params=["kernels", "torch"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compiled kernels and plain torch in turn; skips where kernels cannot be built."""
    if request.param == "torch":
        monkeypatch.setattr(sparse_ops, "kernels", lambda: None)
    elif cpu_kernels.kernels() is None:
        pytest.skip("no compiled kernels: no C++ compiler or ninja here, or MECHINTERP_CPP=0")
    return str(request.param)


def _pre(n: int, d_sae: int) -> Tensor:
    return torch.randn(n, d_sae, generator=torch.Generator().manual_seed(d_sae))


@pytest.mark.parametrize(("n", "d_sae"), [(5, 7), (130, 600), (64, 512), (1, 1), (0, 6)])
def test_relu_and_its_backward(route: str, n: int, d_sae: int) -> None:
    pre, g = _pre(n, d_sae), _pre(n, d_sae) * 2
    expected = pre.double().relu()
    f = pre.clone()
    sums, n_active = relu_sums_(f)
    assert torch.equal(f.double(), expected)
    assert int(n_active) == int((pre > 0).sum())
    torch.testing.assert_close(sums.double(), expected.sum(0), rtol=1e-5, atol=1e-5)
    backward = torch.where(pre > 0, 0.25 * g.double() + 0.5, 0.0)
    sums = relu_backward_sums_(g, f, 0.25, 0.5)
    torch.testing.assert_close(g.double(), backward, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sums.double(), backward.sum(0), rtol=1e-5, atol=1e-4)


def test_relu_keeps_nan(route: str) -> None:
    pre = torch.tensor([[1.0, math.nan, -1.0, 0.0]])
    sums, _ = relu_sums_(pre)
    assert sums.isnan().tolist() == [False, True, False, False]
    assert positive_entries(pre)[1].tolist() == [0, 1]


def test_positive_entries_in_order(route: str) -> None:
    pre = _pre(37, 90)
    pre[4] = -1
    pre[5, :3] = torch.tensor([0.0, -0.0, 1e-40])
    rows, features, values = positive_entries(pre)
    expected = (pre > 0).nonzero()
    assert torch.equal(torch.stack([rows, features], 1), expected)
    assert torch.equal(values, pre[rows, features])


@pytest.mark.parametrize("bias", [-2.0, 0.0, -100.0])
def test_positive_encode_finds_what_the_float32_product_has(
    route: str, bias: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_ops, "_fast_bfloat16", lambda: True)
    generator = torch.Generator().manual_seed(1)
    x, encoder = torch.randn(50, 40, generator=generator), torch.randn(300, 40, generator=generator)
    exact = x.double() @ encoder.double().T + bias
    rows, features, values = positive_encode(x, encoder, torch.full((300,), bias))
    found = torch.zeros_like(exact)
    found[rows, features] = values.double()
    torch.testing.assert_close(found, exact.relu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize(
    "module", [standard, gated, jumprelu], ids=["standard", "gated", "jumprelu"]
)
def test_sparse_and_dense_steps_agree(
    module: ModuleType, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cpu_kernels.kernels() is None:
        pytest.skip("no compiled kernels")
    monkeypatch.setattr(sparse_ops, "_fast_bfloat16", lambda: rounded)
    n, d, d_sae = relu_ops.LEAST_ROWS, 24, 96
    architecture = module.__name__.rpartition(".")[2]
    settings = small_settings(architecture, d_sae=d_sae, batch_size=n, encoder_scale=1.0)
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(d_sae, d, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    b_dec = torch.randn(d, generator=generator)
    kind = training_step_class(architecture)
    steps = [kind(settings, decoder, b_dec) for _ in range(2)]
    for step in steps:
        with torch.no_grad():
            step.b_enc.fill_(-2.0)
            for parameter in step.extra.values():
                parameter += torch.linspace(-0.2, 0.2, d_sae)
    real, answers = module.few_positive, []
    for i in range(3):
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(i)) + b_dec
        sums = []
        for step, allowed in zip(steps, (True, False), strict=True):

            def few(*arguments: Tensor, allowed: bool = allowed) -> bool:
                answers.append(real(*arguments))
                return allowed

            monkeypatch.setattr(module, "few_positive", few)
            sums.append(step.gradients(x, 1.0).stacked())
        assert 0.3 < sums[0][-1] / n < 10  # features are active, a few a row
        torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=1e-3)
        for name, parameter in steps[0].parameters().items():
            other = steps[1].parameters()[name].grad
            torch.testing.assert_close(parameter.grad, other, rtol=1e-4, atol=1e-6, msg=name)
        for step in steps:
            step.apply(1e-3)
        assert torch.equal(steps[0].tokens_since_fired, steps[1].tokens_since_fired)
    assert all(answers)


def test_bfloat16_products_stay_close_to_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(96, 24, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    x = torch.randn(200, 24, generator=generator)
    gradients = []
    for dtype in ("float32", "bfloat16"):
        settings = SaeSettings(
            architecture="standard",
            d_sae=96,
            training_tokens=10**6,
            l1_coefficient=0.3,
            compute_dtype=dtype,
        )
        step = StandardStep(settings, decoder, torch.zeros(24))
        step.gradients(x, 1.0)
        gradients.append([p.grad for p in step.parameters().values()])
    for exact, rounded in zip(*gradients, strict=True):
        assert exact is not None
        assert rounded is not None
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() < 0.02 * exact.norm()
