"""What SAE kinds have in common as data.

Belongs here: the weights they run on, the SAEs they need, and the checks of these. Does not belong
here: what each kind does with features (its file in kinds/), encoding (saes.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl

from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import InterventionError, Weights

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext


class SaeIntervention(Intervention):
    """An edit of z by the SAE of `layer`, on raw weights."""

    default_weights: ClassVar[Weights] = "raw"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("raw",)

    @property
    def sae_layers(self) -> tuple[int, ...]:
        return (self.layer,)

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        check_saes(interventions, context)


def check_saes(interventions: Sequence[Intervention], context: "EditContext") -> None:
    """Raise InterventionError for a layer without SAE, another width, an unknown feature."""
    saes, width = context.saes, context.model.config.d_z
    for one in interventions:
        if one.layer not in saes:
            raise InterventionError(
                f"{one.id}: there is no SAE of layer {one.layer} (given: "
                f"{sorted(saes) or 'none'}); train it or choose another layer"
            )
        sae = saes[one.layer]
        if sae.d_in != width:
            raise InterventionError(
                f"{one.id}: the SAE of layer {one.layer} takes {sae.d_in} dimensions, but z "
                f"has {width}; give an SAE of this model"
            )
        feature = getattr(one, "feature", None)
        if feature is not None and feature >= sae.d_sae:
            raise InterventionError(
                f"{one.id}: feature {feature} does not exist; the SAE of layer {one.layer} "
                f"has features 0..{sae.d_sae - 1}"
            )
