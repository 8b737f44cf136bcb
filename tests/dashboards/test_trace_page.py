"""The page of a traced circuit: what it shows, and that text cannot break out of it."""

import re

import polars as pl

from mechinterp_assets.circuits.graph import GRAPH_SCHEMA, NODES_SCHEMA
from mechinterp_assets.dashboards.trace_page import render_trace
from mechinterp_assets.storage.provenance import Provenance

HOSTILE = "<script>alert('x')</script>\"&"


def page(graph: pl.DataFrame) -> str:
    nodes = pl.DataFrame(
        [("standard", 2, 3, HOSTILE, None, 5, 5, 7.0, None, None, True)],
        schema=NODES_SCHEMA,
        orient="row",
    )
    roots = pl.DataFrame(
        {"layer": [2], "head": [3], "source": ["IO"], "n_prompts": [9], "n_firing": [5]}
    )
    origin = Provenance(study="s'tudy", run_id="run", code_version="1")
    return render_trace(graph, nodes, roots, origin, "model", HOSTILE)


def graph_of(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=GRAPH_SCHEMA, orient="row")


def test_picture_table_and_escaping() -> None:
    graph = graph_of(
        (1, 0, 2, 3, "END", HOSTILE, "source", 5, 5, 7.0, 1.25, 0.5, 0.1, True),
        (0, 4, 1, 0, "S2", "S1", "destination", 3, 3, 3.0, 0.5, None, 0.2, False),
    )
    text = page(graph)
    assert HOSTILE not in text
    assert text.count("<script>") == 1
    assert "&lt;script&gt;" in text
    svg = text[text.index('<svg id="trace"') : text.index("</svg>", text.index('<svg id="trace"'))]
    assert len(re.findall(r'class="node"', svg)) == 3
    assert len(re.findall(r'class="edge"', svg)) == 2
    assert svg.count("#3a8fd1") == 1
    # Later layers are drawn above.
    y = {name: float(at) for name, at in re.findall(r'data-head="([\d.]+)".*?cy="([\d.]+)"', svg)}
    assert y["2.3"] < y["1.0"] < y["0.4"]
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "s&#39;&#39;tudy" in text


def test_a_graph_without_edges_has_a_page() -> None:
    assert "0 of 0" in page(graph_of())
