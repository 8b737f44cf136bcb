"""Summary of a traced circuit, and the lists of heads that it is compared with."""

import itertools
from dataclasses import replace

import polars as pl
import pytest
from pydantic import ValidationError

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.graph import NODES_SCHEMA
from mechinterp_assets.circuits.reference_heads import (
    part_names,
    published_circuits,
    published_part,
    reference_lists,
)
from mechinterp_assets.circuits.settings import IoiSettings
from mechinterp_assets.circuits.trace_summary import ioi_trace_summary
from mechinterp_assets.circuits.trace_variants import VARIANTS_SCHEMA
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import table_specs


def node(
    layer: int, head: int, source: str | None, prompts: int, paths: float
) -> dict[str, object]:
    return {
        "trace_rule": "standard",
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
    [("standard", 1, 1, 2, 0, "END", "IO", "destination", 6, 6, 6.0, 1.0),
     ("standard", 0, 1, 1, 1, "END", "S2", "source", 1, 1, 9.0, 0.5)],
    schema=VARIANTS_SCHEMA,
    orient="row",
)  # fmt: skip


def test_filters_and_overlap() -> None:
    lists = {"mine": frozenset({(2, 0), (0, 0)}), "all": frozenset({(2, 0), (1, 1), (0, 1)})}
    summary = ioi_trace_summary(
        NODES, EDGES, lists, n_prompts=10, n_model_heads=6, min_shares=(0.0, 0.5)
    )
    declared = {
        c.name: c.polars_type
        for c in table_specs()["ioi_trace_summary"].science_columns
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
    summary = ioi_trace_summary(
        NODES, EDGES, {"mine": reference}, n_prompts=10, n_model_heads=6, min_shares=(0.5,)
    )
    row = summary.filter(counted="prompts").row(0, named=True)
    model = list(itertools.product(range(3), range(2)))
    sets = list(itertools.combinations(model, row["n_kept_heads"]))
    shared = [len(reference & set(heads)) for heads in sets]
    assert row["random_precision"] == pytest.approx(sum(shared) / len(sets) / row["n_kept_heads"])
    assert row["random_recall"] == pytest.approx(sum(shared) / len(sets) / len(reference))
    expected = sum(count >= row["n_shared"] for count in shared) / len(sets)
    assert row["p_value"] == pytest.approx(expected)


def test_without_references_sizes_are_still_there() -> None:
    summary = ioi_trace_summary(NODES, EDGES, {}, n_prompts=10, n_model_heads=6)
    assert summary["head_list"].null_count() == summary.height == 10
    assert summary["n_kept_heads"].to_list()[0] == 3
    with pytest.raises(CircuitError, match="n_prompts is 0"):
        ioi_trace_summary(NODES, EDGES, {}, n_prompts=0, n_model_heads=6)


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
    with pytest.raises(CircuitError, match=r"'far' names head 99\.0"):
        reference_lists(organism.config, {"far": [(99, 0)]})
    with pytest.raises(CircuitError, match="'none' is empty"):
        reference_lists(organism.config, {"none": []})
