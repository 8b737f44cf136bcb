"""Steering: a vector added to the residual stream.

Belongs here: kind steering. Does not belong here: where vectors come from.

x + alpha v, alpha in units of v. v is the decoder row of an SAE feature through W_O (raw weights;
the row has unit norm as trained), added to the layer's attention output, or a named vector
[d_model], added at `site`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from mechinterp_assets.interventions.sae_fields import check_saes
from mechinterp_assets.interventions.spec import Intervention, Site, residual_site
from mechinterp_assets.interventions.terms import Index, InterventionError, Role, Weights

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs

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

    @property
    def sae_layers(self) -> tuple[int, ...]:
        return () if self.feature is None else (self.layer,)

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        check_saes([one for one in interventions if one.feature is not None], context)
        width = context.model.config.d_model
        for one in interventions:
            name = one.direction
            if name is None:
                continue
            if name not in context.directions:
                raise InterventionError(
                    f"{one.id}: there is no direction {name!r} (given: "
                    f"{sorted(context.directions) or 'none'}); pass it in directions"
                )
            vector = context.directions[name]
            if tuple(vector.shape) != (width,) or not vector.isfinite().all():
                raise InterventionError(
                    f"{one.id}: direction {name!r} has shape {tuple(vector.shape)}; give a finite "
                    f"vector of d_model = {width} numbers"
                )

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        from mechinterp_assets.interventions.runs import weights_of
        from mechinterp_assets.interventions.sites import Add, Places, edit_of

        run, weights = runs.of(None, self.view), weights_of(context.model, self.view)
        W_O = weights.W_O[self.layer].flatten(0, 1)
        if self.feature is not None:
            vector = context.saes[self.layer].W_dec[self.feature].to(W_O) @ W_O
        else:
            vector = context.directions[str(self.direction)].to(W_O)
        places = Places.of(run.group, self.position_role)
        step = Add(self.site, self.layer, None, places, self.alpha * vector)
        return edit_of(run, step, weights)
