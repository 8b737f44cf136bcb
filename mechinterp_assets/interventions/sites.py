"""Changing an activation at chosen places.

Belongs here: where an edit acts (rows and positions), reading and writing a site's activation, the
common ways to change one, and how far that moves the residual stream. Does not belong here: which
places and values a kind of intervention takes.

A place is a row and a position. An activation at places is [place, d_model], for z [place, d_head]
of one head or [place, head, d_head] of all.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from mechinterp_assets.ablation.modes import ALL_BUT_BOS
from mechinterp_assets.ablation.replacements import change
from mechinterp_assets.interventions.prompts import PromptGroup
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runs import (
    CleanRun,
    Edit,
    LiveRun,
    earliest,
    hook_name,
)
from mechinterp_assets.interventions.terms import EVERYWHERE
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.weights import Weights

# Where the residual stream is compared with and without the edit, by edited site.
COMPARED_AT = {
    "z": "resid_mid",
    "attn_out": "resid_mid",
    "resid_mid": "resid_mid",
    "mlp_out": "resid_post",
    "resid_post": "resid_post",
    "resid_pre": "resid_pre",
}


@dataclass(frozen=True)
class Places:
    """Where an edit acts: row, position [place]; rows are those of the edit."""

    row: Tensor
    position: Tensor

    @classmethod
    def of(cls, group: PromptGroup, role: str, *, skip_bos: bool = False) -> "Places":
        """The position of a role in every row, or all positions (without position 0)."""
        n_rows, length = group.token_ids.shape
        device = group.token_ids.device
        rows = torch.arange(n_rows, device=device)
        if role not in EVERYWHERE:
            return cls(rows, group.positions[role])
        positions = torch.arange(int(skip_bos or role == ALL_BUT_BOS), length, device=device)
        return cls(rows.repeat_interleave(len(positions)), positions.repeat(n_rows))

    def select(self, keep: Tensor) -> tuple["Places", Tensor]:
        """Places of the rows `keep`, renumbered from 0, and their indices among these."""
        new_row = torch.full((int(self.row.max()) + 1,), -1, device=self.row.device)
        new_row[keep] = torch.arange(len(keep), device=self.row.device)
        row = new_row[self.row]
        kept = (row >= 0).nonzero()[:, 0]
        return Places(row[kept], self.position[kept]), kept


@dataclass(frozen=True)
class SiteStep(ABC):
    """x -> x + change(x) at places of one site; subclasses say what is added.

    head: of z, q, k and v; None for all heads of z and for sites without heads. resid_mid is edited
    through what attention adds to it.
    """

    site: str
    layer: int
    head: int | None
    places: Places

    @abstractmethod
    def change(self, x: Tensor) -> Tensor:
        """What is added to x [place, ...]."""

    def kept(self, places: Tensor) -> dict[str, Any]:
        """Fields that belong to places, for these places alone."""
        return {}

    @property
    def first_layer(self) -> int:
        return self.layer

    @property
    def first_position(self) -> int:
        return earliest(self.places.position)

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        return (("resid_pre", self.layer),) if self.site == "resid_mid" else ()

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        position = self.places.position - live.first
        where = (self.places.row + rows.start, position)

        def hook(value: Tensor, hook: Any) -> Tensor:
            if self.head is not None:
                value[(*where, self.head)] += self.change(value[(*where, self.head)])
            elif self.site == "resid_mid":
                before = live.at("resid_pre", self.layer, rows)
                before = before[self.places.row, position]
                value[where] += self.change(before + value[where])
            else:
                value[where] += self.change(value[where])
            return value

        site = "attn_out" if self.site == "resid_mid" else self.site
        return [(hook_name(site, self.layer), hook)]

    def select(self, keep: Tensor) -> Self:
        places, kept = self.places.select(keep)
        return replace(self, places=places, **self.kept(kept))


@dataclass(frozen=True)
class Blend(SiteStep):
    """x -> x + strength (target - x); target [place, ...]."""

    target: Tensor
    strength: float

    def change(self, x: Tensor) -> Tensor:
        return change(x, self.target, self.strength)

    def kept(self, places: Tensor) -> dict[str, Any]:
        return {"target": self.target[places]}


@dataclass(frozen=True)
class Shift(SiteStep):
    """x -> x + by; by [place, ...]."""

    by: Tensor

    def change(self, x: Tensor) -> Tensor:
        return self.by

    def kept(self, places: Tensor) -> dict[str, Any]:
        return {"by": self.by[places]}


@dataclass(frozen=True)
class Scale(SiteStep):
    """x -> factor x; factor broadcasts over x [place, ...]."""

    factor: Tensor

    def change(self, x: Tensor) -> Tensor:
        return (self.factor - 1.0) * x


@dataclass(frozen=True)
class Add(SiteStep):
    """x -> x + vector, the same [d_model] everywhere."""

    vector: Tensor

    def change(self, x: Tensor) -> Tensor:
        return self.vector.expand_as(x)


def at_places(value: Tensor, places: Places, head: int | None = None) -> Tensor:
    """value [row, position, ...] at places, of one head where it is given."""
    own = value[places.row, places.position]
    return own if head is None else own[:, head]


def edit_of(run: CleanRun, step: SiteStep, weights: Weights) -> Edit:
    """The edit of one step over all rows of a run, with its cosine and norm ratio."""
    n_rows = len(run.group.prompt)
    if step.site == "resid_mid":
        x = at_places(run.at("resid_mid", step.layer), step.places)
    else:
        x = at_places(run.at(step.site, step.layer), step.places, step.head)
    change = step.change(x)
    idle = torch.ones(n_rows, dtype=torch.bool, device=run.logits.device)
    idle[step.places.row[change.flatten(1).ne(0).any(1)]] = False
    if step.site == "z":
        W_O = weights.W_O[step.layer]
        if step.head is not None:
            change = change @ W_O[step.head]
        else:
            change = torch.einsum("phk,hkd->pd", change, W_O)
    before = at_places(run.at(COMPARED_AT[step.site], step.layer), step.places)
    cosine, ratio = cosine_and_norm_ratio(before, before + change, step.places.row, n_rows)
    members = torch.arange(n_rows, device=run.logits.device)
    return Edit(run, members, (step,), cosine, ratio, idle=idle)
