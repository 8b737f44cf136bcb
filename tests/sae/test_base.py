"""Encoding and decoding of a trained SAE."""

import pytest
import torch
from sae_reference import random_sae

from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.traits import architecture_names

D_IN, D_SAE, K = 6, 15, 4


def _weights() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(D_IN, D_SAE, generator=generator),
        torch.randn(D_SAE, generator=generator),
        torch.randn(D_SAE, D_IN, generator=generator),
        torch.randn(D_IN, generator=generator),
    )


@pytest.fixture(params=architecture_names())
def sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    return random_sae(request.param, *_weights(), k=K)


def test_encode_equals_the_definition_row_by_row(sae: SparseAutoencoder) -> None:
    x = torch.randn(9, D_IN, generator=torch.Generator().manual_seed(1))
    f = sae.encode(x)
    for row in range(9):
        pre = [float((x[row] - sae.b_dec) @ sae.W_enc[:, i] + sae.b_enc[i]) for i in range(D_SAE)]
        allowed = set(range(D_SAE))
        if isinstance(sae, JumpReLUSAE):
            allowed = {i for i in allowed if pre[i] > float(sae.threshold[i])}
        if sae.k is not None:
            allowed = set(sorted(range(D_SAE), key=lambda i: -pre[i])[: sae.k])
        expected = [max(0.0, p) if i in allowed else 0.0 for i, p in enumerate(pre)]
        torch.testing.assert_close(f[row], torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sae(x), f @ sae.W_dec + sae.b_dec)


def test_sparse_encoding_is_the_dense_one(sae: SparseAutoencoder) -> None:
    x = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(2))
    rows, features, values = sae.encode_sparse(x)
    dense = sae.encode(x)
    expected = dense.nonzero()
    assert rows.dtype == features.dtype == torch.int64
    assert torch.equal(torch.stack([rows, features], 1), expected)
    assert torch.equal(values, dense[rows, features])
    assert (values > 0).all()


def test_a_row_with_fewer_positive_pre_activations_than_k_has_fewer_active() -> None:
    W_enc, _, W_dec, b_dec = _weights()
    b_enc = torch.full((D_SAE,), -1e3)
    b_enc[2] = 1e3
    sae = TopKSAE(W_enc, b_enc, W_dec, b_dec, k=K)
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0))
    assert (sae.encode(x) > 0).sum(1).tolist() == [1] * 5
    assert sae.encode_sparse(x)[1].tolist() == [2] * 5


def test_the_hash_follows_weights_and_k() -> None:
    one, same = TopKSAE(*_weights(), k=K), TopKSAE(*_weights(), k=K)
    assert one.weights_hash() == same.weights_hash()
    assert TopKSAE(*_weights(), k=K + 1).weights_hash() != one.weights_hash()
    same.b_dec = same.b_dec + 1e-6
    assert same.weights_hash() != one.weights_hash()


@pytest.mark.parametrize("architecture", architecture_names())
def test_the_hash_covers_every_tensor(architecture: str) -> None:
    one = random_sae(architecture, *_weights(), k=K)
    for name in one.tensors():
        other = random_sae(architecture, *_weights(), k=K)
        assert other.weights_hash() == one.weights_hash()
        other.tensors()[name].view(-1)[0] += 1e-3
        assert other.weights_hash() != one.weights_hash(), name


def test_wrong_shapes_and_k_are_refused() -> None:
    W_enc, b_enc, W_dec, b_dec = _weights()
    with pytest.raises(SaeError, match="W_dec has shape"):
        StandardSAE(W_enc, b_enc, W_dec.T, b_dec)
    with pytest.raises(SaeError, match="k is 16"):
        TopKSAE(W_enc, b_enc, W_dec, b_dec, k=D_SAE + 1)
