"""Edits of traced edges as FC24's published code (SAD) makes them.

Belongs here: the step of modes sad_ablate and sad_boost of kind edge. Does not belong here: this
project's own edit of an edge, and where edges are edited (traced_edges.py).

With o = z W_O of the upstream head at the edited position, in the unedited run,
    h = (U_S U_S^T [o; 1]) without its last coordinate, less its mean         (source side: V_S)
Differences from modes ablate and boost:
  - U_S U_S^T takes the place of the orthogonal projector, though the vectors without their last
    coordinate are not orthonormal, and reads the appended 1, so that h is not 0 where o is;
  - h is centred, as LayerNorm would do;
  - o and the scale of the reader's norm are those of the unedited run, also within a set of edges;
  - local: q, k and v of the reader are replaced, at all positions, by those of its unedited input
    -+ h / s. Within a set nothing of another edge reaches the reader otherwise;
  - edges of a set that edit the same place are summed.
Source: Franco & Crovella 2024 (arXiv 2410.00340), published code.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.interventions.runs import CleanRun, LiveRun, earliest
from mechinterp_assets.interventions.sites import Places
from mechinterp_assets.interventions.traced_edges import EdgePlaces
from mechinterp_assets.model.hooks import Hook, NamedHook
from mechinterp_assets.model.language_model import LanguageModel

RECEIVERS = ("q", "k", "v")


@dataclass(frozen=True)
class SadEdgeStep:
    """x -> x + delta [place, d_model] at (row, position): the upstream layer's attention output, or
    (local) the reader's normalised input as its q, k and v see it, unedited but for these edges.
    """

    model: LanguageModel
    upstream_layer: int
    layer: int
    head: int
    is_local: bool
    row: Tensor
    position: Tensor
    delta: Tensor

    @property
    def first_layer(self) -> int:
        return self.layer if self.is_local else self.upstream_layer

    @property
    def first_position(self) -> int:
        return 0 if self.is_local else earliest(self.position)

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        return ()

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        row, position = self.row + rows.start, self.position - live.first

        def edit_attn_out(attn_out: Tensor, hook: Any) -> Tensor:
            attn_out[row, position] += self.delta
            return attn_out

        def edit_projection(name: str) -> Hook:
            weights, head = self.model.weights, self.head
            if name != "q":
                head = self.model.config.key_value_head(self.head)
            W = {"q": weights.W_Q, "k": weights.W_K, "v": weights.W_V}[name][self.layer, self.head]
            b = {"q": weights.b_Q, "k": weights.b_K, "v": weights.b_V}[name][self.layer, self.head]

            def edit(value: Tensor, hook: Any) -> Tensor:
                # The first edge of a set into this reader takes its input back to the unedited one.
                once = (name, self.layer, head, rows.start)
                if once not in live.frozen:
                    live.frozen.add(once)
                    clean = normalised_input(self.model, live.clean, self.layer)
                    value[rows, :, head] = clean[live.index[rows], live.first :] @ W + b
                value[row, position, head] += self.delta @ W
                return value

            return edit

        if not self.is_local:
            return [(f"blocks.{self.upstream_layer}.hook_attn_out", edit_attn_out)]
        return [(f"blocks.{self.layer}.attn.hook_{n}", edit_projection(n)) for n in RECEIVERS]

    def select(self, keep: Tensor) -> "SadEdgeStep":
        places, kept = Places(self.row, self.position).select(keep)
        return replace(self, row=places.row, position=places.position, delta=self.delta[kept])


def sad_direction(
    model: LanguageModel, run: CleanRun, places: EdgePlaces, upstream: tuple[int, int]
) -> Tensor:
    """h [place, d_model] of an upstream head (layer, head) in the unedited run."""
    layer, head = upstream
    z = run.z[layer][places.members][places.row, places.position, head]
    o = z @ model.weights.W_O[layer, head]
    within = torch.einsum("pd,pdm->pm", o, places.vectors[:, :-1]) + places.vectors[:, -1]
    h = torch.einsum("pm,pdm->pd", within, places.vectors[:, :-1])
    return h - h.mean(-1, keepdim=True)


def normalised_input(model: LanguageModel, run: CleanRun, layer: int) -> Tensor:
    """x / s before the attention of a layer, unedited [row, position, d_model]."""
    return _centred_input(model, run, layer) / input_scale(model, run, layer)


def input_scale(model: LanguageModel, run: CleanRun, layer: int) -> Tensor:
    """s of the norm before the attention of a layer, unedited [row, position, 1]."""
    x = _centred_input(model, run, layer)
    return (x.square().mean(-1, keepdim=True) + model.config.eps).sqrt()


def _centred_input(model: LanguageModel, run: CleanRun, layer: int) -> Tensor:
    x = run.resid_pre[layer]
    return x - x.mean(-1, keepdim=True) if model.config.normalization == "LN" else x
