"""The slices that a head's pairs agree on, and the signal that tokens carry in them.

Belongs here: tables attention_consensus and attention_token_signal. Does not belong here: how often
slices are used by all pairs of a head (slice_usage.py).

The consensus subspace of a head and a pair of roles is spanned by the singular vectors that at
least half of its traced pairs select. Along it a token at position p carries
  destination signal  sum over k of e_k sqrt(sigma_k) u_k . x~_p
  source signal       sum over k of e_k sqrt(sigma_k) v_k . x~_p
with e_k the majority over pairs of sign(u_k . x~_i), so that a pair's score grows with both.
Source: Franco & Crovella 2024 (arXiv 2410.00340), Figure 9; the majority rule is this project's.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.slices import SIDES
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups
from mechinterp_assets.prompts.roles import position_roles

NODE = ("layer", "head", "destination_role", "source_role")
# What is read of attention_slices.
PAIR_COLUMNS = ("prompt", *NODE[:2], "destination", *NODE[2:], "slices", "path_multiplicity")
CONSENSUS_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "slice": pl.Int32(),
    "singular_value": pl.Float64(),
    "n_pairs": pl.Int64(),
    "selected_share": pl.Float64(),
    "sign_consistency": pl.Float64(),
    "in_consensus": pl.Boolean(),
}
SIGNAL_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "side": pl.String(),
    "position_role": pl.String(),
    "n_dimensions": pl.Int32(),
    "n": pl.Int64(),
    "mean_signal": pl.Float64(),
    "sd_signal": pl.Float64(),
}


def consensus_signal(
    model: LanguageModel,
    prompts: pl.DataFrame,
    slices: pl.DataFrame,
    *,
    n_nodes: int = 12,
    agreement: float = 0.5,
    omega: ModelOmega | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables attention_consensus and attention_token_signal of the most frequent traced nodes.

    slices: PAIR_COLUMNS of attention_slices of a trace of `prompts`. agreement: least share of
    pairs that select a slice of the consensus; nodes whose pairs agree on none have no signal. Both
    frames are empty for rotary models, where singular vectors differ from offset to offset.
    """
    omega = omega or ModelOmega(model)
    traced = slices.filter(pl.col("path_multiplicity") > 0)
    empty = pl.DataFrame(schema=CONSENSUS_SCHEMA), pl.DataFrame(schema=SIGNAL_SCHEMA)
    if omega.rotary or traced.is_empty():
        return empty
    order = [pl.len().alias("n"), pl.col("prompt").n_unique().alias("n_prompts")]
    nodes = (
        traced.group_by(*NODE)
        .agg(order)
        .sort("n_prompts", "n", *NODE, descending=[True, True, *[False] * 4])
        .head(n_nodes)
        .select(NODE)
        .rows()
    )
    layers = sorted({layer for layer, *_ in nodes})
    vectors = {(layer, head): omega.vectors(layer, head) for layer, head, *_ in nodes}
    pairs = {
        key: frame.select("prompt", "destination", "slices")
        for key, frame in traced.partition_by(*NODE, as_dict=True).items()
        if key in set(nodes)
    }

    rank = next(iter(vectors.values()))[1].shape[0]
    selected = {node: torch.zeros(rank, dtype=torch.float64) for node in nodes}
    signed = {node: torch.zeros(rank, dtype=torch.float64) for node in nodes}
    for group, inputs in _inputs(model, prompts, layers, omega):
        row = {prompt: at for at, prompt in enumerate(group["prompt"])}
        for node in nodes:
            here = pairs[node].filter(pl.col("prompt").is_in(list(row)))
            if here.is_empty():
                continue
            U = vectors[node[:2]][0]
            at = torch.tensor([row[prompt] for prompt in here["prompt"]])
            x = inputs[node[0]][at, torch.from_numpy(here["destination"].to_numpy().copy()).long()]
            mask = torch.zeros(here.height, rank, dtype=torch.float64)
            lengths = here["slices"].list.len().to_numpy()
            columns = here["slices"].explode(empty_as_null=False).to_numpy().copy()
            mask[np.repeat(np.arange(here.height), lengths), columns] = 1
            sign = torch.where(x @ U[:-1] + U[-1] < 0, -1.0, 1.0).cpu()
            selected[node] += mask.sum(0)
            signed[node] += (mask * sign).sum(0)

    chosen = {node: selected[node] >= agreement * pairs[node].height for node in nodes}
    readers: dict[tuple[int, int, str, str], list[tuple[Tensor, Tensor]]] = {}
    for node in nodes:
        U, S, V = vectors[node[:2]]
        sign = torch.where(signed[node] < 0, -1.0, 1.0)
        weight = (chosen[node] * sign).to(S) * S.sqrt()
        readers[node] = [(side[:-1] @ weight, side[-1] @ weight) for side in (U, V)]
    found: dict[tuple[tuple[int, int, str, str], str, str], list[np.ndarray]] = {}
    for group, inputs in _inputs(model, prompts, layers, omega):
        names = np.array(position_roles(group, after_bos=model.bos.prepended))
        for node in nodes:
            for side, (vector, constant) in zip(SIDES, readers[node], strict=True):
                signal = (inputs[node[0]] @ vector + constant).cpu().numpy()
                for role in np.unique(names):
                    values = signal[names == role]
                    sums = np.array([values.size, values.sum(), np.square(values).sum()])
                    found.setdefault((node, side, str(role)), []).append(sums)
    return (
        _consensus_frame(nodes, vectors, pairs, selected, signed, chosen),
        _signal_frame(found, chosen),
    )


