"""Triton kernels against plain torch: on a CUDA device, or interpreted (TRITON_INTERPRET=1)."""

import importlib
import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from mechinterp_assets.sae import row_adam, sparse_ops
from mechinterp_assets.sae.registry import training_step_class
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.sparse_ops import EntriesByFeature

pytest.importorskip("triton", reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("no CUDA device, and TRITON_INTERPRET is not 1", allow_module_level=True)

gpu_kernels = importlib.import_module("mechinterp_assets.sae.gpu_kernels")
DEVICE = "cpu" if INTERPRETED else "cuda"
SHAPES = [(9, 4, 13, 7), (5, 1, 6, 16), (3, 19, 50, 33)]
on_cuda = pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")


def _draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def _features(n: int, k: int, d_sae: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, (d_sae + 1) // 2, (n, k), generator=generator).to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_sae", "k"), [(1, 1), (40, 1), (40, 40), (700, 32), (1024, 3)])
def test_topk_rows_are_the_largest(d_sae: int, k: int, dtype: torch.dtype) -> None:
    pre = _draw(3, d_sae).to(dtype)
    pre[1] = pre[1].round()  # ties
    values, features = gpu_kernels.topk_rows(pre, k)
    assert torch.equal(values, pre.gather(1, features).float())
    assert torch.equal(features, features.sort(dim=1).values)
    assert all(len(set(row)) == k for row in features.tolist())
    best = pre.float().topk(k, dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, best)


def test_topk_rows_with_bias_extremes_and_nan() -> None:
    pre, bias = _draw(6, 100), _draw(100, seed=2)
    pre[0] = 0
    pre[1] = -math.inf
    pre[2, :50] = math.inf
    pre[3, 7], pre[4, 7] = math.nan, -torch.tensor(math.nan)
    for k in (1, 5, 99):
        values, features = gpu_kernels.topk_rows(pre, k, bias)
        best = (pre + bias).topk(k, dim=1).values
        assert torch.equal(
            values.sort(dim=1, descending=True).values.nan_to_num(),
            best.sort(dim=1, descending=True).values.nan_to_num(),
        )
        assert values.isnan().any(1).tolist() == [False, False, False, True, True, False]
        assert int(features.min()) >= 0
        assert int(features.max()) < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "k", "d_sae", "d"), SHAPES)
def test_decode_and_reconstruct(n: int, k: int, d_sae: int, d: int, dtype: torch.dtype) -> None:
    features, values = _features(n, k, d_sae), _draw(n, k, seed=3)
    decoder, x, b_dec = _draw(d_sae, d, seed=4).to(dtype), _draw(n, d, seed=5), _draw(d, seed=6)
    directions = decoder.double()[features]
    decoded = (values.double()[..., None] * directions).sum(1)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(
        gpu_kernels.decode(features, values, decoder).double(), decoded, **close
    )
    residual, dots = gpu_kernels.reconstruct(features, values, decoder, b_dec, x)
    expected = decoded + b_dec.double() - x.double()
    torch.testing.assert_close(residual.double(), expected, **close)
    expected_dots = torch.einsum("nkd,nd->nk", directions, expected)
    torch.testing.assert_close(dots.double(), expected_dots, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("n", "k", "d_sae", "d"), SHAPES)
def test_weighted_rows(n: int, k: int, d_sae: int, d: int) -> None:
    features, weights, rows = _features(n, k, d_sae), _draw(n, k, seed=7), _draw(n, d, seed=8)
    grouped, order = torch.sort(features.flatten(), stable=True)
    starts = torch.searchsorted(grouped, torch.arange(d_sae + 1, device=DEVICE))
    entry_rows = torch.arange(n * k, device=DEVICE) // k
    out = torch.full((d_sae, d), math.nan, device=DEVICE)
    gpu_kernels.weighted_rows(order, starts, entry_rows, weights.flatten(), rows, 0.5, out)
    expected = torch.zeros(d_sae, d, dtype=torch.float64, device=DEVICE)
    contributions = (0.5 * weights.double()[..., None] * rows.double()[:, None]).flatten(0, 1)
    expected.index_add_(0, features.flatten(), contributions)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
