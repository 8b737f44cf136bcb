"""Inputs of receivers that alone see a change, everything else frozen.

Belongs here: the steps that give receivers the inputs they would have had, and what senders write.
Does not belong here: what is sent (its kind's file in kinds/), the frozen pass (frozen.py), fields
of paths (path_fields.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mechinterp_assets.interventions.frozen import frozen_residual, receiver_inputs
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runs import CleanRun, Edit, weights_of
from mechinterp_assets.interventions.sites import Blend, Places, Shift, SiteStep, at_places
from mechinterp_assets.interventions.terms import Head
from mechinterp_assets.model.language_model import LanguageModel


def path_edit(
    model: LanguageModel,
    run: CleanRun,
    changes: Mapping[int, Tensor],
    *,
    receiver: str,
    receivers: Sequence[Head] | None,
    read_role: str,
    via_mlp: bool,
    alpha: float,
) -> Edit:
    """Receivers read the residual stream in which `changes` were made with all heads frozen.

    Queries, keys and values are set to what that gives, whatever earlier receivers did (Wang et
    al. 2022); before the unembedding the difference is added, so that paths to heads and the one to
    the logits can be taken together.

    changes: layer -> what is added to its attention output [row, position, d_model], of the run
    that is edited. receiver: q, k or v of the heads `receivers`, or logits (receivers None), read
    at the role `read_role`. cosine and norm ratio: residual stream that receivers read.
    """
    places = Places.of(run.group, read_role)
    residual = frozen_residual(model, run, changes, places, via_mlp=via_mlp)
    n_layers, n_rows = model.config.n_layers, len(run.group.prompt)
    steps: list[SiteStep] = []
    before: list[Tensor] = []
    after: list[Tensor] = []
    if receivers is None:
        after.append(residual[n_layers])
        before.append(at_places(run.last, places))
        moved = alpha * (after[0] - before[0])
        steps.append(Shift("final", n_layers, None, places, moved))
    else:
        layers = dict.fromkeys(layer for layer, _ in receivers)
        inputs = {
            layer: receiver_inputs(model, run, layer, residual[layer], receiver) for layer in layers
        }
        edited_heads = [
            (layer, head if receiver == "q" else model.config.key_value_head(head))
            for layer, head in receivers
        ]
        of = dict(zip(edited_heads, receivers, strict=True))  # heads of a group share k and v
        for (layer, place), (_, head) in of.items():
            target = inputs[layer][:, head]
            steps.append(Blend(receiver, layer, place, places, target, alpha))
        for layer in layers:
            before.append(at_places(run.resid_pre[layer], places))
            after.append(residual[layer])
    edited = [old + alpha * (new - old) for old, new in zip(before, after, strict=True)]
    rows = places.row.repeat(len(before))
    cosine, ratio = cosine_and_norm_ratio(torch.cat(before), torch.cat(edited), rows, n_rows)
    members = torch.arange(n_rows, device=run.logits.device)
    return Edit(run, members, tuple(steps), cosine, ratio)


def exchanged(
    model: LanguageModel,
    edited: CleanRun,
    other: CleanRun,
    layer: int,
    heads: Sequence[int],
    role: str,
) -> Tensor:
    """Change of a layer's attention output when `heads` write at a role what they do in `other`.

    [row, position, d_model], of the run that is edited.
    """
    places, theirs = Places.of(edited.group, role), Places.of(other.group, role)
    dz = at_places(other.z[layer], theirs) - at_places(edited.z[layer], places)
    chosen = torch.zeros(dz.shape[1], dtype=torch.bool, device=dz.device)
    chosen[list(heads)] = True
    return sent(model, edited, layer, dz * chosen[:, None], places)


def sent(model: LanguageModel, run: CleanRun, layer: int, dz: Tensor, places: Places) -> Tensor:
    """Change of a layer's attention output [row, position, d_model]; dz [place, head, d_head]."""
    change = torch.einsum("phk,hkd->pd", dz, weights_of(model, run.view).W_O[layer])
    out = torch.zeros_like(run.resid_pre[layer])
    out[places.row, places.position] = change
    return out
