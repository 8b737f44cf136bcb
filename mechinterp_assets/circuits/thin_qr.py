"""Orthonormal factors of many tall, thin matrices at once.

Belongs here: QR factors X = Q R of a batch through Cholesky factors of X^T X, which are matrix
products and so several times quicker than reflections, with the repairs that ill-conditioned
matrices need. Does not belong here: what is factored (omega.py).

Source: Cholesky QR and its repetition, Yamamoto et al. 2015 (ETNA 44, 306-326).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# One Cholesky pass loses orthogonality by about eps * condition^2: 2e-16 * (3e2)^2 = 2e-11.
# A second pass repairs that up to a condition of about eps^-1/2; beyond it, or without full rank,
# only reflections will do.
ONE_PASS, TWO_PASSES = 3e2, 1e7


@dataclass(frozen=True)
class ThinFactors:
    """X = Q R for X [item, row, column], float64, with Q = basis @ inverse.

    basis [item, row, rank], inverse [item, rank, rank], R [item, rank, column], rank = min(row,
    column); Q has orthonormal columns even where X lacks full rank. A well-conditioned X is its own
    basis and Q need not be formed: whoever wants Q u computes basis @ (inverse @ u).
    """

    basis: Tensor
    inverse: Tensor
    R: Tensor

    @classmethod
    def of(cls, X: Tensor) -> "ThinFactors":
        """Factor X, which is overwritten where it is ill-conditioned."""
        eye = torch.eye(min(X.shape[1:]), dtype=X.dtype, device=X.device)
        if X.shape[1] < X.shape[2]:
            Q, R = torch.linalg.qr(X)
            return cls(Q, eye.expand_as(Q), R)
        R, inverse, condition = _cholesky_factors(X)
        for at in (~(condition <= ONE_PASS)).nonzero()[:, 0].tolist():
            if condition[at] <= TWO_PASSES:
                X[at] = X[at] @ inverse[at]
                again, repaired, _ = _cholesky_factors(X[at : at + 1])
                R[at], inverse[at] = again[0] @ R[at], repaired[0]
            else:
                X[at], R[at] = torch.linalg.qr(X[at])
                inverse[at] = eye
        return cls(X, inverse, R)

    @property
    def Q(self) -> Tensor:
        """Orthonormal columns [item, row, rank]."""
        return self.basis @ self.inverse


def _cholesky_factors(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R and R^-1 of R^T R = X^T X, and |R|_F |R^-1|_F, infinite or NaN where there is no R."""
    L, info = torch.linalg.cholesky_ex(X.mT @ X)
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False)
    condition = L.flatten(1).norm(dim=1) * inverse.flatten(1).norm(dim=1)
    return L.mT.clone(), inverse.mT.clone(), condition.masked_fill(info != 0, torch.inf)
