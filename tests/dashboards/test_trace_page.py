"""The page of a traced circuit: what it shows, and that text cannot break out of it."""

import re

import polars as pl

from mechinterp_assets.circuits.graph import GRAPH_SCHEMA, NODES_SCHEMA
from mechinterp_assets.dashboards.experiments_page import SLICE_FIGURES
from mechinterp_assets.dashboards.trace_page import SLICES, render_trace
from mechinterp_assets.storage.provenance import Provenance

MEASURED = ("fc24", 5, 5, 7.0, 1.25, 0.5, 0.1, 0.25, True)
HOSTILE = "<script>alert('x')</script>\"&"


def page(graph: pl.DataFrame) -> str:
    nodes = pl.DataFrame(
        [
            ("fc24", 2, 3, HOSTILE, None, 5, 5, 7.0, None, None, None, None, True),
            ("fc24", 2, 3, "END", "IO", 3, 3, 7.0, 0.9, 2.0, 0.25, 0.5, True),
            ("fc24", 1, 0, "END", "IO", 1, 1, 7.0, 0.9, 2.0, 0.45, 0.1, True),
        ],
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
        (
            1,
            0,
            2,
            3,
            "END",
            HOSTILE,
            "source",
            HOSTILE,
            "fc24",
            5,
            5,
            7.0,
            1.25,
            0.5,
            0.1,
            0.25,
            True,
        ),
        (
            0,
            4,
            1,
            0,
            "S2",
            "S1",
            "destination",
            "S2",
            "fc24",
            3,
            3,
            3.0,
            0.5,
            None,
            0.2,
            0.5,
            False,
        ),
    )
    text = page(graph)
    assert HOSTILE not in text
    assert text.count("<script>") == 1
    assert "&lt;script&gt;" in text
    svg = text[text.index('<svg id="trace"') : text.index("</svg>", text.index('<svg id="trace"'))]
    assert len(re.findall(r'class="node"', svg)) == 3
    assert len(re.findall(r'class="edge"', svg)) == 2
    assert svg.count("#3a8fd1") == 1
    # Heads and edges say their layer, by which the page leaves out early ones.
    assert re.findall(r'data-up="(L\d)H\d"[^>]* data-layer="(\d)"', svg) == [
        ("L0", "0"),
        ("L1", "1"),
    ]
    assert all(
        name == layer for name, layer in re.findall(r'data-head="L(\d)H.*?data-layer="(\d)"', svg)
    )
    assert re.search(r'id="layers" type="range" min="0" max="2" value="0"', text)
    # Later layers are drawn to the right.
    x = {
        name: float(at)
        for name, at in re.findall(r'data-head="(L\dH\d)".*?<rect x="([\d.]+)"', svg)
    }
    assert x["L0H4"] < x["L1H0"] < x["L2H3"]
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "s&#39;&#39;tudy" in text


def test_how_much_heads_wrote_stands_beside_the_picture() -> None:
    text = page(
        graph_of(
            (1, 0, 2, 3, "END", "S2", "source", "S1", "fc24", 5, 5, 7.0, 1.2, 0.5, 0.1, 0.25, True)
        )
    )
    # Means over the 3 + 1 pairs.
    assert "Heads wrote 30% of what is read at destinations and 40% at sources" in text
    assert "One rule for all pairs, fc24" in text
    assert "<td>S1</td><td>0.25</td>" in text


def test_a_graph_without_edges_has_a_page() -> None:
    text = page(graph_of())
    assert "No head was kept as a writer of a root pair." in text
    assert "<svg id=" not in text


def test_the_picture_of_many_layers_fits_a_screen_and_starts_readable() -> None:
    rows = []
    for up in range(27):
        for k, side in ((0, "source"), (4, "destination"), (8, "source"), (13, "destination")):
            heads = (up, k % 9, up + 1 + k % 3, (k * 5 + up) % 9)
            n = up + k + 1
            rows.append(
                (*heads, "END", "S2", side, "S2", "fc24", n, n, 1.0, 1.0, 0.1, 0.1, 0.5, False)
            )
    text = page(graph_of(*rows))
    width, height = (
        int(re.search(rf'<svg id="trace"[^>]* {name}="(\d+)"', text)[1])
        for name in ("width", "height")
    )
    assert width <= 1240
    assert height <= 560
    least = int(re.search(r'<output id="least">(\d+)<', text)[1])
    counts = [int(n) for n in re.findall(r'class="edge"[^>]* data-n="(\d+)"', text)]
    assert 20 <= sum(n >= least for n in counts) <= 36 < len(counts)
    # The next lower threshold draws more than are readable.
    assert sum(n >= least - 1 for n in counts) > 36


def test_heads_are_links_and_tables_start_short() -> None:
    text = page(
        graph_of(
            (1, 0, 2, 3, "END", "S2", "source", "S2", "fc24", 5, 5, 7.0, 1.25, 0.5, 0.1, 0.25, True)
        )
    )
    assert '<a href="../s&#39;tudy.heads/L01H00.html">L1H0</a>' in text
    assert text.count("data-rows=") == 3
    assert "<title>s&#39;tudy: Circuit of IOI</title>" in text
    assert "1 of 1 connections, between 2 heads, are in at least 1 prompts" in text
    assert "Root pairs that fire do so in 5 of 9." in text


def test_links_lead_to_what_heads_read_on_the_prompts_of_ioi() -> None:
    assert set(SLICES) == {name.replace("_", "-") for name in SLICE_FIGURES}
    text = page(graph_of())
    for anchor in SLICES:
        assert f'href="../s&#39;tudy.experiments/index.html#{anchor}"' in text
