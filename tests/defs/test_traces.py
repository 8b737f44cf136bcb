"""The traced circuit as assets: tables agree with one another, its page and GraphML are there."""

from pathlib import Path

import networkx as nx
import polars as pl
import pytest

from mechinterp_assets.circuits.graph import GRAPH_KEY
from tests.command_line import call
from tests.defs.conftest import Materialized


def read(tiny: Materialized, table: str) -> pl.DataFrame:
    return tiny.lake.read(table, "tiny").collect()


def test_one_rule_is_in_every_table_of_a_trace(tiny: Materialized) -> None:
    rule = tiny.study.ioi.trace_rule
    assert rule == "relative"
    for table in (
        *("trace_roots", "trace_edges", "trace_graph", "attention_slices"),
        *("attention_slice_contrast", "attention_consensus", "attention_token_signal"),
    ):
        assert set(read(tiny, table)["trace_rule"]) == {rule}
    traced = read(tiny, "attention_slices").filter(pl.col("path_multiplicity") > 0)
    for side in ("destination", "source"):
        assert traced[f"{side}_head_share"].is_between(0, 1).all()
        silent = traced.filter(pl.col(f"{side}_heads") <= 0)
        assert (silent[f"{side}_kept"] == 0).all()


def test_the_published_graph_has_its_own_nodes_and_counts(tiny: Materialized) -> None:
    graph = read(tiny, "trace_published")
    assert set(graph["trace_rule"]) == {"fc24_code"}
    summary = read(tiny, "trace_summary").filter(counted="published", min_share=0.0)
    for row in summary.to_dicts():
        own = graph.filter(task=row["task"])
        kinds = dict(own.group_by("edge_kind").len().iter_rows())
        assert row["n_attention_edges"] == kinds["attention"]
        assert row["n_communication_edges"] == kinds["communication"]
        # Every node with a role has its one attention edge.
        assert row["n_nodes"] == row["n_kept_heads"] + kinds["attention"]


def test_the_main_rule_is_the_graph(tiny: Materialized) -> None:
    graph, variants = read(tiny, "trace_graph"), read(tiny, "trace_variants")
    columns = ["task", *GRAPH_KEY, "n_prompts", "n_pairs", "path_multiplicity"]
    main = variants.filter(trace_rule="relative")
    assert main.height == graph.height > 0
    assert main.select(columns).sort(columns).equals(graph.select(columns).sort(columns))
    changes = {f"relative_{change}" for change in ("near", "negative", "all_slices")}
    assert set(variants["trace_rule"]) <= {"relative", *changes, "fc24_code"}
    edges = read(tiny, "trace_edges").filter("kept")
    assert edges["path_multiplicity"].sum() == graph["path_multiplicity"].sum()


def test_summary_counts_the_other_tables(tiny: Materialized) -> None:
    summary = read(tiny, "trace_summary")
    for task in tiny.study.tasks.traced:
        rows = summary.filter(trace_rule="relative", counted="prompts", min_share=0.0, task=task)
        row = rows.row(0, named=True)
        nodes = read(tiny, "trace_nodes").filter(trace_rule="relative", task=task)
        assert row["n_kept_heads"] == nodes.select("layer", "head").n_unique()
        assert row["n_communication_edges"] == read(tiny, "trace_graph").filter(task=task).height
        # No published circuit is about a model of this shape.
        assert row["head_list"] is None


def test_every_traced_task_has_rows_of_its_own_prompts(tiny: Materialized) -> None:
    tasks = tiny.study.tasks.traced
    assert tasks == ["ioi", "gendered_pronoun"]
    prompts = {
        "ioi": read(tiny, "ioi_prompts").filter(variant="base"),
        "gendered_pronoun": read(tiny, "task_prompts").filter(
            variant="base", task="gendered_pronoun"
        ),
    }
    assert prompts["gendered_pronoun"].height == tiny.study.tasks.prompts
    for table in ("attention_slices", "trace_edges", "attention_slice_contrast"):
        rows = read(tiny, table)
        assert rows["task"].unique(maintain_order=True).to_list() == tasks
        for task in tasks:
            assert set(rows.filter(task=task)["prompt"]) <= set(prompts[task]["prompt"])
    for table in ("trace_graph", "trace_nodes", "trace_variants"):
        roles = read(tiny, table).filter(task="gendered_pronoun")["destination_role"]
        known = {"BOS", "other", "END", "NAME", "VERB", "PUNCT", "TAG"}
        assert set(roles) <= known
    of_root = read(tiny, "attention_slices").filter("is_root")
    assert set(of_root["destination_role"]) == {"END"}


