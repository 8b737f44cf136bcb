"""The whole measurement of a task's circuits: scores of edges, curves, head sets, subspaces.

Belongs here: which rankings and head sets are compared by default, and the frames of the tables
edge_attribution, edge_attribution_agreement, circuit_faithfulness, circuit_faithfulness_summary,
head_set_quality and subspace_patching. Does not belong here: the methods themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.modes import Mode, reference_of
from mechinterp_assets.faithfulness.curve_areas import curve_summary
from mechinterp_assets.faithfulness.edge_attribution import (
    EAP,
    Attribution,
    attribute_edges,
    eap_ig,
)
from mechinterp_assets.faithfulness.edge_graph import EdgeGraph, FaithfulnessError
from mechinterp_assets.faithfulness.edge_patching import exact_edge_effects, sampled_edges
from mechinterp_assets.faithfulness.edge_sets import circuit_curves
from mechinterp_assets.faithfulness.head_sets import (
    Heads,
    HeadSet,
    HeadSetRuns,
    head_set_quality,
    knockout_scores,
    random_head_sets,
)
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, prompt_pairs
from mechinterp_assets.faithfulness.rankings import (
    Ranking,
    agreement,
    best_heads,
    edges_of_heads,
    edges_of_trace,
    head_scores,
    random_ranking,
    traced_circuit,
    with_signs,
)
from mechinterp_assets.faithfulness.settings import CircuitSettings
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.faithfulness.subspace import (
    Direction,
    feature_directions,
    mean_difference_directions,
    subspace_patching,
    swapped_tokens,
)

ABC, END = "ABC", "END"
NAME_ROLES = ("IO", "S1")
TRACE_WEIGHT = "n_prompts"
EDGE_NUMBERS = ("edge_number", "source_layer", "source_head", "receiver_layer", "receiver_head")

Note = Callable[[str], None]
Encode = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class CircuitQuality:
    """Frames of one task, without the columns study and task."""

    edge_attribution: pl.DataFrame
    edge_attribution_agreement: pl.DataFrame
    circuit_faithfulness: pl.DataFrame
    circuit_faithfulness_summary: pl.DataFrame
    head_set_quality: pl.DataFrame


def measure_circuits(
    model: SplitModel,
    prompts: pl.DataFrame,
    settings: CircuitSettings,
    *,
    counterfactual: str,
    traced: pl.DataFrame | None = None,
    trace_heads: Mapping[str, pl.DataFrame] | None = None,
    named_sets: Mapping[str, Heads] | None = None,
    roles: Mapping[str, Heads] | None = None,
    note: Note | None = None,
) -> CircuitQuality:
    """All of one task's numbers.

    prompts: task prompts of one task, base and counterfactual; heads are mean-ablated over the ABC
    prompts where there are any, else over the counterfactual ones. traced: rows of trace_graph;
    trace_heads: name of a count of a tracer's heads -> layer, head, n_prompts, n_pairs, counted in
    one way for all tracers (circuits/head_counts.py). named_sets: head sets to score beside the
    trace's, the ablation's and the roles'. roles: role -> heads; their union is a set, each a
    subset that completeness takes out.
    """
    say: Note = note or (lambda text: None)
    graph = model.graph
    pairs = prompt_pairs(model, prompts, counterfactual=counterfactual, count=settings.prompts)
    attributions = [EAP, *(eap_ig(rule, settings.ig_steps) for rule in settings.ig_rules)]
    scores = attribute_edges(model, pairs, attributions)
    say(f"scored {graph.n_edges} edges by {', '.join(scores)}")

    chosen = sampled_edges(graph.n_edges, settings.exact_edges, settings.seed)
    few = pairs.head(settings.exact_prompts)
    exact = exact_edge_effects(model, few, chosen).mean(0)
    say(f"patched {len(chosen)} edges one by one in {len(few)} prompts")
    same = scores if len(few) == len(pairs) else attribute_edges(model, few, attributions)
    agree = agreement(
        {name: values[chosen] for name, values in same.items()},
        exact,
        top=max(1, graph.n_edges // 100),
    )

    reference = ABC if ABC in prompts["variant"].unique() else counterfactual
    runs = HeadSetRuns(model, pairs, prompts, prompts.filter(pl.col("variant") == reference))
    knockouts = knockout_scores(runs)
    every = np.full(graph.n_edges, np.nan)
    every[chosen] = exact
    counts_of_heads = {
        name: head_scores(graph, frame) for name, frame in (trace_heads or {}).items()
    }
    rankings = _rankings(graph, scores, every, knockouts, traced, counts_of_heads, settings)
    curves = circuit_curves(model, pairs, rankings)
    say(f"ran circuits of {len(rankings)} rankings")
    sets = _head_sets(runs, knockouts, counts_of_heads, named_sets or {}, roles or {}, settings)
    quality = head_set_quality(
        runs, sets, random_subsets=settings.random_subsets, seed=settings.seed
    )
    say(f"ablated around {len(sets)} head sets")

    shared = [pl.lit(counterfactual).alias("counterfactual")]
    exchanged = _ablated("counterfactual_pair")
    counts = [
        pl.lit(len(chosen), pl.Int64).alias("n_exact_edges"),
        pl.lit(len(few), pl.Int64).alias("n_prompts"),
    ]
    return CircuitQuality(
        edge_attribution=_edge_frame(graph, attributions, scores, every).with_columns(
            *shared,
            pl.lit(len(pairs), pl.Int64).alias("n_prompts"),
            pl.lit(len(few), pl.Int64).alias("n_exact_prompts"),
        ),
        edge_attribution_agreement=_by_method(attributions, agree).with_columns(*shared, *counts),
        circuit_faithfulness=curves.with_columns(*shared, *exchanged),
        circuit_faithfulness_summary=curve_summary(curves).with_columns(*shared, *exchanged),
        head_set_quality=quality.with_columns(
            *_ablated("mean_counterfactual"), pl.lit(reference).alias("reference_variant")
        ),
    )


def measure_subspaces(
    model: SplitModel,
    prompts: pl.DataFrame,
    *,
    counterfactual: str,
    count: int,
    roles: Sequence[str] = ("S2", END),
    features: int = 2,
    decoders: Mapping[int, Tensor] | None = None,
    encode: Encode | None = None,
) -> pl.DataFrame:
    """Table subspace_patching of one task, without study and task.

    Directions at every layer, at z and in the MLP, at those of `roles` that all prompts have: clean
    less counterfactual; for prompts with two names in either order also ABB less BAB, patched from
    the prompt with IO and S1 exchanged; and of every SAE in `decoders` (layer -> W_dec [d_sae,
    d_z]) the `features` features that differ most. encode(layer, ids [b, T]) -> feature activations
    [b, T, d_sae]; needed with decoders.
    """
    pairs = prompt_pairs(model, prompts, counterfactual=counterfactual, count=count)
    base = _rows_of(prompts, pairs)
    positions = {
        role: at.to(model.device)
        for role in roles
        if (at := role_positions(base, role)) is not None
    }
    if not positions:
        raise FaithfulnessError(f"no prompt role of {list(roles)} stands in all prompts")
    directions = mean_difference_directions(model, pairs, positions, name="counterfactual")
    directions += _sae_directions(pairs, positions, features, decoders or {}, encode)
    frames = [
        subspace_patching(model, pairs, positions, directions).with_columns(
            pl.lit(counterfactual).alias("patched_from")
        )
    ]
    first, second = (role_positions(base, role) for role in NAME_ROLES)
    if first is not None and second is not None and 0 < int((first < second).sum()) < len(first):
        order = mean_difference_directions(
            model, pairs, positions, name="name_order", groups=first < second
        )
        swapped = swapped_tokens(pairs, first.to(model.device), second.to(model.device))
        frames.append(
            subspace_patching(model, swapped, positions, order).with_columns(
                pl.lit("swap").alias("patched_from")
            )
        )
    return pl.concat(frames)


def role_positions(prompts: pl.DataFrame, role: str) -> Tensor | None:
    """Position of a role in every prompt [prompt]; None where one lacks it."""
    found = [
        dict(zip(roles, positions, strict=True)).get(role)
        for roles, positions in prompts.select("roles", "positions").iter_rows()
    ]
    return None if None in found else torch.tensor(found)


# ---- private -------------------------------------------------------------------------------------


def _ablated(mode: Mode) -> list[pl.Expr]:
    """Columns that say how what is left out was ablated."""
    return [pl.lit(mode).alias("mode"), pl.lit(reference_of(mode)).alias("reference")]


def _rankings(
    graph: EdgeGraph,
    scores: Mapping[str, np.ndarray],
    exact: np.ndarray,
    knockouts: np.ndarray,
    traced: pl.DataFrame | None,
    trace_heads: Mapping[str, np.ndarray],
    settings: CircuitSettings,
) -> list[Ranking]:
    seed = settings.seed
    found = with_signs("eap", scores["eap"], seed)
    name = f"eap_ig_{settings.ig_rules[0]}"
    found += with_signs(name, scores[name], seed)
    if np.isfinite(exact).all():
        found += with_signs("exact", exact, seed)
    found += [
        Ranking("head_ablation", edges_of_heads(graph, knockouts), "signed", seed),
        Ranking("head_ablation", edges_of_heads(graph, np.abs(knockouts)), "absolute", seed),
    ]
    if traced is not None and not traced.is_empty():
        rule = traced["trace_rule"][0]
        found += [
            Ranking(f"trace {rule}", edges_of_trace(graph, traced, weight=TRACE_WEIGHT), seed=seed),
            Ranking(
                f"trace_completed {rule}",
                traced_circuit(graph, traced, weight=TRACE_WEIGHT),
                seed=seed,
            ),
        ]
    for name, counted in trace_heads.items():
        if counted.any():
            heads = edges_of_heads(graph, counted)
            found.append(Ranking(f"trace_heads {name}", heads, seed=seed))
    return found + [random_ranking(graph, seed + n) for n in range(settings.random_rankings)]


def _head_sets(
    runs: HeadSetRuns,
    knockouts: np.ndarray,
    trace_heads: Mapping[str, np.ndarray],
    named: Mapping[str, Heads],
    roles: Mapping[str, Heads],
    settings: CircuitSettings,
) -> list[HeadSet]:
    """The sets of heads, then random ones of every size that occurs."""
    chosen: dict[str, Heads] = {
        "head_ablation": frozenset(best_heads(knockouts, settings.head_set_size))
    }
    for name, scores in trace_heads.items():
        chosen[f"trace {name}"] = frozenset(best_heads(scores, settings.head_set_size))
    if roles:
        chosen["roles"] = frozenset().union(*roles.values())
    chosen |= dict(named)
    sets = [
        HeadSet(
            name,
            heads,
            {f"role {role}": own & heads for role, own in roles.items()},
            minimality=len(heads) <= settings.minimality_heads,
        )
        for name, heads in chosen.items()
        if heads
    ]
    sets += [HeadSet(f"role {role}", heads, {}, detailed=False) for role, heads in roles.items()]
    for size in sorted({len(one.heads) for one in sets if one.detailed}):
        sets += random_head_sets(
            runs, size, count=settings.random_head_sets, seed=settings.seed, name=f"{size} heads"
        )
    return sets


def _edge_frame(
    graph: EdgeGraph,
    attributions: Sequence[Attribution],
    scores: Mapping[str, np.ndarray],
    exact: np.ndarray,
) -> pl.DataFrame:
    nodes = [graph.nodes[node] for node in graph.edges[:, 1].tolist()]
    receivers = [graph.receivers[receiver] for receiver in graph.edges[:, 0].tolist()]
    edges = pl.DataFrame(
        {
            "edge_number": np.arange(graph.n_edges),
            "source_kind": [node.kind for node in nodes],
            "source_layer": [node.layer for node in nodes],
            "source_head": [node.head for node in nodes],
            "receiver_input": [reader.kind for reader in receivers],
            "receiver_layer": [reader.layer for reader in receivers],
            "receiver_head": [reader.head for reader in receivers],
            "exact": exact,
        },
        schema_overrides=dict.fromkeys(EDGE_NUMBERS, pl.Int32),
    ).with_columns(pl.col("exact").fill_nan(None))
    return pl.concat(
        edges.with_columns(
            pl.lit(one.method).alias("method"),
            pl.lit(one.rule).alias("rule"),
            pl.lit(one.steps, pl.Int32).alias("ig_steps"),
            pl.Series("attribution_score", scores[one.name]),
        )
        for one in attributions
    )


def _by_method(attributions: Sequence[Attribution], frame: pl.DataFrame) -> pl.DataFrame:
    """Names of attributions as method, rule and steps."""
    names = pl.DataFrame(
        {
            "attribution": [one.name for one in attributions],
            "method": [one.method for one in attributions],
            "rule": [one.rule for one in attributions],
            "ig_steps": pl.Series([one.steps for one in attributions], dtype=pl.Int32),
        }
    )
    return names.join(frame, on="attribution", maintain_order="left").drop("attribution")


def _rows_of(prompts: pl.DataFrame, pairs: PromptBatch) -> pl.DataFrame:
    """Task prompts of the pairs, in their order."""
    wanted = pl.DataFrame({"prompt": list(pairs.prompt)}, schema={"prompt": pl.Int64})
    return wanted.join(prompts, on="prompt", how="left", maintain_order="left")


def _sae_directions(
    pairs: PromptBatch,
    positions: Mapping[str, Tensor],
    features: int,
    decoders: Mapping[int, Tensor],
    encode: Encode | None,
) -> list[Direction]:
    if not decoders or not features:
        return []
    if encode is None:
        raise FaithfulnessError("directions of SAE features need `encode`; none was given")
    rows = torch.arange(len(pairs), device=pairs.clean.device)
    found: list[Direction] = []
    for layer, decoder in decoders.items():
        clean, corrupt = encode(layer, pairs.clean), encode(layer, pairs.corrupt)
        for role, at in positions.items():
            difference = (clean[rows, at] - corrupt[rows, at]).mean(0)
            found += feature_directions(layer, role, difference, decoder, features)
    return found
