"""Summary of a traced circuit, and the lists of heads that it is compared with."""

import itertools
from dataclasses import replace

import polars as pl
import pytest
from pydantic import ValidationError

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.graph import NODES_SCHEMA
from mechinterp_assets.circuits.published_graph import PUBLISHED_SCHEMA
from mechinterp_assets.circuits.reference_heads import (
    part_names,
    published_circuits,
    published_part,
    reference_lists,
)
from mechinterp_assets.circuits.settings import IoiSettings
from mechinterp_assets.circuits.trace_summary import reachable_heads, trace_summary
from mechinterp_assets.circuits.trace_variants import VARIANTS_SCHEMA, Coverage
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs


def node(
    layer: int, head: int, source: str | None, prompts: int, paths: float
) -> dict[str, object]:
    return {
        "trace_rule": "fc24",
        "layer": layer,
        "head": head,
        "destination_role": "END",
        "source_role": source,
        "n_prompts": prompts,
        "n_pairs": prompts,
        "path_multiplicity": paths,
        "mean_attention": 0.7,
        "mean_n_slices": 3.0,
        "is_root": False,
    }


NODES = pl.DataFrame(
    [
        node(2, 0, "IO", 10, 10.0),
        node(2, 0, "S1", 2, 2.0),
        node(1, 1, "S2", 6, 30.0),
        node(0, 1, None, 1, 9.0),
    ],
    schema=NODES_SCHEMA,
)
EDGES = pl.DataFrame(
    [("fc24", 1, 1, 2, 0, "END", "IO", "destination", "END", 6, 6, 6.0, 1.0),
     ("fc24", 0, 1, 1, 1, "END", "S2", "source", "S2", 1, 1, 9.0, 0.5)],
    schema=VARIANTS_SCHEMA,
    orient="row",
)  # fmt: skip


EVERY = frozenset(itertools.product(range(3), range(2)))


def test_filters_and_overlap() -> None:
    lists = {"mine": frozenset({(2, 0), (0, 0)}), "all": frozenset({(2, 0), (1, 1), (0, 1)})}
    summary = trace_summary(
        NODES, EDGES, lists, n_prompts=10, reachable=EVERY, min_shares=(0.0, 0.5)
    )
    declared = {
        c.name: c.polars_type
        for c in table_specs()["trace_summary"].science_columns
        if c.name != "task"
    }
    assert dict(summary.schema) == declared
    rows = {(r["counted"], r["min_share"], r["head_list"]): r for r in summary.to_dicts()}
    assert len(rows) == 8
    whole = rows["prompts", 0.0, "mine"]
    assert (whole["n_attention_edges"], whole["n_nodes"], whole["n_kept_heads"]) == (3, 3, 3)
    assert whole["n_communication_edges"] == 2
    assert (whole["precision"], whole["recall"]) == (pytest.approx(1 / 3), 0.5)
    half = rows["prompts", 0.5, "mine"]
    assert (half["n_kept_heads"], half["n_attention_edges"], half["n_communication_edges"]) == (
        2,
        2,
        1,
    )
    paths = rows["paths", 0.5, "all"]
    assert (paths["n_kept_heads"], paths["n_communication_edges"], paths["recall"]) == (3, 2, 1.0)


def test_random_columns_are_those_of_all_sets_of_as_many_heads() -> None:
    reference = frozenset({(2, 0), (0, 0), (1, 0)})
    summary = trace_summary(
        NODES, EDGES, {"mine": reference}, n_prompts=10, reachable=EVERY, min_shares=(0.5,)
    )
    row = summary.filter(counted="prompts").row(0, named=True)
    sets = list(itertools.combinations(sorted(EVERY), row["n_kept_heads"]))
    shared = [len(reference & set(heads)) for heads in sets]
    assert row["random_precision"] == pytest.approx(sum(shared) / len(sets) / row["n_kept_heads"])
    assert row["random_recall"] == pytest.approx(sum(shared) / len(sets) / len(reference))
    expected = sum(count >= row["n_shared"] for count in shared) / len(sets)
    assert row["p_value"] == pytest.approx(expected)


def test_heads_that_a_trace_cannot_reach_count_neither_way() -> None:
    """Roots 2.0 and 1.1: 2.1 lies beside the last root."""
    reachable = reachable_heads([(2, 0), (1, 1)], n_heads=2)
    assert reachable == EVERY - {(2, 1)}
    lists = {"mine": frozenset({(2, 0), (2, 1), (0, 0)})}
    summary = trace_summary(
        NODES, EDGES, lists, n_prompts=10, reachable=reachable, min_shares=(0.0,)
    )
    row = summary.filter(counted="prompts").row(0, named=True)
    assert (row["n_listed"], row["n_reachable"], row["n_shared"]) == (3, 2, 1)
    assert row["recall"] == 0.5
    assert row["random_precision"] == pytest.approx(2 / 5)
    assert row["random_recall"] == pytest.approx(3 / 5)