def test_acc_starts_at_the_same_roots_and_says_what_each_head_read(tiny: Materialized) -> None:
    pairs, edges = read(tiny, "acc_pairs"), read(tiny, "acc_edges")
    tasks = tiny.study.tasks.traced
    key = ["task", "layer", "head", "source_role"]
    roots = read(tiny, "trace_roots").filter(pl.col("head").is_not_null())
    seeds = pairs.filter("is_root")
    assert set(seeds.select(key).unique().rows()) == set(roots.select(key).rows())
    assert set(seeds["trace_rule"]) == {"acc", "acc++"}
    assert set(seeds["task"]) == set(tasks)
    assert pairs["terms_error"].max() < 1e-5
    followed = edges.filter("upstream_reaches_limit")
    on = ["task", "trace_rule", "prompt", "layer", "head", "destination", "source"]
    columns = (*on[:3], "upstream_layer", "upstream_head", "written_at", "token_read")
    upstream = followed.select(columns).unique().rows()
    assert set(upstream) <= set(pairs.select(on).rows())
    sets = set(read(tiny, "head_set_quality")["head_set"])
    of_rules = set(edges.filter(upstream_kind="head", task="ioi")["trace_rule"])
    assert {f"trace {rule}" for rule in of_rules} <= sets


def test_contrast_and_usage_cover_what_was_traced(tiny: Materialized) -> None:
    slices = read(tiny, "attention_slices").filter(pl.col("path_multiplicity") > 0)
    assert read(tiny, "attention_slice_contrast").height == 2 * slices.height
    for table in ("attention_slice_counts", "attention_slice_usage"):
        assert set(read(tiny, table)["text_source"]) == {"ioi", "corpus"}
    assert read(tiny, "attention_consensus").height > 0


def test_page_and_graphml(
    tiny: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("", ".gendered_pronoun"):
        folder = tiny.home / "dashboards" / f"tiny.trace{task}"
        names = {"index.html", "trace.png", "trace.graphml", "published.graphml"}
        assert {path.name for path in folder.iterdir()} == names
        page = (folder / "index.html").read_text()
        assert '<svg id="trace"' in page
        assert ("Circuit of gendered pronoun" in page) == bool(task)
    study = (tiny.home / "dashboards" / "tiny" / "index.html").read_text()
    assert 'href="../tiny.trace/index.html"' in study
    assert 'href="../tiny.trace.gendered_pronoun/index.html"' in study
    assert 'href="../tiny.frontier/index.html"' in study
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    target = tmp_path / "circuit.graphml"
    written = call(["trace-graph", "tiny", str(target)])
    assert written.exit_code == 0, written.output
    graph = nx.read_graphml(target, force_multigraph=True)
    edges = read(tiny, "trace_graph")
    assert graph.number_of_edges() == edges.filter(task="ioi").height
    other = ["trace-graph", "tiny", str(target), "--force", "--task", "gendered_pronoun"]
    refused = call([part for part in other if part != "--force"])
    assert refused.exit_code == 2
    assert f"{target} exists; name another file, or replace it with --force" in refused.stderr
    assert call(other).exit_code == 0
    graph = nx.read_graphml(target, force_multigraph=True)
    assert graph.number_of_edges() == edges.filter(task="gendered_pronoun").height
    untraced = call([*other[:-1], "greater_than"])
    assert untraced.exit_code != 0
    missing = call(["trace-graph", "nothing", str(target)])
    assert missing.exit_code != 0
