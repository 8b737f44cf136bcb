"""Splicing SAE reconstructions into the forward pass.

Belongs here: kind sae_splice. Does not belong here: groups of layers at once (experiments.py), CE
loss recovered on text (sae/evaluation.py).

Kissane et al. 2024 (App. K, Fig. 14, 15): x' = x_hat, the error is dropped. Several layers at once
are a set of splices; a later layer's SAE reads what the earlier splice left. At one position it is
the ablation of the error term there (Fig. 16). versus "zero" zeroes z of the layer at the same
positions, "zero_all" at all of them, "mean_counterfactual" puts the mean over reference prompts
(ABC) there.
"""

from typing import TYPE_CHECKING, Literal

from mechinterp_assets.interventions.kinds.layer_ablation import AblateLayer
from mechinterp_assets.interventions.sae_fields import SaeIntervention
from mechinterp_assets.interventions.spec import Intervention, Site
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Versus

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs


class SpliceSae(SaeIntervention):
    """z of `layer` at `position_role` ("all": every position but BOS) by its reconstruction.

    z + alpha (x_hat - z). cosine and norm ratio: residual stream after the layer's attention.
    """

    kind: Literal["sae_splice"] = "sae_splice"
    mode: Literal["splice"] = "splice"
    versus: Versus | None = None

    @property
    def edited_site(self) -> str:
        return "z"

    @property
    def label(self) -> str:
        return f"{self.mode}:sae:L{self.layer}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        return (
            Site(what="z", layer=self.layer, role=self.position_role),
            Site(what="SAE feature", layer=self.layer, role=self.position_role),
        )

    @property
    def columns(self) -> dict[str, object]:
        return {"error_kept": False}

    @property
    def ablated_edit(self) -> Intervention | None:
        if self.versus is None:
            return None
        return AblateLayer(
            site="z",
            mode="zero" if self.versus == "zero_all" else self.versus,
            layer=self.layer,
            position_role=ALL_POSITIONS if self.versus == "zero_all" else self.position_role,
            weights="raw",
            watch=self.watch,
        )

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.saes import Reconstruct
        from mechinterp_assets.interventions.sites import Places, edit_of

        run = runs.of(None, self.view)
        places = Places.of(run.group, self.position_role, skip_bos=True)
        step = Reconstruct("z", self.layer, None, places, context.saes[self.layer], self.alpha)
        return edit_of(run, step, context.model.raw_weights)
