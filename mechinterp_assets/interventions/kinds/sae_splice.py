"""Splicing SAE reconstructions into the forward pass.

Belongs here: kind sae_splice and its families: one layer, a cross-section of layers. Does not
belong here: CE loss recovered on text (sae/evaluation.py).

Kissane et al. 2024 (section 4.1, Fig. 14, 15): x' = x_hat, the error is dropped. Several layers at
once are a set of splices; a later layer's SAE reads what the earlier splice left. Reference "zero"
zeroes z of the layer at the same positions, "zero_all" at all of them, "mean" puts the mean over
reference prompts (ABC) there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from mechinterp_assets.interventions.kinds.layer_ablation import AblateLayer
from mechinterp_assets.interventions.runs import Edit, Runs
from mechinterp_assets.interventions.saes import SaeEditor
from mechinterp_assets.interventions.sites import Places, SiteStep, edit_of
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Intervention,
    InterventionSet,
    Planned,
    ReferenceMode,
    Site,
    Weights,
)
from mechinterp_assets.sae.base import SparseAutoencoder


class SpliceSae(Intervention):
    """z of `layer` at `position_role` ("all": every position but BOS) by its reconstruction.

    z + alpha (x_hat - z). cosine and norm ratio: residual stream after the layer's attention.
    """

    kind: Literal["sae_splice"] = "sae_splice"
    mode: Literal["splice"] = "splice"
    reference: ReferenceMode | None = None

    default_weights: ClassVar[Weights] = "raw"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("raw",)

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
    def reference_edit(self) -> Intervention | None:
        if self.reference is None:
            return None
        return AblateLayer(
            site="z",
            mode="mean" if self.reference == "mean" else "zero",
            layer=self.layer,
            position_role=ALL_POSITIONS if self.reference == "zero_all" else self.position_role,
            weights="raw",
            watch=self.watch,
        )


@dataclass(frozen=True)
class Reconstruct(SiteStep):
    """z -> z + strength (x_hat(z) - z)."""

    sae: SparseAutoencoder
    strength: float

    def change(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        x_hat = self.sae(flat.to(self.sae.W_enc.dtype)).to(x.dtype)
        return self.strength * (x_hat - flat).reshape(x.shape)


class SpliceEditor(SaeEditor):
    """Editor of kind sae_splice."""

    def plan(self, intervention: SpliceSae, runs: Runs) -> Edit | None:
        one = intervention
        run = runs.of(None, one.view)
        places = Places.of(run.group, one.position_role, skip_bos=True)
        step = Reconstruct("z", one.layer, None, places, self.saes[one.layer], one.alpha)
        return edit_of(run, step, self.model.raw_weights)


def splices(
    groups: Iterable[Sequence[int]],
    *,
    position_role: str = ALL_POSITIONS,
    reference: ReferenceMode | None = None,
) -> list[Planned]:
    """A splice of every group of layers: one alone, several as a set."""
    planned: list[Planned] = []
    for layers in groups:
        own = [
            SpliceSae(layer=layer, position_role=position_role, reference=reference)
            for layer in sorted(layers)
        ]
        if len(own) == 1:
            planned.append(own[0])
        else:
            versus = "" if reference is None else f":vs-{reference}"
            name = f"splice:{'+'.join(f'L{one.layer}' for one in own)}:{position_role}{versus}"
            planned.append(InterventionSet(name=name, members=tuple(own)))
    return planned
