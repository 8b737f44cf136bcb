"""The same prompts traced under several rules, counted side by side.

Belongs here: the named variants of TraceSettings, tables ioi_trace_variants and ioi_trace_nodes.
Does not belong here: the rules themselves (trace.py), the standard trace's graph (graph.py).

standard    positive contributions through S from pairs that fire (FC24 eq. 8)
near        the same from root pairs that nearly fire
negative    heads that write against the slices in S
all_slices  every slice in place of S (FC24 Figures 4 and 16)
fc24_code   the rule of FC24's published code: a 1 appended to every head's output, the two sides of
            a pair merged, and each path counted again
"""

from typing import Literal, get_args

import polars as pl

from mechinterp_assets.circuits.graph import GRAPH_KEY, NODES_SCHEMA, ioi_trace_nodes
from mechinterp_assets.circuits.settings import TraceSettings
from mechinterp_assets.circuits.trace import Trace

TraceVariant = Literal["standard", "near", "negative", "all_slices", "fc24_code"]
VARIANT_NAMES: tuple[TraceVariant, ...] = get_args(TraceVariant)
VARIANTS_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "upstream_layer": pl.Int32(),
    "upstream_head": pl.Int32(),
    "downstream_layer": pl.Int32(),
    "downstream_head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "side": pl.String(),
    "n_prompts": pl.Int64(),
    "n_pairs": pl.Int64(),
    "path_multiplicity": pl.Float64(),
    "mean_contribution": pl.Float64(),
}
_PAIR = ("prompt", "destination", "source")


class VariantCounts:
    """Counts of one variant over batches; of each row only what the tables need is kept."""

    def __init__(self, variant: TraceVariant) -> None:
        self.variant = variant
        self._edges: list[pl.DataFrame] = []
        self._nodes: list[pl.DataFrame] = []
        self._roots: list[pl.DataFrame] = []

    def add(self, part: Trace) -> None:
        """Take in the trace of a batch; no prompt may be in two of them."""
        kept = part.edges.filter("kept")
        self._edges.append(kept.select(*_PAIR, *GRAPH_KEY, "path_multiplicity", "contribution"))
        self._nodes.append(traced_nodes(part.slices, part.edges))
        self._roots.append(part.roots)

    def edges(self) -> pl.DataFrame:
        """Rows of table ioi_trace_variants."""
        return count_edges(pl.concat(self._edges), self.variant)

    def nodes(self) -> pl.DataFrame:
        """Rows of table ioi_trace_nodes."""
        nodes = ioi_trace_nodes(pl.concat(self._nodes)).with_columns(
            trace_rule=pl.lit(self.variant)
        )
        return nodes.select(pl.col(name).cast(dtype) for name, dtype in NODES_SCHEMA.items())

    def roots(self) -> pl.DataFrame:
        """Columns of Trace.roots over all batches."""
        roots = pl.concat(self._roots).group_by("layer", "head", "source", maintain_order=True)
        return roots.agg(pl.all().sum())


def variant_settings(variant: TraceVariant, standard: TraceSettings, near: float) -> TraceSettings:
    """Settings of a variant, for kept head edges alone; the rest is as in `standard`.

    near: least attention of a pair that nearly fires.
    """
    changed: dict[TraceVariant, dict[str, object]] = {
        "standard": {},
        "near": {"near": near},
        "negative": {"sign": "negative"},
        "all_slices": {"every_slice": True},
        "fc24_code": {"fc24_code": True},
    }
    only = {"other_writers": False, "keep_all": False, "slice_contrast": False}
    return standard.with_changes(**only, **changed[variant])


def traced_nodes(slices: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """One row per prompt, head and pair (or position) of a trace: what ioi_trace_nodes counts.

    A head that was kept but attends nowhere (no pair of it fires from where it wrote) has one row
    per position, with no source, attention and slices.
    """
    columns = ("prompt", "layer", "head", "destination", "destination_role", "source_role")
    pairs = slices.filter(pl.col("path_multiplicity") > 0).select(
        *columns, "attention", "n_slices", "is_root", "path_multiplicity"
    )
    at = pl.col("side") == "destination"
    wrote = (
        edges.filter(pl.col("kept") & (pl.col("upstream_kind") == "head"))
        .select(
            "prompt",
            "path_multiplicity",
            layer="upstream_layer",
            head="upstream_head",
            destination=pl.when(at).then("destination").otherwise("source"),
            destination_role=pl.when(at).then("destination_role").otherwise("source_role"),
        )
        .group_by("prompt", "layer", "head", "destination", "destination_role")
        .agg(pl.col("path_multiplicity").sum())
        .join(pairs, on=["prompt", "layer", "head", "destination"], how="anti")
        .with_columns(is_root=pl.lit(False))
    )
    return pl.concat([pairs, wrote], how="diagonal").drop("destination")


def count_edges(edges: pl.DataFrame, variant: TraceVariant) -> pl.DataFrame:
    """Table ioi_trace_variants of one variant, from kept head edges; fc24_code: sides merged."""
    key = list(GRAPH_KEY if variant != "fc24_code" else GRAPH_KEY[:-1])
    counted = edges.group_by(*key).agg(
        n_prompts=pl.col("prompt").n_unique(),
        n_pairs=pl.struct(*_PAIR).n_unique(),
        path_multiplicity=pl.col("path_multiplicity").sum(),
        mean_contribution=pl.col("contribution").mean(),
    )
    if variant == "fc24_code":
        counted = counted.with_columns(side=pl.lit(None, pl.String))
    return (
        counted.with_columns(trace_rule=pl.lit(variant))
        .select(pl.col(name).cast(dtype) for name, dtype in VARIANTS_SCHEMA.items())
        .sort("path_multiplicity", *key, descending=[True, *[False] * len(key)])
    )
