"""Ablation of one SAE feature with the error kept.

Belongs here: kind sae_feature_ablation and its sweep. Does not belong here: replacing activations
by reconstructions (sae_splice.py), a feature as single readers see it (sae_feature_path.py).

Kissane et al. 2024 (App. K.1, Fig. 16): x' = x - f_i d_i. The reconstruction error stays in x.
f_i is that of each prompt at its own position (the published code zeroes the union of all prompts'
positions).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from mechinterp_assets.interventions.sae_fields import SaeIntervention
from mechinterp_assets.interventions.spec import Site
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Index

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


class AblateFeature(SaeIntervention):
    """Feature `feature` of the SAE of `layer` at `position_role`: z - alpha f_i d_i.

    cosine and norm ratio are those of the residual stream after the layer's attention.
    """

    kind: Literal["sae_feature_ablation"] = "sae_feature_ablation"
    mode: Literal["ablate"] = "ablate"
    feature: Index

    @property
    def edited_site(self) -> str:
        return "z"

    @property
    def label(self) -> str:
        return f"{self.mode}:sae:L{self.layer}F{self.feature}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """A splice edits all features; two features of one layer are two sites."""
        return (
            Site(
                what="SAE feature",
                layer=self.layer,
                role=self.position_role,
                part=self.feature,
            ),
        )

    @property
    def columns(self) -> dict[str, object]:
        return {"error_kept": True}

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.saes import RemoveFeature
        from mechinterp_assets.interventions.sites import Places, edit_of

        run = runs.of(None, self.view)
        places = Places.of(run.group, self.position_role, skip_bos=True)
        sae = context.saes[self.layer]
        step = RemoveFeature("z", self.layer, None, places, sae, self.feature, self.alpha)
        return edit_of(run, step, context.model.raw_weights)


def feature_ablations(
    features: Mapping[int, Iterable[int]],
    *,
    position_roles: Iterable[str] = (ALL_POSITIONS,),
) -> list[AblateFeature]:
    """Every feature (layer -> features) at every role."""
    return [
        AblateFeature(layer=layer, feature=feature, position_role=role)
        for layer, own in sorted(features.items())
        for role in position_roles
        for feature in own
    ]
