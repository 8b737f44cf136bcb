"""Orders of edges, nodes lifted to edges, traced edges, agreement and areas under curves."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from mechinterp_assets.faithfulness.curve_areas import curve_summary, trapezoid
from mechinterp_assets.faithfulness.edge_graph import EdgeGraph, FaithfulnessError
from mechinterp_assets.faithfulness.edge_sets import CURVE_SCHEMA, FRACTIONS
from mechinterp_assets.faithfulness.rankings import (
    Ranking,
    agreement,
    best_heads,
    edges_of_heads,
    edges_of_trace,
    head_scores,
    heads_of_trace,
    random_ranking,
    top_edges,
    traced_circuit,
)

GRAPH = EdgeGraph(3, 4, 2)


def test_order_by_sign_and_by_size() -> None:
    scores = np.array([0.5, -3.0, np.nan, 2.0])
    assert Ranking("a", scores).order.tolist() == [3, 0, 1, 2]
    assert Ranking("a", scores, "absolute").order.tolist() == [1, 3, 0, 2]
    assert top_edges(Ranking("a", scores), 0.5).tolist() == [3, 0]
    assert len(top_edges(Ranking("a", np.zeros(100)), 0.29)) == 29


def test_ties_are_drawn_from_the_seed() -> None:
    orders = [Ranking("a", np.zeros(50), seed=seed).order.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != list(range(50))
    assert not np.array_equal(random_ranking(GRAPH, 0).order, random_ranking(GRAPH, 1).order)


def test_edges_are_as_good_as_their_weaker_end() -> None:
    heads = np.arange(12, dtype=float).reshape(3, 4)
    scores = edges_of_heads(GRAPH, heads)
    q = GRAPH.head_inputs(1, "q").start + 3  # head 1.3, score 7
    k = GRAPH.head_inputs(1, "k").start + 1  # read by heads 1.2 and 1.3
    assert scores[GRAPH.edge_number(q, GRAPH.head_node(0, 2))] == 2
    assert scores[GRAPH.edge_number(q, 0)] == 7
    assert scores[GRAPH.edge_number(k, GRAPH.mlp_node(0))] == 7
    assert scores[GRAPH.edge_number(GRAPH.logits, GRAPH.mlp_node(2))] == 11
    with pytest.raises(FaithfulnessError, match="shape"):
        edges_of_heads(GRAPH, heads[:2])


def traced() -> pl.DataFrame:
    rows = [
        ("head", 0, 1, 2, 3, "destination", 5.0),
        ("head", 0, 1, 2, 3, "destination", 2.0),
        ("head", 1, 0, 2, 3, "source", 4.0),
        ("mlp", 0, -1, 2, 3, "source", 1.0),
        ("position", -1, -1, 2, 3, "source", 3.0),
        ("bias", 0, -1, 2, 3, "source", 9.0),
    ]
    names = ["kind", "layer", "head", "downstream_layer", "downstream_head", "side", "n"]
    return pl.DataFrame(rows, schema=names, orient="row").rename(
        {"kind": "upstream_kind", "layer": "upstream_layer", "head": "upstream_head"}
    )


def test_traced_edges_lead_into_queries_and_keys() -> None:
    scores = edges_of_trace(GRAPH, traced(), weight="n")
    q = GRAPH.head_inputs(2, "q").start + 3
    k = GRAPH.head_inputs(2, "k").start + 1
    expected = {
        GRAPH.edge_number(q, GRAPH.head_node(0, 1)): 7.0,
        GRAPH.edge_number(k, GRAPH.head_node(1, 0)): 4.0,
        GRAPH.edge_number(k, GRAPH.mlp_node(0)): 1.0,
        GRAPH.edge_number(k, 0): 3.0,
    }
    found = {int(e): float(scores[e]) for e in np.flatnonzero(~np.isnan(scores))}
    assert found == expected


def test_heads_in_most_prompts_come_first_and_pairs_decide_ties() -> None:
    counted = pl.DataFrame(
        {"layer": [0, 1, 2], "head": [0, 2, 1], "n_prompts": [3, 3, 4], "n_pairs": [2, 9, 4]}
    )
    scores = head_scores(GRAPH, counted)
    assert best_heads(scores, 9) == [(2, 1), (1, 2), (0, 0)]
    assert not head_scores(GRAPH, counted.clear()).any()


def test_traced_circuits_keep_what_the_trace_does_not_rank() -> None:
    heads_only = traced().filter(pl.col("upstream_kind") == "head")
    heads = heads_of_trace(GRAPH, heads_only, weight="n")
    assert heads[2, 3] == 5
    assert heads[0, 1] == 5
    assert heads[1, 0] == 4
    assert best_heads(heads, 10) == [(0, 1), (2, 3), (1, 0)]
    scores = traced_circuit(GRAPH, heads_only, weight="n")
    q = GRAPH.head_inputs(2, "q").start + 3
    v = GRAPH.head_inputs(2, "v").start + 1
    assert scores[GRAPH.edge_number(q, GRAPH.head_node(0, 1))] == 7
    assert np.isnan(scores[GRAPH.edge_number(q, GRAPH.head_node(1, 0))])  # traced to the key alone
    assert scores[GRAPH.edge_number(v, GRAPH.head_node(1, 0))] == 4
    assert scores[GRAPH.edge_number(q, 0)] == 5


def test_agreement_is_scipys() -> None:
    rng = np.random.default_rng(0)
    exact = np.round(rng.normal(size=200), 1)
    score = exact + rng.normal(size=200)
    row = agreement({"a": score, "flat": np.ones(200)}, exact, top=20).to_dicts()
    assert row[0]["spearman"] == pytest.approx(spearmanr(score, exact)[0])
    assert row[0]["pearson"] == pytest.approx(np.corrcoef(score, exact)[0, 1])
    moved = exact != 0
    signs = (np.sign(score) == np.sign(exact))[moved]
    assert row[0]["sign_agreement"] == pytest.approx(signs.mean())
    assert 0 < row[0]["top_overlap"] < 1
    assert row[1]["pearson"] is None


def curve(values: list[float]) -> pl.DataFrame:
    rows = [
        {
            "ranking": "a",
            "ranked_by": "signed",
            "seed": 0,
            "edge_fraction": k,
            "faithfulness": f,
            "n_prompts": 4,
        }
        for k, f in zip(FRACTIONS, values, strict=True)
    ]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA, orient="row")


def test_areas_of_known_curves() -> None:
    """MIB: a perfect curve has CPR .999; f = 0 until all edges are there has CMD .749."""
    perfect = curve_summary(curve([1.0] * 10)).row(0, named=True)
    late = curve_summary(curve([0.0] * 9 + [1.0])).row(0, named=True)
    assert perfect["cpr"] == pytest.approx(0.999)
    assert perfect["cmd"] == 0
    assert perfect["cpr_log"] == pytest.approx(1)
    assert perfect["smallest_k_90"] == 0.001
    assert late["cmd"] == pytest.approx(0.749)
    assert late["cpr"] == pytest.approx(0.25)
    assert late["cmd_log"] == pytest.approx(1 - np.log(2) / np.log(1000) / 2)
    assert late["smallest_k_90"] == 1
    with pytest.raises(FaithfulnessError, match="increasing"):
        trapezoid([0.1, 0.1], [1, 1])
