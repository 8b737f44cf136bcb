"""Steering: a vector added to the residual stream.

Belongs here: kind steering. Does not belong here: where vectors come from.

x + alpha v, alpha in units of v. v is the decoder row of an SAE feature through W_O (raw weights;
the row has unit norm as trained), added to the layer's attention output, or a named vector
[d_model], added at `site`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import polars as pl
import torch
from pydantic import model_validator
from torch import Tensor

from mechinterp_assets.interventions.runs import Edit, Runs, weights_of
from mechinterp_assets.interventions.saes import SaeEditor
from mechinterp_assets.interventions.sites import Add, Places, edit_of
from mechinterp_assets.interventions.spec import (
    Index,
    Intervention,
    InterventionError,
    Role,
    Site,
    Weights,
    residual_site,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

SteeringSite = Literal["attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post"]


class Steer(Intervention):
    """alpha v is added at `site` of `layer` at `position_role`.

    Exactly one of feature (of the SAE of `layer`; site attn_out) and direction, the name of a
    vector. cosine and norm ratio: residual stream at the site.
    """

    kind: Literal["steering"] = "steering"
    site: SteeringSite = "attn_out"
    feature: Index | None = None
    direction: Role | None = None

    default_weights: ClassVar[Weights] = "raw"

    @model_validator(mode="after")
    def _one_vector(self) -> "Steer":
        if (self.feature is None) == (self.direction is None):
            raise ValueError("give exactly one of feature and direction")
        if self.feature is not None and self.site != "attn_out":
            raise ValueError(f"a feature writes at site 'attn_out', not {self.site!r}")
        return self

    @property
    def edited_site(self) -> str:
        return self.site

    @property
    def label(self) -> str:
        if self.feature is not None:
            return f"steer:sae:L{self.layer}F{self.feature}:{self.position_role}"
        return f"steer:{self.direction}:{self.site}:L{self.layer}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Vectors add up: only the same one at the same place is one site."""
        site = residual_site(self.site, self.layer, self.position_role)
        vector = self.direction if self.feature is None else f"feature {self.feature}"
        return (site.model_copy(update={"what": f"{vector} added to {site.what}"}),)

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.site == "resid_post" else (self.site,)


@dataclass(frozen=True)
class SteeringEditor:
    """Editor of kind steering: SAEs by layer, and named vectors [d_model]."""

    model: LanguageModel
    saes: Mapping[int, SparseAutoencoder] = field(default_factory=dict)
    directions: Mapping[str, Tensor] = field(default_factory=dict)

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        features = [one for one in interventions if getattr(one, "feature", None) is not None]
        SaeEditor(self.model, self.saes).check(features, prompts)
        width = self.model.config.d_model
        for one in interventions:
            name = getattr(one, "direction", None)
            if name is None:
                continue
            if name not in self.directions:
                raise InterventionError(
                    f"{one.id}: there is no direction {name!r} (given: "
                    f"{sorted(self.directions) or 'none'}); pass it in directions"
                )
            vector = self.directions[name]
            if tuple(vector.shape) != (width,) or not torch.isfinite(vector).all():
                raise InterventionError(
                    f"{one.id}: direction {name!r} has shape {tuple(vector.shape)}; give a finite "
                    f"vector of d_model = {width} numbers"
                )

    def plan(self, intervention: Steer, runs: Runs) -> Edit | None:
        one = intervention
        run = runs.of(None, one.view)
        weights = weights_of(self.model, one.view)
        if one.feature is not None:
            row = self.saes[one.layer].W_dec[one.feature]
            vector = row.to(weights.W_O) @ weights.W_O[one.layer].flatten(0, 1)
        else:
            vector = self.directions[str(one.direction)].to(weights.W_O)
        places = Places.of(run.group, one.position_role)
        step = Add(one.site, one.layer, None, places, one.alpha * vector)
        return edit_of(run, step, weights)
