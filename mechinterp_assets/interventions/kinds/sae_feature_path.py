"""Feature path patching: a feature removed only as chosen readers see it.

Belongs here: kind sae_feature_path. Does not belong here: the frozen pass (frozen.py) and what
receivers are given (receivers.py).

Kissane et al. 2024 (section 4.2, Fig. 16): f_i d_i is taken out of z at the feature's layer, all
other heads are frozen, MLPs recomputed or frozen, and only the receivers' q, k or v (S-inhibition
heads' values, say) see it. Raw weights.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import polars as pl

from mechinterp_assets.interventions.path_fields import PathIntervention
from mechinterp_assets.interventions.sae_fields import check_saes
from mechinterp_assets.interventions.terms import Index, Weights

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


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

    @property
    def sae_layers(self) -> tuple[int, ...]:
        return (self.layer,)

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        super().check(interventions, prompts, context)
        check_saes(interventions, context)

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.receivers import path_edit, sent
        from mechinterp_assets.interventions.saes import contribution
        from mechinterp_assets.interventions.sites import Places, at_places

        run = runs.of(None, self.view)
        places = Places.of(run.group, self.position_role, skip_bos=True)
        z = at_places(run.z[self.layer], places)
        removed = -contribution(context.saes[self.layer], z, self.feature)
        change = sent(context.model, run, self.layer, removed, places)
        return path_edit(context.model, run, {self.layer: change}, **self.reading)
