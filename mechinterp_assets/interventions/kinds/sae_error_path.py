"""Path patching of an SAE's error term: removed only as chosen readers see it.

Belongs here: kind sae_error_path. Does not belong here: the error removed for every reader, which
is a splice at that position (sae_splice.py), a feature's path (sae_feature_path.py).

Kissane et al. 2024 (App. K.1, Fig. 16): what the SAE leaves of z stands beside its features.
"""

from typing import TYPE_CHECKING, Literal

from mechinterp_assets.interventions.sae_path_fields import SaePath

if TYPE_CHECKING:
    from torch import Tensor

    from mechinterp_assets.sae.base import SparseAutoencoder


class ErrorPath(SaePath):
    """The error z - x_hat(z) of the SAE of `layer` at `position_role`, as `receivers` read it.

    receiver_role is position_role unless given: with all heads frozen nothing else changes.
    """

    kind: Literal["sae_error_path"] = "sae_error_path"
    mode: Literal["ablate"] = "ablate"

    @property
    def label(self) -> str:
        return f"{self.mode}:path:L{self.layer}error:{self.position_role}>{self.to}"

    @property
    def columns(self) -> dict[str, object]:
        return {**super().columns, "error_kept": False}

    def removed(self, sae: "SparseAutoencoder", z: "Tensor") -> "Tensor":
        from mechinterp_assets.interventions.saes import error

        return error(sae, z)
