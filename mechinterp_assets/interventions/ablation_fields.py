"""What zero, mean and resample ablation of any site have in common.

Belongs here: the fields of ablations, the ablated value of an activation and the checks of its
references. Does not belong here: which activations a kind ablates (its file in kinds/), what modes
mean (ablation/modes.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import polars as pl
from pydantic import model_validator

from mechinterp_assets.ablation.modes import reference_of
from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import Draw, InterventionError

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs

AblationMode = Literal["zero", "mean_counterfactual", "resample_counterfactual", "resample_own"]


class Ablation(Intervention):
    """Fields of ablations: mode, and the seed of the draw of resampling."""

    mode: AblationMode
    seed: int | None = None

    @model_validator(mode="after")
    def _seed_belongs_to_resampling(self) -> "Ablation":
        if (self.seed is not None) != self.mode.startswith("resample"):
            raise ValueError("seed is given exactly for resampling, whose draw it decides")
        return self

    @property
    def verb(self) -> str:
        """Mode and seed as in ids."""
        return self.mode if self.seed is None else f"{self.mode}-{self.seed}"

    @property
    def drawn(self) -> Draw | None:
        return None if self.seed is None else Draw(self.mode == "resample_own", self.seed)

    @property
    def reference(self) -> str | None:
        return reference_of(self.mode)

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        from mechinterp_assets.ablation.references import AblationError, check_cells
        from mechinterp_assets.interventions.prompts import cells, common_form

        taken = [one for one in interventions if one.reference == "counterfactual_cell"]
        if not taken:
            return
        if context.reference_prompts is None:
            raise InterventionError(
                f"{taken[0].id}: {taken[0].mode} needs reference prompts: give the counterfactuals "
                "of the prompts (the ABC variant, for IOI)"
            )
        try:
            check_cells(common_form(prompts), cells(context.reference_prompts))
        except AblationError as error:
            raise InterventionError(f"{taken[0].id}: {error}") from None

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        import torch

        from mechinterp_assets.interventions.runs import weights_of
        from mechinterp_assets.interventions.sites import Blend, Places, at_places, edit_of

        run = runs.of(None, self.view)
        head = getattr(self, "head", None)
        places = Places.of(run.group, self.position_role)
        x = at_places(run.at(self.edited_site, self.layer), places, head)
        if self.mode == "zero":
            target = torch.zeros_like(x)
        elif self.drawn is not None:
            donor = runs.of(self.drawn, self.view)
            target = at_places(donor.at(self.edited_site, self.layer), places, head)
        else:
            mean = context.references.at(run.group.frame, self.edited_site, self.layer, self.view)
            target = at_places(mean.to(x), places, head)
        step = Blend(self.edited_site, self.layer, head, places, target, self.alpha)
        return edit_of(run, step, weights_of(context.model, self.view))
