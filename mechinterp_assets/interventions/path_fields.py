"""Edits whose effect is let through to chosen receivers alone: their fields.

Belongs here: receivers as data. Does not belong here: what is sent (its kind's file in kinds/), the
inputs that receivers are given (receivers.py).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self, TypedDict

import polars as pl
from pydantic import model_validator

from mechinterp_assets.interventions.spec import Intervention, Site
from mechinterp_assets.interventions.terms import (
    ALL_POSITIONS,
    Head,
    Heads,
    InterventionError,
    Role,
    heads_text,
)
from mechinterp_assets.model.shape import ModelShape

if TYPE_CHECKING:
    from mechinterp_assets.interventions.edit_context import EditContext

Inputs = Literal["q", "k", "v", "logits"]


class Reading(TypedDict):
    """Keyword arguments of receivers.path_edit."""

    receiver: Inputs
    receivers: Sequence[Head] | None
    read_role: str
    via_mlp: bool
    alpha: float


class PathIntervention(Intervention):
    """Fields of edits that are seen by receivers alone.

    receiver: q, k or v of the heads `receivers` at `receiver_role`, or "logits", which has no
    heads and is read at END. via_mlp: MLPs on the way are recomputed (True) or frozen (False).
    """

    receiver: Inputs
    receivers: Heads | None = None
    receiver_role: Role | None = None
    via_mlp: bool = False

    @model_validator(mode="after")
    def _receivers_fit(self) -> "PathIntervention":
        if self.receiver == "logits":
            if self.receivers is not None or self.receiver_role is not None:
                raise ValueError(
                    "the logits are read at END; leave receivers and receiver_role out"
                )
            return self
        if self.receivers is None:
            raise ValueError(f"receiver {self.receiver!r} needs receivers, [layer, head] pairs")
        if len(set(self.receivers)) < len(self.receivers):
            raise ValueError(f"receivers {heads_text(self.receivers)} are not distinct")
        if early := [head for head in self.receivers if head[0] <= self.first_sender]:
            raise ValueError(
                f"receiver {heads_text(early)} does not lie behind layer {self.first_sender}, "
                "from which is sent; a path goes from an earlier layer to a later one"
            )
        return self

    @property
    @abstractmethod
    def first_sender(self) -> int:
        """Earliest layer from which something is sent."""

    @property
    def read_role(self) -> str:
        """Role of the positions at which receivers read."""
        return "END" if self.receiver == "logits" else self.receiver_role or ALL_POSITIONS

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.position_role, self.read_role)

    @property
    def edited_site(self) -> str:
        return self.receiver if self.receiver == "logits" else f"{self.receiver}_input"

    @property
    def to(self) -> str:
        """Receivers as in ids."""
        via = ":mlp" if self.via_mlp else ""
        if self.receivers is None:
            return f"logits{via}"
        return f"{self.receiver}:{heads_text(self.receivers)}:{self.read_role}{via}"

    @property
    def sites(self) -> tuple[Site, ...]:
        if self.receivers is None:
            return (Site(what="logits", layer=0),)
        return tuple(
            Site(what=f"{self.receiver}_input", layer=layer, head=head, role=self.read_role)
            for layer, head in self.receivers
        )

    @property
    def columns(self) -> dict[str, object]:
        return {
            "receivers": None if self.receivers is None else heads_text(self.receivers),
            "receiver_role": self.read_role,
        }

    @property
    def reading(self) -> "Reading":
        """What receivers read and where, as receivers.path_edit takes it."""
        return {
            "receiver": self.receiver,
            "receivers": self.receivers,
            "read_role": self.read_role,
            "via_mlp": self.via_mlp,
            "alpha": self.alpha,
        }

    def check_shape(self, shape: ModelShape) -> None:
        super().check_shape(shape)
        if self.receivers is None:
            return
        self.check_heads("receivers", self.receivers, shape)

    def shared_with(self, shape: ModelShape) -> tuple[Head, ...]:
        """Heads of the receivers' query groups that are no receivers, for keys and values."""
        if self.receivers is None or self.receiver == "q":
            return ()
        everyone = {
            (layer, other) for layer, head in self.receivers for other in shape.query_group(head)
        }
        return tuple(sorted(everyone - set(self.receivers)))

    def sites_in(self, shape: ModelShape) -> tuple[Site, ...]:
        """A key or value that heads share is one site, whichever of them is named."""
        if self.receiver not in ("k", "v"):
            return self.sites
        # Receivers may be of one group: one intervention edits what they share once.
        shared = [
            site.model_copy(update={"head": shape.query_group(site.head)[0]})
            for site in self.sites
            if site.head is not None
        ]
        return tuple(dict.fromkeys(shared))

    @classmethod
    def check(
        cls, interventions: Sequence[Self], prompts: pl.DataFrame, context: "EditContext"
    ) -> None:
        """What paths take for granted of a model, on its own MLPs and logits."""
        for one in interventions:
            if one.via_mlp and (gap := context.mlp_gap(one.view, prompts)) is not None:
                raise InterventionError(
                    f"{one.id}: {gap}, so that it cannot be recomputed with heads frozen; use "
                    "via_mlp: false"
                )
            if one.receiver == "logits" and (
                (gap := context.unembedding_gap(one.view, prompts)) is not None
            ):
                raise InterventionError(
                    f"{one.id}: {gap}; choose heads as receivers, or head_ablation"
                )

    def check_heads(self, field: str, heads: Sequence[Head], shape: ModelShape) -> None:
        """Raise InterventionError for heads that the model does not have."""
        for layer, head in heads:
            self.check_indices(
                [(f"{field} layer", layer, shape.n_layers), (f"{field} head", head, shape.n_heads)]
            )
