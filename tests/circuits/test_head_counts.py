"""Heads of traces counted in one way for every tracer."""

import polars as pl
import pytest

from mechinterp_assets.circuits.head_counts import heads_by_edges, heads_by_pairs
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.trace import Root, trace_circuit
from mechinterp_assets.model.language_model import LanguageModel


def test_pairs_that_were_not_traced_do_not_count() -> None:
    pairs = pl.DataFrame(
        [("acc", 0, 2, 1, 1.0), ("acc", 0, 2, 1, 4.0), ("acc", 1, 2, 1, 1.0), ("acc", 0, 1, 0, 2.0),
         ("acc", 1, 3, 3, 0.0), ("fc24", 0, 3, 3, 1.0)],
        schema=["trace_rule", "prompt", "layer", "head", "path_multiplicity"],
        orient="row",
    )  # fmt: skip
    assert heads_by_pairs(pairs.lazy()).collect().rows() == [
        ("acc", 2, 1, 2, 3),
        ("acc", 1, 0, 1, 1),
        ("fc24", 3, 3, 1, 1),
    ]


def test_both_ends_of_edges_count_and_mlps_do_not() -> None:
    edges = pl.DataFrame(
        [("acc", 0, 0, 1, 2, 1), ("acc", 1, 0, 1, 2, 1), ("acc", 1, 1, None, 2, 1),
         ("acc", 2, 0, None, 1, 0)],
        schema=["trace_rule", "prompt", "upstream_layer", "upstream_head", "downstream_layer",
                "downstream_head"],
        orient="row",
    )  # fmt: skip
    assert heads_by_edges(edges.lazy()).collect().rows() == [
        ("acc", 2, 1, 2, 3),
        ("acc", 0, 1, 2, 2),
        ("acc", 1, 0, 1, 1),  # steered by an MLP alone
    ]


@pytest.mark.parametrize("rule", ["fc24", "relative"])
def test_writers_that_attend_nowhere_are_heads_of_edges_alone(
    rule: str, organism: LanguageModel, organism_prompts: pl.DataFrame
) -> None:
    trace = trace_circuit(
        organism,
        organism_prompts,
        [Root(3, 3), Root(2, 6)],
        TraceSettings.model_validate({"trace_rule": rule}),
    )
    pairs = heads_by_pairs(trace.slices.lazy()).collect()
    edges = heads_by_edges(trace.edges.filter("kept").lazy()).collect()
    of_pairs, of_edges = (set(f.select("layer", "head").rows()) for f in (pairs, edges))
    upstream = {(layer, head) for layer, head in of_pairs if (layer, head) not in {(3, 3), (2, 6)}}
    assert upstream <= of_edges
    assert len(of_edges) > len(of_pairs)
    assert set(pairs["trace_rule"]) == set(edges["trace_rule"]) == {rule}
