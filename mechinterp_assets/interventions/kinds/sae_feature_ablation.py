"""Ablation of one SAE feature with the error kept.

Belongs here: kind sae_feature_ablation and its sweep. Does not belong here: replacing activations
by reconstructions (sae_splice.py), a feature as single readers see it (sae_paths.py).

Kissane et al. 2024 (section 4.2, Fig. 16): x' = x - f_i d_i. The reconstruction error stays in x.
f_i is that of each prompt at its own position (the published code zeroes the union of all prompts'
positions).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from mechinterp_assets.interventions.runs import Edit, Runs
from mechinterp_assets.interventions.saes import SaeEditor, contribution
from mechinterp_assets.interventions.sites import Places, SiteStep, edit_of
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Index,
    Intervention,
    Site,
    Weights,
)
from mechinterp_assets.sae.base import SparseAutoencoder


class AblateFeature(Intervention):
    """Feature `feature` of the SAE of `layer` at `position_role`: z - alpha f_i d_i.

    cosine and norm ratio are those of the residual stream after the layer's attention.
    """

    kind: Literal["sae_feature_ablation"] = "sae_feature_ablation"
    mode: Literal["ablate"] = "ablate"
    feature: Index

    default_weights: ClassVar[Weights] = "raw"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("raw",)

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


@dataclass(frozen=True)
class RemoveFeature(SiteStep):
    """z -> z - strength f_i(z) d_i."""

    sae: SparseAutoencoder
    feature: int
    strength: float

    def change(self, x: Tensor) -> Tensor:
        return -self.strength * contribution(self.sae, x, self.feature)


class FeatureAblationEditor(SaeEditor):
    """Editor of kind sae_feature_ablation."""

    def plan(self, intervention: AblateFeature, runs: Runs) -> Edit | None:
        one = intervention
        run = runs.of(None, one.view)
        places = Places.of(run.group, one.position_role, skip_bos=True)
        step = RemoveFeature(
            "z", one.layer, None, places, self.saes[one.layer], one.feature, one.alpha
        )
        return edit_of(run, step, self.model.raw_weights)


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
