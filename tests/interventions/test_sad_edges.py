"""Edits of edges as FC24's published code makes them, against the same done prompt by prompt."""

from collections.abc import Callable, Sequence

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from test_edges import DOWN, UP, dense_singular_vectors, edge, global_edge, run
from torch import Tensor

from mechinterp_assets.interventions.kinds.edge import EditEdge
from mechinterp_assets.interventions.prompts import ROLE_COLUMNS
from mechinterp_assets.interventions.sets import InterventionSet
from mechinterp_assets.model.language_model import LanguageModel

EdgeFrame = Callable[..., pl.DataFrame]


def published_run(
    model: LanguageModel, prompt: dict[str, object], edits: Sequence[tuple[EditEdge, list[int]]]
) -> Tensor:
    """Logits at the last token: every edit's h is worked out from the clean run, edits of one place
    are summed, and local ones put q, k and v of the reader, at all positions, to those of the clean
    normalised input with h / s added or taken away."""
    w = model.weights
    ids = torch.tensor([prompt["token_ids"]])
    _, cache = model.processed.run_with_cache(ids)
    outputs: dict[int, Tensor] = {}
    inputs: dict[tuple[int, int], Tensor] = {}
    for one, slices in edits:
        role = one.destination_role if one.side == "destination" else one.source_role
        place = int(str(prompt[ROLE_COLUMNS[str(role)]]))
        U, V = dense_singular_vectors(model, one.layer, one.head)
        vectors = (U if one.side == "destination" else V)[:, slices]
        up_layer, up_head = int(str(one.upstream_layer)), int(str(one.upstream_head))
        o = cache[f"blocks.{up_layer}.attn.hook_z"][0, place, up_head] @ w.W_O[up_layer, up_head]
        h = (vectors @ vectors.T @ torch.cat([o.double(), torch.ones(1).double()]))[:-1]
        h = (h - h.mean()).float() * (1 if one.mode == "sad_boost" else -1) * one.alpha
        if one.scope == "global":
            own = outputs.setdefault(up_layer, torch.zeros_like(cache["blocks.0.hook_attn_out"][0]))
            own[place] += h
            continue
        key = (one.layer, one.head)
        x = cache[f"blocks.{one.layer}.hook_resid_pre"][0]
        x = x - x.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + model.config.eps).sqrt()
        inputs.setdefault(key, x / scale)[place] += h / scale[place]
    hooks: list[tuple[str, object]] = []
    for layer, moved in outputs.items():
        hooks.append((f"blocks.{layer}.hook_attn_out", lambda value, hook, m=moved: value + m))
    for (layer, head), x in inputs.items():
        for name, W, b in (("q", w.W_Q, w.b_Q), ("k", w.W_K, w.b_K), ("v", w.W_V, w.b_V)):

            def put(
                value: Tensor,
                hook: object,
                h: int = head,
                new: Tensor = x @ W[layer, head] + b[layer, head],
            ) -> Tensor:
                value = value.clone()
                value[0, :, h] = new
                return value

            hooks.append((f"blocks.{layer}.attn.hook_{name}", put))
    out: Tensor = model.processed.run_with_hooks(ids, fwd_hooks=hooks)
    return out[0, -1]


def difference(logits: Tensor, prompt: dict[str, object]) -> float:
    return float(logits[prompt["io_token_id"]] - logits[prompt["s_token_id"]])


@pytest.mark.parametrize("side", ["destination", "source"])
@pytest.mark.parametrize("mode", ["sad_ablate", "sad_boost"])
def test_edits_equal_the_published_procedure(
    two_layers: LanguageModel,
    toy_prompts: pl.DataFrame,
    traced_edge: EdgeFrame,
    side: str,
    mode: str,
) -> None:
    slices = [0, 2, 5]
    traced = traced_edge(toy_prompts, UP, DOWN, ("END", "S2"), side, slices)
    variants = [
        edge(side, mode=mode, receiver="qkv"),
        edge(side, mode=mode, receiver="qkv", alpha=0.5),
        global_edge(side, mode=mode),
    ]
    frame = run(two_layers, toy_prompts, traced, *variants).filter(metric="logit_diff")
    for one in variants:
        for prompt in toy_prompts.iter_rows(named=True):
            expected = difference(published_run(two_layers, prompt, [(one, slices)]), prompt)
            row = frame.filter(intervention=one.id, prompt=prompt["prompt"])
            assert row["patched"][0] == pytest.approx(expected, abs=1e-3)
    moved = frame.group_by("intervention").agg((pl.col("patched") - pl.col("clean")).abs().max())
    assert moved["patched"].to_numpy().min() > 1e-3


def test_with_biases_the_two_procedures_differ(
    busy: LanguageModel, base: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    prompts, slices = base.head(3), [0, 1, 4]
    traced = traced_edge(prompts, UP, DOWN, ("END", "S2"), "destination", slices)
    theirs = edge(mode="sad_ablate", receiver="qkv")
    ours = edge(receiver="qkv")
    frame = run(busy, prompts, traced, theirs, ours).filter(metric="logit_diff")
    found = {
        o.mode: frame.filter(intervention=o.id).sort("prompt")["patched"] for o in (theirs, ours)
    }
    expected = [
        difference(published_run(busy, prompt, [(theirs, slices)]), prompt)
        for prompt in prompts.sort("prompt").iter_rows(named=True)
    ]
    assert found["sad_ablate"].to_list() == pytest.approx(expected, abs=2e-3)
    assert (found["sad_ablate"] - found["ablate"]).abs().to_numpy().max() > 5e-3


def test_sets_sum_in_frozen_inputs(
    two_layers: LanguageModel, toy_prompts: pl.DataFrame, traced_edge: EdgeFrame
) -> None:
    """Two edges into one reader, on either side, and a global one of the same upstream layer: local
    edits do not see the global one."""
    first = edge(mode="sad_ablate", receiver="qkv")
    second = edge(mode="sad_ablate", receiver="qkv", upstream_head=3)
    third = edge("source", mode="sad_ablate", receiver="qkv", upstream_head=2)
    other = global_edge(mode="sad_ablate", upstream_head=0)
    edits = [(first, [0, 2]), (second, [1, 2, 6]), (third, [4]), (other, [3, 5])]
    traced = pl.concat(
        traced_edge(toy_prompts, (0, int(str(one.upstream_head))), DOWN, ("END", "S2"), one.side, s)
        for one, s in edits
    )
    local = InterventionSet(name="local", members=(first, second, third))
    mixed = InterventionSet(name="mixed", members=(first, second, third, other))
    frame = run(two_layers, toy_prompts, traced, local, mixed).filter(metric="logit_diff")
    for name, members in (("local", edits[:3]), ("mixed", edits)):
        for prompt in toy_prompts.iter_rows(named=True):
            expected = difference(published_run(two_layers, prompt, members), prompt)
            row = frame.filter(intervention=f"set:{name}", prompt=prompt["prompt"])
            assert row["patched"][0] == pytest.approx(expected, abs=1e-3)


def test_local_edits_name_their_receivers() -> None:
    with pytest.raises(ValidationError, match="say receiver: qkv"):
        edge(mode="sad_ablate")
