"""What zero, mean and resample ablation of any site have in common.

Belongs here: the fields of ablations, the ablated value of an activation and the checks of its
references. Does not belong here: which activations a kind ablates (its file in kinds/).

Zero: 0. Mean: the mean over reference prompts of the same cell (reference.py). Resample: the same
activation in the run of another prompt of the same cell, drawn with `seed`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import polars as pl
from pydantic import model_validator

from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import InterventionError

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs

AblationMode = Literal["zero", "mean", "resample"]


class Ablation(Intervention):
    """Fields of ablations: mode, and the seed of the draw of resampling."""

    mode: AblationMode
    seed: int | None = None

    @model_validator(mode="after")
    def _seed_belongs_to_resampling(self) -> "Ablation":
        if (self.seed is not None) != (self.mode == "resample"):
            raise ValueError("seed is given exactly for mode 'resample', whose draw it decides")
        return self

    @property
    def verb(self) -> str:
        """Mode and seed as in ids."""
        return self.mode if self.seed is None else f"{self.mode}-{self.seed}"

    @property
    def donor_seed(self) -> int | None:
        return self.seed

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        from mechinterp_assets.interventions.prompts import cells

        means = [one for one in interventions if one.mode == "mean"]
        if not means:
            return
        known = context.references.cells
        if known is None:
            raise InterventionError(
                f"{means[0].id}: mean ablation needs reference prompts: give the ABC variant of "
                "the prompts"
            )
        lacking = [cell for cell in cells(prompts) if cell not in known]
        if lacking:
            raise InterventionError(
                f"{len(lacking)} prompts have no cell in the mean reference (template "
                f"{lacking[0][0]}, {lacking[0][1] or 'no name order'}, {lacking[0][2]} tokens); "
                "make the reference from their ABC variant"
            )

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        import torch

        from mechinterp_assets.interventions.runs import donor_key, weights_of
        from mechinterp_assets.interventions.sites import Blend, Places, at_places, edit_of

        run = runs.of(None, self.view)
        head = getattr(self, "head", None)
        places = Places.of(run.group, self.position_role)
        x = at_places(run.at(self.edited_site, self.layer), places, head)
        if self.mode == "zero":
            target = torch.zeros_like(x)
        elif self.mode == "mean":
            mean = context.references.at(run.group.frame, self.edited_site, self.layer, self.view)
            target = at_places(mean, places, head)
        else:
            assert self.seed is not None
            donor = runs.of(donor_key(self.seed), self.view)
            target = at_places(donor.at(self.edited_site, self.layer), places, head)
        step = Blend(self.edited_site, self.layer, head, places, target, self.alpha)
        return edit_of(run, step, weights_of(context.model, self.view))
