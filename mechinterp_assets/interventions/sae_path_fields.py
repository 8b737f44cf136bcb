"""Paths of a part of what an SAE reads: what they have in common.

Belongs here: fields and the edit of paths that start at an SAE's layer. Does not belong here: which
part is removed (its kind's file in kinds/), the frozen pass (frozen.py), what receivers are given
(receivers.py).

The part is taken out of z at the SAE's layer, all other heads are frozen, MLPs recomputed or
frozen, and only the receivers' q, k or v (S-inhibition heads' values, say) see it. Raw weights.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl

from mechinterp_assets.interventions.path_fields import PathIntervention
from mechinterp_assets.interventions.sae_fields import check_saes
from mechinterp_assets.interventions.terms import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from mechinterp_assets.interventions.edit_context import EditContext
    from mechinterp_assets.interventions.runs import Edit, Runs
    from mechinterp_assets.sae.base import SparseAutoencoder


class SaePath(PathIntervention):
    """A part of z of `layer` at `position_role`, removed as `receivers` read it."""

    default_weights: ClassVar[Weights] = "raw"
    possible_weights: ClassVar[tuple[Weights, ...]] = ("raw",)

    @property
    def first_sender(self) -> int:
        return self.layer

    @property
    def read_role(self) -> str:
        return "END" if self.receiver == "logits" else self.receiver_role or self.position_role

    @property
    def sae_layers(self) -> tuple[int, ...]:
        return (self.layer,)

    @abstractmethod
    def removed(self, sae: "SparseAutoencoder", z: "Tensor") -> "Tensor":
        """What is taken out of z [place, head, d_head]."""

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        super().check(interventions, prompts, context)
        check_saes(interventions, context)

    def plan(self, runs: "Runs", context: "EditContext") -> "Edit | None":
        import torch

        from mechinterp_assets.interventions.receivers import path_edit, sent
        from mechinterp_assets.interventions.runs import Edit
        from mechinterp_assets.interventions.sites import Places, at_places

        run = runs.of(None, self.view)
        places = Places.of(run.group, self.position_role, skip_bos=True)
        z = at_places(run.z[self.layer], places)
        removed = -self.removed(context.saes[self.layer], z)
        n_rows, device = len(run.group.prompt), z.device
        idle = torch.ones(n_rows, dtype=torch.bool, device=device)
        idle[places.row[removed.flatten(1).ne(0).any(1)]] = False
        if bool(idle.all()):
            ones = torch.ones(n_rows, dtype=torch.float64, device=device)
            return Edit(run, torch.arange(n_rows, device=device), (), ones, ones, idle=idle)
        change = sent(context.model, run, self.layer, removed, places)
        edit = path_edit(context.model, run, {self.layer: change}, **self.reading)
        return replace(edit, idle=idle)
