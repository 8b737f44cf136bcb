"""Edits whose effect is let through to chosen receivers alone.

Belongs here: receivers as data, and the steps that give receivers the inputs they would have had.
Does not belong here: what is sent (path_patching.py, sae_paths.py), the frozen pass (frozen.py).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mechinterp_assets.interventions.frozen import frozen_residual, receiver_inputs
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runs import CleanRun, Edit, weights_of
from mechinterp_assets.interventions.sites import Blend, Places, Shift, SiteStep, at_places
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Head,
    Heads,
    Intervention,
    Role,
    Site,
    check_shared_keys,
    heads_text,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape

Inputs = Literal["q", "k", "v", "logits"]


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
    def first_sender(self) -> int:
        """Earliest layer from which something is sent."""
        raise NotImplementedError

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

    def check_shape(self, shape: ModelShape) -> None:
        super().check_shape(shape)
        if self.receivers is None:
            return
        self.check_heads("receivers", self.receivers, shape)
        check_shared_keys(self.id, self.receiver, [h for _, h in self.receivers], shape)

    def check_heads(self, field: str, heads: Sequence[Head], shape: ModelShape) -> None:
        """Raise InterventionError for heads that the model does not have."""
        for layer, head in heads:
            self.check_indices(
                [(f"{field} layer", layer, shape.n_layers), (f"{field} head", head, shape.n_heads)]
            )


def path_edit(
    model: LanguageModel, run: CleanRun, one: PathIntervention, changes: Mapping[int, Tensor]
) -> Edit:
    """Receivers read the residual stream in which `changes` were made with all heads frozen.

    Queries, keys and values are set to what that gives, whatever earlier receivers did (Wang et
    al. 2022); before the unembedding the difference is added, so that paths to heads and the one to
    the logits can be taken together.

    changes: layer -> what is added to its attention output [row, position, d_model], of the run
    that is edited. cosine and norm ratio are those of the residual stream that receivers read.
    """
    places = Places.of(run.group, one.read_role)
    residual = frozen_residual(model, run, changes, places, via_mlp=one.via_mlp)
    n_layers, n_rows = model.config.n_layers, len(run.group.prompt)
    steps: list[SiteStep] = []
    before: list[Tensor] = []
    after: list[Tensor] = []
    if one.receivers is None:
        after.append(residual[n_layers])
        before.append(at_places(run.last, places))
        moved = one.alpha * (after[0] - before[0])
        steps.append(Shift("final", n_layers, None, places, moved))
    else:
        layers = dict.fromkeys(layer for layer, _ in one.receivers)
        inputs = {
            layer: receiver_inputs(model, run, layer, residual[layer], one.receiver)
            for layer in layers
        }
        for layer, head in one.receivers:
            target = inputs[layer][:, head]
            steps.append(Blend(one.receiver, layer, head, places, target, one.alpha))
        for layer in layers:
            before.append(at_places(run.resid_pre[layer], places))
            after.append(residual[layer])
    edited = [old + one.alpha * (new - old) for old, new in zip(before, after, strict=True)]
    rows = places.row.repeat(len(before))
    cosine, ratio = cosine_and_norm_ratio(torch.cat(before), torch.cat(edited), rows, n_rows)
    members = torch.arange(n_rows, device=run.logits.device)
    return Edit(run, members, tuple(steps), cosine, ratio)


def sent(model: LanguageModel, run: CleanRun, layer: int, dz: Tensor, places: Places) -> Tensor:
    """Change of a layer's attention output [row, position, d_model]; dz [place, head, d_head]."""
    change = torch.einsum("phk,hkd->pd", dz, weights_of(model, run.view).W_O[layer])
    out = torch.zeros_like(run.resid_pre[layer])
    out[places.row, places.position] = change
    return out
