"""Ablation of whole layers: all heads' z, attn_out or mlp_out.

Belongs here: kind layer_ablation. Does not belong here: single heads
(head_ablation.py).

Zero at attn_out takes the output bias b_O away too, zero at z leaves it.
"""

from collections.abc import Iterable
from typing import Literal

from mechinterp_assets.interventions.ablation_fields import Ablation, AblationMode
from mechinterp_assets.interventions.spec import Site
from mechinterp_assets.interventions.terms import ALL_POSITIONS

LayerSite = Literal["z", "attn_out", "mlp_out"]


class AblateLayer(Ablation):
    """`site` (z, attn_out or mlp_out) of `layer` at `position_role`: replaced as `mode` says.

    cosine and norm ratio are those of the residual stream after it: resid_mid, for mlp_out
    resid_post.
    """

    kind: Literal["layer_ablation"] = "layer_ablation"
    site: LayerSite

    @property
    def edited_site(self) -> str:
        return self.site

    @property
    def label(self) -> str:
        return f"{self.verb}:{self.site}:L{self.layer}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(what=self.site, layer=self.layer, role=self.position_role),)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.site,)


def layer_ablations(
    n_layers: int,
    *,
    sites: Iterable[LayerSite] = ("attn_out", "mlp_out"),
    modes: Iterable[AblationMode] = ("zero",),
    position_roles: Iterable[str] = (ALL_POSITIONS,),
    seed: int = 0,
) -> list[AblateLayer]:
    """Every layer at every site in every mode and role; `seed` is that of resampling."""
    return [
        AblateLayer(
            site=site,
            mode=mode,
            layer=layer,
            position_role=role,
            seed=seed if mode.startswith("resample") else None,
        )
        for layer in range(n_layers)
        for site in sites
        for mode in modes
        for role in position_roles
    ]
