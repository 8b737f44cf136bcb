"""Orthonormal factors: every condition number, rank deficiency, wide matrices."""

import pytest
import torch

from mechinterp_assets.circuits.thin_qr import ThinFactors


def conditioned(rows: int, columns: int, condition: float, seed: int = 0) -> torch.Tensor:
    """Matrix [rows, columns] whose singular values fall geometrically from 1 to 1 / condition."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, columns, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(columns, columns, generator=generator).double())[0]
    exponents = torch.linspace(0, 1, columns, dtype=torch.float64)
    return left * (1 / condition) ** exponents @ right.T


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_every_condition_number_gives_orthonormal_columns(scale: float) -> None:
    conditions = [1.0, 1e1, 1e3, 1e5, 1e7, 1e9, 1e13, 1e16]
    X = scale * torch.stack([conditioned(60, 9, c, at) for at, c in enumerate(conditions)])
    factors = ThinFactors.of(X.clone())
    Q = factors.Q
    eye = torch.eye(9, dtype=torch.float64)
    assert torch.allclose(Q.mT @ Q, eye.expand(len(X), -1, -1), atol=2e-10)
    assert float((Q @ factors.R - X).abs().max()) < 1e-13 * scale
    # The well-conditioned ones are their own basis, so Q was not formed for them.
    assert torch.equal(factors.basis[:2], X[:2])
    assert not torch.equal(factors.basis[2], X[2])


def test_rank_deficient_and_zero_matrices() -> None:
    X = conditioned(40, 6, 2.0).expand(4, -1, -1).clone()
    X[1, :, 3] = X[1, :, 0]
    X[2] = 0
    X[3, :, 5] = 0
    factors = ThinFactors.of(X.clone())
    eye = torch.eye(6, dtype=torch.float64).expand(4, -1, -1)
    assert torch.allclose(factors.Q.mT @ factors.Q, eye, atol=1e-12)
    assert torch.allclose(factors.Q @ factors.R, X, atol=1e-13)


def test_more_columns_than_rows() -> None:
    X = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(1)).double()
    factors = ThinFactors.of(X.clone())
    assert factors.Q.shape == (3, 4, 4)
    assert factors.R.shape == (3, 4, 7)
    assert torch.allclose(factors.Q @ factors.R, X)
