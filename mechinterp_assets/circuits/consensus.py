"""The slices that a head's pairs agree on, and the signal that tokens carry in them.

Belongs here: tables attention_consensus and attention_token_signal. Does not belong here: how often
slices are used by all pairs of a head (slice_usage.py).

The consensus subspace of a head and a pair of roles is spanned by the singular vectors that at
least half of its traced pairs select. Along it a token at position p carries
  destination signal  sum over k of e_k sqrt(sigma_k) u_k . x~_p
  source signal       sum over k of e_k sqrt(sigma_k) v_k . x~_p
with e_k the majority over pairs of sign(u_k . x~_i), so that a pair's score grows with both. With
rotary positions sigma_k v_k depends on the offset: the source signal of a token is then that for
the destinations of the node's pairs, at positions up to them.
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
PAIR_COLUMNS = (
    *("prompt", *NODE[:2], "destination", *NODE[2:]),
    *("trace_rule", "slices", "path_multiplicity"),
)
CONSENSUS_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "trace_rule": pl.String(),
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
    "trace_rule": pl.String(),
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
    pairs that select a slice of the consensus; nodes whose pairs agree on none have no signal.
    singular_value is that of offset 0 for rotary models.
    """
    omega = omega or ModelOmega(model)
    traced = slices.filter(pl.col("path_multiplicity") > 0)
    empty = pl.DataFrame(schema=CONSENSUS_SCHEMA), pl.DataFrame(schema=SIGNAL_SCHEMA)
    if traced.is_empty():
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
    for group, inputs in normalised_inputs(model, prompts, layers, omega):
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
    weights: dict[tuple[int, int, str, str], Tensor] = {}
    for node in nodes:
        sign = torch.where(signed[node] < 0, -1.0, 1.0)
        weights[node] = (chosen[node] * sign).to(vectors[node[:2]][1])
    found: dict[tuple[tuple[int, int, str, str], str, str], list[np.ndarray]] = {}
    for group, inputs in normalised_inputs(model, prompts, layers, omega):
        names = np.array(position_roles(group, after_bos=model.bos.prepended))
        for node in nodes:
            x, weight = inputs[node[0]], weights[node]
            U, S, V = vectors[node[:2]]
            signals = [(_signal(x, U, S, weight), names)]
            if omega.rotary:
                signals.append(_turned_signal(omega, node, pairs[node], group, x, weight, names))
            else:
                signals.append((_signal(x, V, S, weight), names))
            for side, (signal, labels) in zip(SIDES, signals, strict=True):
                for role in np.unique(labels):
                    values = signal[labels == role]
                    sums = np.array([values.size, values.sum(), np.square(values).sum()])
                    found.setdefault((node, side, str(role)), []).append(sums)
    rule = str(traced["trace_rule"][0])
    return (
        _consensus_frame(nodes, vectors, pairs, selected, signed, chosen, rule),
        _signal_frame(found, chosen, rule),
    )


def _signal(x: Tensor, vectors: Tensor, S: Tensor, weight: Tensor) -> np.ndarray:
    """sum over k of weight_k sqrt(sigma_k) vectors_k . x~ [...] of inputs x [..., d_model]."""
    reader = vectors @ (weight * S.sqrt())
    return np.asarray((x @ reader[:-1] + reader[-1]).cpu().numpy())


def _turned_signal(
    omega: ModelOmega,
    node: tuple[int, int, str, str],
    pairs: pl.DataFrame,
    group: pl.DataFrame,
    x: Tensor,
    weight: Tensor,
    names: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Source signals [item] of every token up to the destination of a pair, and their roles."""
    row = {prompt: at for at, prompt in enumerate(group["prompt"])}
    here = pairs.filter(pl.col("prompt").is_in(list(row))).select("prompt", "destination").unique()
    found, labels = [], []
    places: dict[int, list[tuple[int, int]]] = {}
    for prompt, destination in here.sort("prompt", "destination").iter_rows():
        for position in range(destination + 1):
            places.setdefault(destination - position, []).append((row[prompt], position))
    for offset, at in places.items():
        _, S, V = omega.vectors(*node[:2], offset)
        rows, positions = (torch.tensor(part) for part in zip(*at, strict=True))
        found.append(_signal(x[rows, positions], V, S, weight))
        labels.append(names[rows.numpy(), positions.numpy()])
    if not found:
        return np.empty(0), np.empty(0, names.dtype)
    return np.concatenate(found), np.concatenate(labels)


@torch.no_grad()
def normalised_inputs(
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
    rule: str,
) -> pl.DataFrame:
    rows = []
    for node in nodes:
        S = vectors[node[:2]][1]
        n = pairs[node].height
        for k in selected[node].nonzero()[:, 0].tolist():
            count = float(selected[node][k])
            agreement = abs(float(signed[node][k])) / count
            row = (*node, rule, k, float(S[k]), n, count / n, agreement, bool(chosen[node][k]))
            rows.append(row)
    return pl.DataFrame(rows, schema=CONSENSUS_SCHEMA, orient="row")


def _signal_frame(
    found: dict[tuple[tuple[int, int, str, str], str, str], list[np.ndarray]],
    chosen: dict[tuple[int, int, str, str], Tensor],
    rule: str,
) -> pl.DataFrame:
    rows = []
    for (node, side, role), parts in found.items():
        if not chosen[node].any():
            continue
        n, total, squares = np.sum(parts, 0)
        mean = total / n
        sd = float(np.sqrt(max(squares / n - mean**2, 0.0)))
        size = int(chosen[node].sum())
        rows.append((*node, side, role, rule, size, int(n), float(mean), sd))
    return pl.DataFrame(rows, schema=SIGNAL_SCHEMA, orient="row")
