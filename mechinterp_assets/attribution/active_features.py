"""Which features of an SAE are active at one position, and the linear maps that make them so.

Belongs here: a single vector, encoded by the SAE's own choice and held in float64. Does not belong
here: many rows at once (residual_parts.py), what the parts are attributed to (rdfa_splits.py).

With the choice of active features held fixed a feature is linear in what its SAE reads, f = w . x +
constant, in every architecture here (ReLU, TopK, JumpReLU and gated, whose pre-activation is the
magnitude path's), and x = sum_i f_i d_i + b_dec + error.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import RdfaError, exact
from mechinterp_assets.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class ActiveFeatures:
    """Active features of an SAE for one x [d_in]: ids [n], w, d [n, d_in], f, constant [n];
    float64, on the CPU. f = w . x + constant; error [d_in] = x - sum_i f_i d_i - b_dec."""

    ids: list[int]
    w: Tensor
    d: Tensor
    f: Tensor
    constant: Tensor
    b_dec: Tensor
    error: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, sae: SparseAutoencoder, x: Tensor, place: str, *, centre: bool = False
    ) -> "ActiveFeatures":
        """Features by the SAE's own answer for x, float64; their values are float64.

        place: where the SAE reads, for messages. centre: the SAE reads x less its mean over d_in;
        the error makes up the whole of x either way. Raises RdfaError for an SAE whose activation
        is not its pre-activation.
        """
        seen = x - x.mean() if centre else x
        _, ids, values = sae.encode_sparse(seen[None].to(sae.W_enc))
        w, d, b_dec = exact(sae.W_enc[:, ids].T), exact(sae.W_dec[ids]), exact(sae.b_dec)
        constant = exact(sae.b_enc[ids]) - w @ b_dec
        f = w @ seen + constant
        gap = (f - exact(values)).abs()
        # Leaves room for TF32, which keeps 11 bits of every factor of the sum that f is.
        rounding = 5e-3 * (1 + f.abs()) + 2e-3 * (w * (seen - b_dec)).norm(dim=1)
        if not bool((gap <= rounding).all()):
            raise RdfaError(
                f"active features of the {sae.architecture} SAE of {place} are not their "
                f"pre-activations W_enc^T (x - b_dec) + b_enc (off by {float(gap.max()):.3g}); "
                "recursive attribution needs an SAE whose activation is its pre-activation"
            )
        if centre:  # w . (x - mean x) = (w - mean w) . x
            w = w - w.mean(1, keepdim=True)
        return cls(ids.tolist(), w, d, f, constant, b_dec, x - f @ d - b_dec)
