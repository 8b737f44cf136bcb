"""The traced circuit as assets: tables agree with one another, its page and GraphML are there."""

from pathlib import Path

import networkx as nx
import polars as pl
import pytest
from typer.testing import CliRunner

from mechinterp_assets.circuits.graph import GRAPH_KEY
from mechinterp_assets.cli import app
from tests.assets.conftest import Materialized


def read(tiny: Materialized, table: str) -> pl.DataFrame:
    return tiny.lake.read(table, "tiny").collect()


def test_the_standard_variant_is_the_graph(tiny: Materialized) -> None:
    graph, variants = read(tiny, "ioi_trace_graph"), read(tiny, "ioi_trace_variants")
    columns = [*GRAPH_KEY, "n_prompts", "n_pairs", "path_multiplicity"]
    standard = variants.filter(variant="standard")
    assert standard.height == graph.height > 0
    assert standard.select(columns).sort(columns).equals(graph.select(columns).sort(columns))
    assert set(variants["variant"]) <= {"standard", "near", "negative", "all_slices", "published"}
    edges = read(tiny, "ioi_trace_edges").filter("kept")
    assert edges["path_multiplicity"].sum() == graph["path_multiplicity"].sum()


def test_summary_counts_the_other_tables(tiny: Materialized) -> None:
    summary = read(tiny, "ioi_trace_summary")
    row = summary.filter(variant="standard", counted="prompts", min_share=0.0).row(0, named=True)
    nodes = read(tiny, "ioi_trace_nodes").filter(variant="standard")
    assert row["n_heads"] == nodes.select("layer", "head").n_unique()
    assert row["n_communication_edges"] == read(tiny, "ioi_trace_graph").height
    # No published circuit is about a model of this shape.
    assert row["reference"] is None


def test_contrast_and_usage_cover_what_was_traced(tiny: Materialized) -> None:
    slices = read(tiny, "attention_slices").filter(pl.col("path_multiplicity") > 0)
    assert read(tiny, "ioi_slice_contrast").height == 2 * slices.height
    for table in ("attention_slice_counts", "attention_slice_usage"):
        assert set(read(tiny, table)["text"]) == {"ioi", "corpus"}
    assert read(tiny, "attention_consensus").height > 0


def test_page_and_graphml(
    tiny: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.home / "dashboards" / "tiny.trace"
    assert {path.name for path in folder.iterdir()} == {"index.html", "trace.png", "trace.graphml"}
    assert '<svg id="trace"' in (folder / "index.html").read_text()
    study = (tiny.home / "dashboards" / "tiny" / "index.html").read_text()
    assert 'href="../tiny.trace/index.html"' in study
    assert 'href="../tiny.frontier/index.html"' in study
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    target = tmp_path / "circuit.graphml"
    written = CliRunner().invoke(app, ["trace-graph", "tiny", str(target)])
    assert written.exit_code == 0, written.output
    graph = nx.read_graphml(target, force_multigraph=True)
    assert graph.number_of_edges() == read(tiny, "ioi_trace_graph").height
    missing = CliRunner().invoke(app, ["trace-graph", "nothing", str(target)])
    assert missing.exit_code != 0
