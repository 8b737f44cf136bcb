"""Omega and its SVD: equality with the dense SVD, rotations, grouped keys, errors."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.omega import (
    ModelOmega,
    OmegaFactors,
    _small_svd,
    attention_svd,
    omega_svd,
    rotation_matrices,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs
from tests.model.families import save_family


def random_weights(
    heads: int, key_heads: int, d_model: int, d_head: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(heads * d_model + d_head)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return (
        normal(heads, d_model, d_head),
        normal(heads, d_head),
        normal(key_heads, d_model, d_head),
        normal(key_heads, d_head),
    )


def dense(W_Q: torch.Tensor, b_Q: torch.Tensor, W_K: torch.Tensor, b_K: torch.Tensor) -> np.ndarray:
    left = np.vstack([W_Q.double().numpy(), b_Q.double().numpy()])
    right = np.vstack([W_K.double().numpy(), b_K.double().numpy()])
    return np.asarray(left @ right.T)


@pytest.mark.parametrize(
    ("heads", "key_heads", "d_model", "d_head"), [(5, 5, 40, 8), (6, 2, 17, 4), (2, 1, 5, 9)]
)
def test_equals_the_dense_svd(heads: int, key_heads: int, d_model: int, d_head: int) -> None:
    W_Q, b_Q, W_K, b_K = random_weights(heads, key_heads, d_model, d_head)
    W_Q[1, :, 0] = 0
    b_Q[1, 0] = 0  # a head of rank d_head - 1
    W_K[0, :, :2] = W_K[0, :, :1]  # and keys of rank below d_head
    b_K[0, :2] = b_K[0, 0]
    svd = omega_svd(W_Q, b_Q, W_K, b_K)
    rank = min(d_head, d_model + 1)
    assert svd.U.shape == svd.V.shape == (heads, d_model + 1, rank)
    assert svd.S.shape == (heads, rank)
    assert svd.U.dtype == torch.float64
    for head in range(heads):
        of = head * key_heads // heads
        omega = dense(W_Q[head], b_Q[head], W_K[of], b_K[of])
        size = np.linalg.norm(omega)
        U, S, V = (t[head].numpy() for t in (svd.U, svd.S, svd.V))
        assert np.linalg.norm((U * S) @ V.T - omega) < 1e-6 * size
        assert np.abs(np.linalg.svd(omega)[1][:rank] - S).max() < 1e-6 * size
        assert np.allclose(U.T @ U, np.eye(rank), atol=1e-10)
        assert np.allclose(V.T @ V, np.eye(rank), atol=1e-10)
        assert (np.diff(S) <= 1e-12).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_types_and_threads_change_nothing_else(dtype: torch.dtype, tolerance: float) -> None:
    weights = random_weights(14, 7, 50, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))[0]
    exact = omega_svd(*weights, rotation=rotation)
    svd = omega_svd(*weights, rotation=rotation, dtype=dtype)
    assert svd.U.dtype == svd.S.dtype == svd.V.dtype == dtype
    size = float(exact.S.max())
    whole = (exact.U * exact.S[:, None]) @ exact.V.mT
    again = (svd.U * svd.S[:, None]).double() @ svd.V.mT.double()
    assert float((whole - again).abs().max()) < tolerance * size
    assert float((svd.S - exact.S).abs().max()) < tolerance * size
    eye = torch.eye(6, dtype=dtype).expand(14, -1, -1)
    assert torch.allclose(svd.V.mT @ svd.V, eye, atol=tolerance)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = omega_svd(*weights, rotation=rotation, dtype=dtype)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for one, several in zip((svd.U, svd.S, svd.V), (shared.U, shared.S, shared.V), strict=True):
        assert torch.equal(one, several)


def test_half_precision_results_are_refused() -> None:
    with pytest.raises(CircuitError, match="bfloat16"):
        omega_svd(*random_weights(2, 2, 9, 3), dtype=torch.bfloat16)


def test_shapes_that_differ_are_named() -> None:
    W_Q, b_Q, W_K, b_K = random_weights(4, 3, 12, 4)
    with pytest.raises(CircuitError, match="W_K \\(3, 12, 4\\)"):
        omega_svd(W_Q, b_Q, W_K, b_K)
    with pytest.raises(CircuitError, match="b_Q"):
        OmegaFactors.of(W_Q, b_Q[:, :2], W_K[:2], b_K[:2])


@pytest.mark.parametrize("which", ["stories", "tiny_llama"])
def test_rotary_slices_sum_to_the_rotated_product(
    which: str, request: pytest.FixtureRequest
) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    ids = torch.randint(
        3, model.config.d_vocab, (2, 14), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        _, cache = model.processed.run_with_cache(ids)
    omega = ModelOmega(model)
    group = model.config.n_heads // model.config.n_kv_heads
    assert group > 1
    for layer in (0, model.config.n_layers - 1):
        prefix = f"blocks.{layer}.attn."
        q, k = cache[prefix + "hook_rot_q"].double(), cache[prefix + "hook_rot_k"].double()
        x = cache[f"blocks.{layer}.hook_resid_pre"].double()
        x = x / (x.square().mean(-1, keepdim=True) + model.config.eps).sqrt()
        x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        for head, i, j in ((0, 13, 13), (1, 13, 5), (3, 9, 1), (2, 1, 0)):
            U, S, V = omega.vectors(layer, head, i - j)
            terms = S * (x[:, i] @ U) * (x[:, j] @ V)
            expected = (q[:, i, head] * k[:, j, head // group]).sum(-1)
            assert torch.allclose(terms.sum(-1), expected, rtol=1e-4, atol=1e-5)


def test_one_svd_serves_every_offset(tiny_llama: LanguageModel) -> None:
    """At each offset the matrix is sum over k of u_k sigma_k v_k^T, with the u_k of offset 0."""
    omega, weights, layer = ModelOmega(tiny_llama), tiny_llama.weights, 1
    M = rotation_matrices(tiny_llama, layer, range(6))
    for head in range(tiny_llama.config.n_heads):
        left, right = (
            torch.cat([W[layer, head], b[layer, head][None]]).double()
            for W, b in ((weights.W_Q, weights.b_Q), (weights.W_K, weights.b_K))
        )
        U_0, S_0, V_0 = omega.vectors(layer, head, 0)
        assert torch.allclose(V_0.T @ V_0, torch.eye(V_0.shape[1]).double(), atol=1e-9)
        assert (S_0.diff() <= 0).all()
        for offset in range(6):
            U, S, V = omega.vectors(layer, head, offset)
            assert torch.equal(U, U_0)
            assert torch.allclose(V.norm(dim=0), torch.ones(V.shape[1]).double())
            assert torch.allclose((U * S) @ V.T, left @ M[offset] @ right.T, atol=1e-9)


def test_rotations_are_rotations_and_compose(tiny_llama: LanguageModel) -> None:
    M = rotation_matrices(tiny_llama, 0, range(6))
    eye = torch.eye(tiny_llama.config.d_head, dtype=torch.float64)
    assert torch.allclose(M[0], eye, atol=1e-6)
    assert torch.allclose(M[5] @ M[5].T, eye, atol=1e-6)
    assert torch.allclose(M[2] @ M[3], M[5], atol=1e-5)
    with pytest.raises(CircuitError, match="offsets"):
        rotation_matrices(tiny_llama, 0, [tiny_llama.config.n_ctx])


def test_an_offset_means_nothing_without_rotary_positions(organism: LanguageModel) -> None:
    omega = ModelOmega(organism)
    for near, far in zip(omega.vectors(1, 2, 0), omega.vectors(1, 2, 7), strict=True):
        assert torch.equal(near, far)
    eye = torch.eye(organism.config.d_head, dtype=torch.float64)
    assert torch.equal(rotation_matrices(organism, 0, [3])[0], eye)


def test_the_cache_of_inner_svds_is_bounded_and_grows_with_offsets(
    tiny_llama: LanguageModel,
) -> None:
    plain, none = ModelOmega(tiny_llama), ModelOmega(tiny_llama, cache_bytes=0)
    for n_offsets in (2, 5, 3):
        kept, fresh = plain.inner(1, n_offsets), none.inner(1, n_offsets)
        assert len(kept[1]) >= n_offsets
        assert torch.allclose(kept[1][:n_offsets], fresh[1][:n_offsets])
    assert plain.inner(1, 4) is plain.inner(1, 5)
    assert none.inner(1, 4) is not none.inner(1, 4)


@pytest.mark.parametrize(
    ("family", "why"), [("qwen3", "are normalised"), ("gemma2", "by tanh"), ("mpt", "ALiBi")]
)
def test_scores_that_no_omega_has_are_refused(family: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=why):
        ModelOmega(LanguageModel.load(save_family(family, tmp_path)))


@pytest.mark.parametrize("which", ["tiny_gpt2", "tiny_llama"])
def test_attention_svd_frame(which: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    frame = attention_svd(model, [0, 3])
    columns = {c.name: c.polars_type for c in table_specs()["attention_svd"].science_columns}
    assert dict(frame.schema) == columns
    offsets = [0, 3] if which == "tiny_llama" else [None]
    rank = model.config.d_head
    assert frame.height == model.config.n_layers * model.config.n_heads * rank * len(offsets)
    assert frame["rope_offset"].unique(maintain_order=True).to_list() == offsets
    for layer, head, offset in ((0, 1, offsets[0]), (2, 0, offsets[-1])):
        rows = frame.filter(
            (pl.col("layer") == layer)
            & (pl.col("head") == head)
            & pl.col("rope_offset").eq_missing(offset)
        ).sort("slice")
        factors = ModelOmega(model).factors(layer)
        turn = None if offset is None else rotation_matrices(model, layer, [offset])
        S = factors.inner_svd(turn)[1].reshape(-1, model.config.n_heads, rank)[0, head].numpy()
        assert np.allclose(rows["singular_value"].to_numpy(), S)
        assert rows["cumulative_energy"][-1] == pytest.approx(1)
        assert np.allclose(rows["energy_share"].to_numpy(), S**2 / (S**2).sum())


@pytest.mark.parametrize("condition", [1.0, 30.0, 9e2, 1.1e3, 1e6, 1e14, np.inf])
def test_small_svd_at_any_condition(condition: float) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(4, 12, 12, dtype=torch.float64, generator=generator)).Q
        for _ in range(2)
    )
    values = torch.logspace(0, -np.log10(min(condition, 1e200)), 12, dtype=torch.float64)
    if condition == np.inf:
        values[-3:] = 0
    core = left @ values.diag() @ right.mT
    u, S, vt = _small_svd(core)
    eye = torch.eye(12, dtype=torch.float64).expand(4, -1, -1)
    torch.testing.assert_close(S, values.expand(4, -1), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(u @ S.diag_embed() @ vt, core, rtol=0, atol=1e-14)
    torch.testing.assert_close(u.mT @ u, eye, rtol=0, atol=1e-9)
    torch.testing.assert_close(vt @ vt.mT, eye, rtol=0, atol=1e-12)
