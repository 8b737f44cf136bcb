"""The graph that FC24's published code builds, edge by edge the same.

Belongs here: its roles of positions, its keys and its counts, table trace_published, GraphML.
Does not belong here: the trace under the published rule (trace.py), this project's own graph
(graph.py).

A node is a head, or a head with the role of the token that was written for it (written role). A
communication edge leads from the upstream head to (downstream head, written role), whichever side
it was; an attention edge from (head, written role) to the head. Edges are keyed on upstream head,
downstream head and written role, so both sides and all pairs of a downstream head are one edge
where the written role is one. Tokens without a label are left out: labels are IO, S1 and S2, the
token before and after each, the last token and the one before, the first token, punctuation and
verb; where a position has several, the last named here.

Counts: an edge is counted once in the first prompt that has it and once per path in every later one
(the code compares a prompt with the one that made the edge). An attention edge has the sum of the
counts of the edges into it.

Source: Franco & Crovella 2024 (arXiv 2410.00340), section 5, and their published code: 173 nodes
(94 heads, 79 with a role) and 612 edges (533 and 79) on 256 prompts.
"""

import io

import networkx as nx
import polars as pl

from mechinterp_assets.model.names import head_name
from mechinterp_assets.prompts.roles import END, role_names, role_positions

PUBLISHED_KEY = (
    "upstream_layer",
    "upstream_head",
    "downstream_layer",
    "downstream_head",
    "written_role",
)
PUBLISHED_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "edge_kind": pl.String(),
    "upstream_layer": pl.Int32(),
    "upstream_head": pl.Int32(),
    "downstream_layer": pl.Int32(),
    "downstream_head": pl.Int32(),
    "written_role": pl.String(),
    "n_prompts": pl.Int64(),
    "path_multiplicity": pl.Float64(),
    "published_count": pl.Float64(),
}
_NAMES = ("IO", "S1", "S2")
_LAST = (("PUNCT", "punct"), ("VERB", "verb"))


def published_roles(prompts: pl.DataFrame) -> pl.DataFrame:
    """Labelled positions: prompt, written_at, written_role. Roles that prompts lack label none."""
    known = set(role_names(prompts))
    labels: list[tuple[str, list[int]]] = []

    def add(name: str, positions: list[int], shift: int = 0) -> None:
        labels.append((name, [p + shift if p >= 0 else -1 for p in positions]))

    for name in _NAMES:
        if name in known:
            at = role_positions(prompts, name)
            for suffix, shift in (("", 0), ("-1", -1), ("+1", 1)):
                add(name + suffix, at, shift)
    for suffix, shift in (("", 0), ("-1", -1)):
        add("end" + suffix, role_positions(prompts, END), shift)
    labels.append(("starts", [0] * prompts.height))
    for role, name in _LAST:
        if role in known:
            add(name, role_positions(prompts, role))
    rows: dict[tuple[int, int], str] = {}
    for name, positions in labels:
        for prompt, length, p in zip(
            prompts["prompt"], prompts["n_tokens"], positions, strict=True
        ):
            if 0 <= p < length:
                rows[prompt, p] = name  # a later label takes the place of an earlier one
    return pl.DataFrame(
        [(prompt, p, name) for (prompt, p), name in rows.items()],
        schema={"prompt": pl.Int64(), "written_at": pl.Int32(), "written_role": pl.String()},
        orient="row",
    )


def prompt_steps(edges: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Steps of the published recursion per prompt and edge: PUBLISHED_KEY, prompt, steps.

    edges: kept rows of trace_edges of the rule fc24_code; one step per path and side.
    """
    return (
        edges.filter(pl.col("kept"))
        .drop("written_role")
        .join(published_roles(prompts), on=["prompt", "written_at"])
        .group_by("prompt", *PUBLISHED_KEY)
        .agg(steps=pl.col("path_multiplicity").sum())
    )


def published_graph(steps: pl.DataFrame, trace_rule: str) -> pl.DataFrame:
    """Table trace_published, without study and task, from prompt_steps of all prompts."""
    first = pl.col("prompt") == pl.col("prompt").min().over(PUBLISHED_KEY)
    communication = (
        steps.with_columns(counted=pl.when(first).then(1.0).otherwise("steps"))
        .group_by(PUBLISHED_KEY)
        .agg(
            n_prompts=pl.len(),
            path_multiplicity=pl.col("steps").sum(),
            published_count=pl.col("counted").sum(),
        )
        .with_columns(edge_kind=pl.lit("communication"))
    )
    of_node = ("downstream_layer", "downstream_head", "written_role")
    attention = (
        communication.group_by(of_node)
        .agg(pl.col("path_multiplicity", "published_count").sum())
        .join(steps.group_by(of_node).agg(n_prompts=pl.col("prompt").n_unique()), on=of_node)
        .with_columns(edge_kind=pl.lit("attention"))
    )
    return (
        pl.concat([communication, attention], how="diagonal_relaxed")
        .with_columns(trace_rule=pl.lit(trace_rule))
        .select(pl.col(name).cast(dtype) for name, dtype in PUBLISHED_SCHEMA.items())
        .sort("edge_kind", "published_count", *PUBLISHED_KEY, descending=[True, True, *[False] * 5])
    )


def published_networkx(graph: pl.DataFrame) -> nx.DiGraph:
    """Rows of trace_published as a graph: nodes "L9H9" and "L9H9 IO", an edge per row."""
    result = nx.DiGraph()
    for row in graph.iter_rows(named=True):
        head = head_name(row["downstream_layer"], row["downstream_head"])
        for_it = f"{head} {row['written_role']}"
        kind = row["edge_kind"]
        if kind == "communication":
            ends = head_name(row["upstream_layer"], row["upstream_head"]), for_it
        else:
            ends = for_it, head
        counts = {name: row[name] for name in ("n_prompts", "path_multiplicity", "published_count")}
        result.add_edge(*ends, edge_kind=kind, **counts)
    return result


def published_graphml(graph: pl.DataFrame) -> bytes:
    """That graph as GraphML (UTF-8)."""
    buffer = io.BytesIO()
    nx.write_graphml(published_networkx(graph), buffer)
    return buffer.getvalue()
