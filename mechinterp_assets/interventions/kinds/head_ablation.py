"""Ablation of attention heads.

Belongs here: kind head_ablation and the list of all of a model's. Does not belong here: what
ablations have in common (ablation_fields.py), whole layers (layer_ablation.py).
"""

from collections.abc import Iterable
from typing import Literal

from mechinterp_assets.interventions.ablation_fields import Ablation, AblationMode
from mechinterp_assets.interventions.spec import Site
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Index


class AblateHead(Ablation):
    """z of `head` of `layer` at `position_role` ("all": every position): replaced as `mode` says.

    cosine and norm ratio are those of the residual stream after the layer's attention (resid_mid).
    """

    kind: Literal["head_ablation"] = "head_ablation"
    head: Index

    @property
    def edited_site(self) -> str:
        return "z"

    @property
    def label(self) -> str:
        return f"{self.verb}:L{self.layer}H{self.head}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(what="z", layer=self.layer, head=self.head, role=self.position_role),)


def head_ablations(
    n_layers: int,
    n_heads: int,
    *,
    modes: Iterable[AblationMode] = ("zero", "mean_counterfactual"),
    position_roles: Iterable[str] = (ALL_POSITIONS,),
    seed: int = 0,
) -> list[AblateHead]:
    """Every head in every mode at every given role; `seed` is that of resampling."""
    return [
        AblateHead(
            mode=mode,
            layer=layer,
            head=head,
            position_role=role,
            seed=seed if mode.startswith("resample") else None,
        )
        for layer in range(n_layers)
        for mode in modes
        for role in position_roles
        for head in range(n_heads)
    ]