def test_the_published_graph_is_counted_by_its_own_edges() -> None:
    nodes = NODES.with_columns(trace_rule=pl.lit("fc24_code"))
    rows = [
        ("fc24_code", "communication", 1, 1, 2, 0, "end", 6, 9.0, 8.0),
        ("fc24_code", "communication", 0, 1, 1, 1, "S2", 1, 1.0, 1.0),
        ("fc24_code", "attention", None, None, 2, 0, "end", 6, 9.0, 8.0),
        ("fc24_code", "attention", None, None, 1, 1, "S2", 1, 1.0, 1.0),
    ]
    published = pl.DataFrame(rows, schema=PUBLISHED_SCHEMA, orient="row")
    summary = trace_summary(
        nodes,
        EDGES.clear(),
        {"mine": frozenset({(2, 0), (0, 0)})},
        n_prompts=10,
        reachable=EVERY,
        published=published,
        coverage={"fc24_code": Coverage(0.25, 0.5)},
        min_shares=(0.0, 0.664),
    ).filter(counted="published")
    sizes = ["n_kept_heads", "n_nodes", "n_communication_edges", "n_attention_edges"]
    assert summary.select(sizes).rows() == [(3, 5, 2, 2), (2, 3, 1, 1)]
    assert summary["precision"].to_list() == [pytest.approx(1 / 3), 0.5]
    assert summary["median_source_head_share"].to_list() == [0.5, 0.5]


def test_without_references_sizes_are_still_there() -> None:
    summary = trace_summary(NODES, EDGES, {}, n_prompts=10, reachable=EVERY)
    assert summary["head_list"].null_count() == summary.height == 10
    assert summary["n_kept_heads"].to_list()[0] == 3
    with pytest.raises(CircuitError, match="n_prompts is 0"):
        trace_summary(NODES, EDGES, {}, n_prompts=0, reachable=EVERY)


def test_published_circuits_serve_models_of_their_shape(organism: LanguageModel) -> None:
    assert reference_lists(organism.config) == {}
    small = replace(
        organism.config, n_layers=12, n_heads=12, n_kv_heads=12, d_model=768, d_vocab=50257
    )
    lists = reference_lists(small)
    whole = lists["wang-2022-ioi"]
    assert len(whole) == 26
    assert {(9, 9), (5, 5), (10, 7), (8, 6)} <= whole
    parts = [heads for name, heads in lists.items() if name.startswith("wang-2022-ioi: ")]
    assert len(parts) == 7
    assert sum(map(len, parts)) == len(whole)
    compared = lists["wang-2022-ioi, FC24"]
    assert len(compared) == 16
    assert compared < whole
    assert all(circuit["citation"] for circuit in published_circuits().values())
    movers = published_part(small, "wang-2022-ioi: name mover")
    assert sorted(movers) == [(9, 6), (9, 9), (10, 0)]
    assert "wang-2022-ioi: S-inhibition" in part_names()
    with pytest.raises(CircuitError, match="one of wang-2022-ioi: name mover"):
        published_part(small, "wang-2022-ioi: movers")
    with pytest.raises(CircuitError, match="none is published: name heads yourself"):
        published_part(organism.config, "wang-2022-ioi: name mover")


def test_roots_of_a_study_may_be_a_part_of_a_published_circuit() -> None:
    assert IoiSettings(roots="wang-2022-ioi: name mover").roots == "wang-2022-ioi: name mover"
    assert IoiSettings.model_validate({"roots": [[3, 3], [1, 0, "S2"]]}).roots == [
        (3, 3),
        (1, 0, "S2"),
    ]
    for wrong in ("movers", "wang-2022-ioi"):
        with pytest.raises(ValidationError, match=r"auto, or one of wang-2022-ioi: name mover"):
            IoiSettings(roots=wrong)


def test_own_lists_are_checked(organism: LanguageModel) -> None:
    assert reference_lists(organism.config, {"mine": [(1, 0), [2, 6]]}) == {
        "mine": frozenset({(1, 0), (2, 6)})
    }
    with pytest.raises(CircuitError, match=r"'far' names head L99H0"):
        reference_lists(organism.config, {"far": [(99, 0)]})
    with pytest.raises(CircuitError, match="'none' is empty"):
        reference_lists(organism.config, {"none": []})
