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


def error(sae: SparseAutoencoder, z: Tensor) -> Tensor:
    """z - x_hat(z), what the SAE leaves, [place, head, d_head] for such z."""
    flat = z.flatten(1)
    return (flat - sae(flat.to(sae.W_enc.dtype)).to(z.dtype)).reshape(z.shape)


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
        return -self.strength * error(self.sae, x)
