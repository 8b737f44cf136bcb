"""Feature path patching: a feature removed only as chosen readers see it.

Belongs here: kind sae_feature_path. Does not belong here: the frozen pass (frozen.py) and receivers
(paths.py).

Kissane et al. 2024 (section 4.2, Fig. 16): f_i d_i is taken out of z at the feature's layer, all
other heads are frozen, MLPs recomputed or frozen, and only the receivers' q, k or v (S-inhibition
heads' values, say) see it. Raw weights.
"""

from typing import ClassVar, Literal

from mechinterp_assets.interventions.path_fields import PathIntervention, path_edit, sent
from mechinterp_assets.interventions.runs import Edit, Runs
from mechinterp_assets.interventions.saes import SaeEditor, contribution
from mechinterp_assets.interventions.sites import Places, at_places
from mechinterp_assets.interventions.spec import Index, Weights


class FeaturePath(PathIntervention):
    """Feature `feature` of the SAE of `layer` at `position_role`, as `receivers` read it.

    receiver_role is position_role unless given: with all heads frozen nothing else changes.
    """

    kind: Literal["sae_feature_path"] = "sae_feature_path"
    mode: Literal["ablate"] = "ablate"
    feature: Index

    default_weights: ClassVar[Weights] = "raw"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("raw",)

    @property
    def first_sender(self) -> int:
        return self.layer

    @property
    def read_role(self) -> str:
        return "END" if self.receiver == "logits" else self.receiver_role or self.position_role

    @property
    def label(self) -> str:
        feature = f"L{self.layer}F{self.feature}:{self.position_role}"
        return f"{self.mode}:path:{feature}>{self.to}"

    @property
    def columns(self) -> dict[str, object]:
        return {**super().columns, "error_kept": True}


class FeaturePathEditor(SaeEditor):
    """Editor of kind sae_feature_path."""

    def plan(self, intervention: FeaturePath, runs: Runs) -> Edit | None:
        one = intervention
        run = runs.of(None, one.view)
        places = Places.of(run.group, one.position_role, skip_bos=True)
        z = at_places(run.z[one.layer], places)
        removed = -contribution(self.saes[one.layer], z, one.feature)
        change = sent(self.model, run, one.layer, removed, places)
        return path_edit(self.model, run, one, {one.layer: change})
