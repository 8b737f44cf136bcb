"""What zero, mean and resample ablation of any site have in common.

Belongs here: the ablated value of an activation and the checks of its references. Does not belong
here: which activations a kind ablates (heads.py, layers.py).

Zero: 0. Mean: the mean over reference prompts of the same cell (reference.py). Resample: the same
activation in the run of another prompt of the same cell, drawn with `seed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import torch
from pydantic import model_validator

from mechinterp_assets.interventions.prompts import cells
from mechinterp_assets.interventions.reference import ReferenceCache
from mechinterp_assets.interventions.runs import Edit, Runs, donor_key, weights_of
from mechinterp_assets.interventions.sites import Blend, Places, at_places, edit_of
from mechinterp_assets.interventions.spec import Intervention, InterventionError
from mechinterp_assets.model.language_model import LanguageModel

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


@dataclass(frozen=True)
class AblationEditor:
    """Editor of ablations; `references` are needed for mode "mean"."""

    model: LanguageModel
    references: ReferenceCache | None = None

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        means = [one for one in interventions if getattr(one, "mode", None) == "mean"]
        if not means:
            return
        known = None if self.references is None else self.references.cells
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

    def plan(self, intervention: Ablation, runs: Runs) -> Edit | None:
        one = intervention
        run = runs.of(None, one.view)
        head = getattr(one, "head", None)
        places = Places.of(run.group, one.position_role)
        x = at_places(run.at(one.edited_site, one.layer), places, head)
        if one.mode == "zero":
            target = torch.zeros_like(x)
        elif one.mode == "mean":
            assert self.references is not None
            mean = self.references.at(run.group.frame, one.edited_site, one.layer, one.view)
            target = at_places(mean, places, head)
        else:
            assert one.seed is not None
            donor = runs.of(donor_key(one.seed), one.view)
            target = at_places(donor.at(one.edited_site, one.layer), places, head)
        step = Blend(one.edited_site, one.layer, head, places, target, one.alpha)
        return edit_of(run, step, weights_of(self.model, one.view))
