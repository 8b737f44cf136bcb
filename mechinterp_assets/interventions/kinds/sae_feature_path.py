"""Feature path patching: a feature removed only as chosen readers see it.

Belongs here: kind sae_feature_path. Does not belong here: what paths of an SAE's parts have in
common (sae_path_fields.py).

Kissane et al. 2024 (App. K.1, Fig. 16): f_i d_i is taken out of z at the feature's layer.
"""

from typing import TYPE_CHECKING, Literal

from mechinterp_assets.interventions.sae_path_fields import SaePath
from mechinterp_assets.interventions.terms import Index

if TYPE_CHECKING:
    from torch import Tensor

    from mechinterp_assets.sae.base import SparseAutoencoder


class FeaturePath(SaePath):
    """Feature `feature` of the SAE of `layer` at `position_role`, as `receivers` read it.

    receiver_role is position_role unless given: with all heads frozen nothing else changes.
    """

    kind: Literal["sae_feature_path"] = "sae_feature_path"
    mode: Literal["ablate"] = "ablate"
    feature: Index

    @property
    def label(self) -> str:
        feature = f"L{self.layer}F{self.feature}:{self.position_role}"
        return f"{self.mode}:path:{feature}>{self.to}"

    @property
    def columns(self) -> dict[str, object]:
        return {**super().columns, "error_kept": True}

    def removed(self, sae: "SparseAutoencoder", z: "Tensor") -> "Tensor":
        from mechinterp_assets.interventions.saes import contribution

        return contribution(sae, z, self.feature)