@torch.no_grad()
def _inputs(
    model: LanguageModel, prompts: pl.DataFrame, layers: list[int], omega: ModelOmega
) -> Iterator[tuple[pl.DataFrame, dict[int, Tensor]]]:
    """Normalised inputs of some layers [prompt, position, d_model], float64, group by group."""
    names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers}
    wanted = set(names.values())
    for group, ids in equal_length_groups(prompts, 64):
        _, cache = model.processed.run_with_cache(
            ids.to(model.device), names_filter=wanted.__contains__, logits_to_keep=1
        )
        found = {}
        for layer, name in names.items():
            x = cache[name].to(omega.device).double()
            x = x - x.mean(-1, keepdim=True) if omega.centred else x
            scale = (x.square().mean(-1, keepdim=True) + model.config.eps).sqrt()
            found[layer] = x / scale
        yield group, found


def _consensus_frame(
    nodes: list[tuple[int, int, str, str]],
    vectors: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]],
    pairs: dict[tuple[object, ...], pl.DataFrame],
    selected: dict[tuple[int, int, str, str], Tensor],
    signed: dict[tuple[int, int, str, str], Tensor],
    chosen: dict[tuple[int, int, str, str], Tensor],
) -> pl.DataFrame:
    rows = []
    for node in nodes:
        S = vectors[node[:2]][1]
        n = pairs[node].height
        for k in selected[node].nonzero()[:, 0].tolist():
            count = float(selected[node][k])
            agreement = abs(float(signed[node][k])) / count
            rows.append((*node, k, float(S[k]), n, count / n, agreement, bool(chosen[node][k])))
    return pl.DataFrame(rows, schema=CONSENSUS_SCHEMA, orient="row")


def _signal_frame(
    found: dict[tuple[tuple[int, int, str, str], str, str], list[np.ndarray]],
    chosen: dict[tuple[int, int, str, str], Tensor],
) -> pl.DataFrame:
    rows = []
    for (node, side, role), parts in found.items():
        if not chosen[node].any():
            continue
        n, total, squares = np.sum(parts, 0)
        mean = total / n
        sd = float(np.sqrt(max(squares / n - mean**2, 0.0)))
        rows.append((*node, side, role, int(chosen[node].sum()), int(n), float(mean), sd))
    return pl.DataFrame(rows, schema=SIGNAL_SCHEMA, orient="row")
