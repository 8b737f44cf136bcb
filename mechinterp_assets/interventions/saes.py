"""SAEs as interventions use them.

Belongs here: what SAE kinds check and compute, and their steps. Does not belong here: fields of the
kinds (sae_fields.py and their files in kinds/).

SAEs take raw z (all heads, flattened head-major), so these kinds run on raw weights. Position 0
(BOS) takes no part in an SAE's training: "all" leaves it alone.
"""

from dataclasses import dataclass

from torch import Tensor

from mechinterp_assets.interventions.sites import SiteStep
from mechinterp_assets.sae.base import SparseAutoencoder


def contribution(sae: SparseAutoencoder, z: Tensor, feature: int) -> Tensor:
    """f_i d_i: what a feature adds to the reconstruction, [place, head, d_head] for such z."""
    f = sae.encode(z.flatten(1).to(sae.W_enc.dtype))[:, feature]
    return (f[:, None] * sae.W_dec[feature]).reshape(z.shape).to(z.dtype)


@dataclass(frozen=True)
class RemoveFeature(SiteStep):
    """z -> z - strength f_i(z) d_i."""

    sae: SparseAutoencoder
    feature: int
    strength: float

    def change(self, x: Tensor) -> Tensor:
        return -self.strength * contribution(self.sae, x, self.feature)


@dataclass(frozen=True)
class Reconstruct(SiteStep):
    """z -> z + strength (x_hat(z) - z)."""

    sae: SparseAutoencoder
    strength: float

    def change(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        x_hat = self.sae(flat.to(self.sae.W_enc.dtype)).to(x.dtype)
        return self.strength * (x_hat - flat).reshape(x.shape)
