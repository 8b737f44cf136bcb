"""The same prompts traced under several rules, counted side by side.

Belongs here: the named variants of TraceSettings, tables trace_variants and trace_nodes.
Does not belong here: the rules themselves (trace.py), the standard trace's graph (graph.py).

fc24, relative  the main rules (trace.py): positive contributions through S from pairs that fire
near            a main rule from root pairs that nearly fire
negative        heads that write against the slices in S
all_slices      every slice in place of S (FC24 Figures 4 and 16)
fc24_code       the rule of FC24's published code: a 1 appended to every head's output, the largest
                head kept whatever the sum, the two sides of a pair merged, and each path counted
                again; pairs fire as under fc24

A table's trace_rule is the name of one of these: changes of a main rule have its name in front,
such as fc24_near.
"""

from dataclasses import dataclass

import polars as pl

from mechinterp_assets.circuits.graph import GRAPH_KEY, GRAPH_SCHEMA, NODES_SCHEMA, trace_nodes
from mechinterp_assets.circuits.published_graph import (
    PUBLISHED_SCHEMA,
    prompt_steps,
    published_graph,
)
from mechinterp_assets.circuits.settings import MainRule, RuleName, TraceSettings
from mechinterp_assets.circuits.slices import SIDES
from mechinterp_assets.circuits.trace import Trace, counted_roots

PUBLISHED_RULE = "fc24_code"
_CHANGES = ("near", "negative", "all_slices")
VARIANTS_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    **{name: GRAPH_SCHEMA[name] for name in GRAPH_KEY},
    "n_prompts": pl.Int64(),
    "n_pairs": pl.Int64(),
    "path_multiplicity": pl.Float64(),
    "mean_contribution": pl.Float64(),
}
_PAIR = ("prompt", "destination", "source")


def rule_name(variant: RuleName, main: MainRule) -> str:
    """What trace_rule says of a variant of a study's main rule."""
    return f"{main}_{variant}" if variant in _CHANGES else variant


@dataclass(frozen=True)
class Coverage:
    """Median share of heads in what all writers do, over the traced pairs of a rule, per side."""

    destination: float | None
    source: float | None


class VariantCounts:
    """Counts of one rule over batches; of each row only what the tables need is kept."""

    def __init__(self, rule: str, prompts: pl.DataFrame) -> None:
        """rule: as rule_name gives it; prompts: those that are traced."""
        self.rule, self._prompts = rule, prompts
        self._edges: list[pl.DataFrame] = []
        self._nodes: list[pl.DataFrame] = []
        self._roots: list[pl.DataFrame] = []
        self._steps: list[pl.DataFrame] = []

    def add(self, part: Trace) -> None:
        """Take in the trace of a batch; no prompt may be in two of them."""
        kept = part.edges.filter("kept")
        if self.rule == PUBLISHED_RULE:
            of_batch = self._prompts.join(part.slices, on="prompt", how="semi")
            self._steps.append(prompt_steps(kept, of_batch))
        self._edges.append(kept.select(*_PAIR, *GRAPH_KEY, "path_multiplicity", "contribution"))
        self._nodes.append(traced_nodes(part.slices, part.edges))
        self._roots.append(part.roots)

    def edges(self) -> pl.DataFrame:
        """Rows of table trace_variants."""
        return count_edges(pl.concat(self._edges), self.rule)

    def nodes(self) -> pl.DataFrame:
        """Rows of table trace_nodes."""
        nodes = trace_nodes(pl.concat(self._nodes)).with_columns(trace_rule=pl.lit(self.rule))
        return nodes.select(pl.col(name).cast(dtype) for name, dtype in NODES_SCHEMA.items())

    def published(self) -> pl.DataFrame:
        """Rows of table trace_published; none but under the published code's rule."""
        if not self._steps:
            return pl.DataFrame(schema=PUBLISHED_SCHEMA)
        return published_graph(pl.concat(self._steps), self.rule)

    def coverage(self) -> Coverage:
        """Shares of heads over all traced pairs."""
        pairs = pl.concat(self._nodes)
        medians = [pairs[f"{side}_head_share"].median() for side in SIDES]
        return Coverage(*(None if m is None else float(str(m)) for m in medians))

    def roots(self) -> pl.DataFrame:
        """Columns of Trace.roots over all batches."""
        return counted_roots(self._roots)


def variant_settings(variant: RuleName, main: TraceSettings, near: float) -> TraceSettings:
    """Settings of a variant, for kept head edges alone; the rest is as in `main`.

    near: least attention of a pair that nearly fires.
    """
    changed: dict[RuleName, dict[str, object]] = {
        "fc24": {"trace_rule": "fc24"},
        "relative": {"trace_rule": "relative"},
        "near": {"near": near},
        "negative": {"sign": "negative"},
        "all_slices": {"every_slice": True},
        "fc24_code": {"fc24_code": True, "trace_rule": "fc24"},
    }
    only = {"other_writers": False, "keep_all": False, "slice_contrast": False}
    return main.with_changes(**only, **changed[variant])


def traced_nodes(slices: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """One row per prompt, head and pair (or position) of a trace: what trace_nodes counts.

    A head that was kept but attends nowhere (no pair of it fires from where it wrote) has one row
    per position, with no source, attention and slices.
    """
    columns = ("prompt", "layer", "head", "destination", "destination_role", "source_role")
    pairs = slices.filter(pl.col("path_multiplicity") > 0).select(
        *columns,
        *("attention", "n_slices", "is_root", "path_multiplicity"),
        *(f"{side}_head_share" for side in SIDES),
    )
    wrote = (
        edges.filter(pl.col("kept") & (pl.col("upstream_kind") == "head"))
        .select(
            "prompt",
            "path_multiplicity",
            layer="upstream_layer",
            head="upstream_head",
            destination="written_at",
            destination_role="written_role",
        )
        .group_by("prompt", "layer", "head", "destination", "destination_role")
        .agg(pl.col("path_multiplicity").sum())
        .join(pairs, on=["prompt", "layer", "head", "destination"], how="anti")
        .with_columns(is_root=pl.lit(False))
    )
    return pl.concat([pairs, wrote], how="diagonal").drop("destination")


def count_edges(edges: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Table trace_variants of one rule, from kept head edges; fc24_code: sides merged."""
    key = list(GRAPH_KEY if rule != PUBLISHED_RULE else GRAPH_KEY[:-2])
    counted = edges.group_by(*key).agg(
        n_prompts=pl.col("prompt").n_unique(),
        n_pairs=pl.struct(*_PAIR).n_unique(),
        path_multiplicity=pl.col("path_multiplicity").sum(),
        mean_contribution=pl.col("contribution").mean(),
    )
    if rule == PUBLISHED_RULE:
        none = pl.lit(None, pl.String)
        counted = counted.with_columns(side=none, written_role=none)
    return (
        counted.with_columns(trace_rule=pl.lit(rule))
        .select(pl.col(name).cast(dtype) for name, dtype in VARIANTS_SCHEMA.items())
        .sort("path_multiplicity", *key, descending=[True, *[False] * len(key)])
    )
