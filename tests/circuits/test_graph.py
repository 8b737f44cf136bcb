"""The circuit graph: aggregation, networkx, GraphML, picture."""

import io

import networkx as nx
import polars as pl
import pytest

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.graph import (
    graph_picture,
    to_graphml,
    to_networkx,
    trace_graph,
    trace_nodes,
)
from mechinterp_assets.circuits.trace import EDGES_SCHEMA
from mechinterp_assets.storage.declarations import table_specs


def edge(
    prompt: int, upstream: tuple[int, int], downstream: tuple[int, int], **more: object
) -> dict[str, object]:
    row: dict[str, object] = {
        "prompt": prompt,
        "upstream_kind": "head",
        "upstream_layer": upstream[0],
        "upstream_head": upstream[1],
        "downstream_layer": downstream[0],
        "downstream_head": downstream[1],
        "destination": 9,
        "source": 2,
        "destination_role": "END",
        "source_role": "IO",
        "side": "destination",
        "written_at": 9,
        "written_role": "END",
        "trace_rule": "fc24",
        "slices": [0, 4],
        "contribution": 1.0,
        "exact_effect": 2.0,
        "contribution_share": 0.5,
        "head_share": 0.4,
        "kept": True,
        "is_root": downstream[0] == 2,
        "path_multiplicity": 1.0,
    }
    return row | more


@pytest.fixture(scope="module")
def edges() -> pl.DataFrame:
    rows = [
        edge(0, (1, 0), (2, 3)),
        edge(0, (1, 0), (2, 3), side="source", written_role="IO", contribution=3.0),
        edge(1, (1, 0), (2, 3), contribution=2.0, contribution_share=1.0),
        edge(0, (0, 5), (1, 0), destination=9, source=4, source_role="S2", path_multiplicity=2.0),
        edge(0, (0, 5), (1, 0), destination=8, source=4, destination_role="END", source_role="S2"),
        edge(1, (0, 5), (2, 3), kept=False),
        edge(1, (0, 5), (2, 3), upstream_kind="mlp", upstream_head=None, kept=False),
    ]
    return pl.DataFrame(rows, schema=EDGES_SCHEMA)


def test_aggregation(edges: pl.DataFrame) -> None:
    graph = trace_graph(edges)
    declared = {
        c.name: c.polars_type
        for c in table_specs()["trace_graph"].science_columns
        if c.name != "task"
    }
    assert dict(graph.schema) == declared
    rows = {(r["upstream_layer"], r["downstream_layer"], r["side"]): r for r in graph.to_dicts()}
    assert len(rows) == graph.height == 3
    both = rows[1, 2, "destination"]
    assert (both["n_prompts"], both["n_pairs"], both["path_multiplicity"]) == (2, 2, 2.0)
    assert (both["mean_contribution"], both["mean_contribution_share"], both["is_root"]) == (
        1.5,
        0.75,
        True,
    )
    lower = rows[0, 1, "destination"]
    assert (lower["n_prompts"], lower["n_pairs"], lower["path_multiplicity"]) == (1, 2, 3.0)
    assert graph["n_prompts"].is_sorted(descending=True)


def test_networkx_and_graphml_keep_sides_apart(edges: pl.DataFrame) -> None:
    graph = trace_graph(edges)
    built = to_networkx(graph)
    assert isinstance(built, nx.MultiDiGraph)
    assert set(built) == {"L0H5", "L1H0", "L2H3"}
    assert built.number_of_edges("L1H0", "L2H3") == 2
    assert {data["side"] for data in built["L1H0"]["L2H3"].values()} == {"destination", "source"}
    assert [name for name, data in built.nodes(data=True) if data["is_root"]] == ["L2H3"]
    assert nx.is_directed_acyclic_graph(built)
    again = nx.read_graphml(io.BytesIO(to_graphml(graph)), force_multigraph=True)
    assert nx.utils.graphs_equal(nx.MultiDiGraph(again), built) or (
        sorted(again.edges()) == sorted(built.edges())
        and again.nodes["L2H3"] == built.nodes["L2H3"]
        and sorted(d["n_prompts"] for *_, d in again.edges(data=True))
        == sorted(d["n_prompts"] for *_, d in built.edges(data=True))
    )


def test_picture(edges: pl.DataFrame) -> None:
    graph = trace_graph(edges)
    assert graph_picture(graph).startswith(b"\x89PNG")
    assert graph_picture(graph.head(1), title="one edge").startswith(b"\x89PNG")
    with pytest.raises(CircuitError, match="no edges"):
        graph_picture(graph.clear())


def test_empty_trace_is_an_empty_graph(edges: pl.DataFrame) -> None:
    graph = trace_graph(edges.clear())
    assert graph.is_empty()
    assert to_networkx(graph).number_of_nodes() == 0


def test_nodes() -> None:
    slices = pl.DataFrame(
        {
            "prompt": [0, 1, 1, 1],
            "layer": [2, 2, 1, 2],
            "head": [3, 3, 0, 4],
            "destination_role": ["END"] * 4,
            "source_role": ["IO", "IO", "S2", "IO"],
            "path_multiplicity": [1.0, 1.0, 3.0, 0.0],
            "attention": [0.6, 0.8, 0.9, 0.1],
            "n_slices": [2, 4, 1, 5],
            "destination_head_share": [0.2, 0.4, None, 1.0],
            "source_head_share": [0.1, 0.1, 0.5, 1.0],
            "is_root": [True, True, False, True],
        }
    )
    nodes = trace_nodes(slices)
    assert nodes.height == 2
    first = nodes.row(0, named=True)
    assert (first["layer"], first["head"], first["n_prompts"], first["mean_n_slices"]) == (
        2,
        3,
        2,
        3.0,
    )
    assert first["mean_attention"] == pytest.approx(0.7)
    assert first["mean_destination_head_share"] == pytest.approx(0.3)
    assert nodes["mean_source_head_share"].to_list() == pytest.approx([0.1, 0.5])
    assert nodes.row(1, named=True)["path_multiplicity"] == 3.0