def test_adam_rows_follow_torch(unit: bool) -> None:
    start = _draw(5, 7)
    start /= start.norm(dim=1, keepdim=True)
    expected = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([expected], lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    actual, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 6):
        gradient = _draw(5, 7, seed=step)
        ours = gradient.clone()
        if unit:
            gradient -= (gradient * expected.detach()).sum(1, keepdim=True) * expected.detach()
        expected.grad = gradient
        adam.step()
        if unit:
            with torch.no_grad():
                expected /= expected.norm(dim=1, keepdim=True)
        gpu_kernels.adam_rows(
            actual, ours, mean, square, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, step=step, unit=unit
        )
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-5, atol=1e-6)


def test_apply_with_the_kernel_follows_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, gradients and optimiser state of both routes, over a state read back in between."""
    settings = SaeSettings(architecture="topk", d_sae=24, training_tokens=10**6, k=3, batch_size=16)
    decoder = _draw(24, 10)
    decoder /= decoder.norm(dim=1, keepdim=True)
    make = training_step_class("topk")
    kernel, plain = (make(settings, decoder, _draw(10, seed=1)) for _ in range(2))
    for i in range(6):
        x = _draw(16, 10, seed=20 + i)
        for step in (kernel, plain):
            with monkeypatch.context() as patch:
                route = gpu_kernels if step is kernel else None
                patch.setattr(row_adam, "on_cuda", lambda *tensors, route=route: route)
                step.gradients(x, 1.0)
                step.apply(1e-2)
        if i == 3:
            kernel.load_state_tensors({n: t.clone() for n, t in kernel.state_tensors().items()})
        assert kernel.decoder.grad is not None
        for name, value in plain.state_tensors().items():
            torch.testing.assert_close(kernel.state_tensors()[name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(kernel.decoder.grad, plain.decoder.grad, rtol=1e-4, atol=1e-6)
    assert int(kernel.optimizer.state[kernel.decoder]["step"]) == 6


@on_cuda
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_a_topk_step_equals_plain_torch(
    compute_dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three whole steps at a real width, with dead features, with and without the kernels."""
    settings = SaeSettings(
        architecture="topk",
        d_sae=4096,
        training_tokens=10**6,
        k=16,
        batch_size=512,
        dead_after_tokens=1024,
        compute_dtype=compute_dtype,
    )
    decoder = _draw(4096, 256)
    decoder /= decoder.norm(dim=1, keepdim=True)
    steps = [training_step_class("topk")(settings, decoder, _draw(256, seed=1)) for _ in range(2)]
    for i in range(4):
        x = _draw(512, 256, seed=10 + i)
        sums = [steps[0].gradients(x, 1.0).stacked()]
        with monkeypatch.context() as patch:
            patch.setattr(sparse_ops, "triton_kernels", lambda: None)
            sums.append(steps[1].gradients(x, 1.0).stacked())
            steps[1].apply(1e-4)
        steps[0].apply(1e-4)
        slack = 1e-4 if compute_dtype == "float32" else 2e-2
        torch.testing.assert_close(sums[0], sums[1], rtol=slack, atol=slack)
        if compute_dtype == "float32":
            for a, b in zip(*(s.parameters().values() for s in steps), strict=True):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)


@on_cuda
def test_grouping_entries_repeats_bit_for_bit() -> None:
    features, weights, rows = _features(4096, 32, 1000), _draw(4096, 32), _draw(4096, 256)
    results = [EntriesByFeature(features, 1000).weighted_rows(weights, rows) for _ in range(3)]
    assert all(torch.equal(results[0], other) for other in results[1:])
