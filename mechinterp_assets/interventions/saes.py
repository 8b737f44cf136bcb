"""SAEs as interventions use them.

Belongs here: the checks and the encoding that all SAE kinds share. Does not belong here: what each
kind does with features (sae_features.py, sae_splice.py, sae_paths.py, steering.py).

SAEs take raw z (all heads, flattened head-major), so these kinds run on raw weights. Position 0
(BOS) takes no part in an SAE's training: "all" leaves it alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from torch import Tensor

from mechinterp_assets.interventions.spec import Intervention, InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class SaeEditor:
    """What editors of SAE kinds have in common: layer -> SAE of its raw z."""

    model: LanguageModel
    saes: Mapping[int, SparseAutoencoder]

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        """Raise InterventionError for a layer without SAE, another width, an unknown feature."""
        for one in interventions:
            if one.layer not in self.saes:
                raise InterventionError(
                    f"{one.id}: there is no SAE of layer {one.layer} (given: "
                    f"{sorted(self.saes) or 'none'}); train it or choose another layer"
                )
            sae, width = self.saes[one.layer], self.model.config.d_z
            if sae.d_in != width:
                raise InterventionError(
                    f"{one.id}: the SAE of layer {one.layer} takes {sae.d_in} dimensions, but z "
                    f"has {width}; give an SAE of this model"
                )
            feature = getattr(one, "feature", None)
            if feature is not None and feature >= sae.d_sae:
                raise InterventionError(
                    f"{one.id}: feature {feature} does not exist; the SAE of layer {one.layer} "
                    f"has features 0..{sae.d_sae - 1}"
                )


def contribution(sae: SparseAutoencoder, z: Tensor, feature: int) -> Tensor:
    """f_i d_i: what a feature adds to the reconstruction, [place, head, d_head] for such z."""
    f = sae.encode(z.flatten(1).to(sae.W_enc.dtype))[:, feature]
    return (f[:, None] * sae.W_dec[feature]).reshape(z.shape).to(z.dtype)
