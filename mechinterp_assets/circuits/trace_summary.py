"""How big a traced circuit is, and how well it agrees with lists of heads.

Belongs here: table ioi_trace_summary. Does not belong here: the lists (reference_heads.py).

Overlap of heads is no measure of faithfulness: a circuit can share heads with a published one and
explain little of the behaviour. Random sets of as many heads are therefore beside each number.
"""

from collections.abc import Mapping, Sequence

import polars as pl
from scipy.stats import hypergeom

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.reference_heads import Heads

COUNTS = ("prompts", "paths")
SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "counted": pl.String(),
    "min_share": pl.Float64(),
    "min_count": pl.Float64(),
    "n_prompts": pl.Int64(),
    "n_attention_edges": pl.Int64(),
    "n_communication_edges": pl.Int64(),
    "n_nodes": pl.Int64(),
    "n_kept_heads": pl.Int64(),
    "head_list": pl.String(),
    "n_listed": pl.Int64(),
    "n_shared": pl.Int64(),
    "precision": pl.Float64(),
    "recall": pl.Float64(),
    "random_precision": pl.Float64(),
    "random_recall": pl.Float64(),
    "p_value": pl.Float64(),
}


def ioi_trace_summary(
    nodes: pl.DataFrame,
    edges: pl.DataFrame,
    references: Mapping[str, Heads],
    *,
    n_prompts: int,
    n_model_heads: int,
    min_shares: Sequence[float] = (0.0, 0.05, 0.25, 0.5, 0.664),
) -> pl.DataFrame:
    """Table ioi_trace_summary: one row per variant, kind of count, filter and reference list.

    nodes: ioi_trace_nodes; edges: ioi_trace_variants. A filter keeps nodes and edges whose count
    (distinct prompts, or paths) is at least min_share * n_prompts and at least 1; 0.664 is 170 of
    256, the published filter. n_model_heads: heads of the whole model, from which random sets of as
    many heads are drawn. Without references there is one row per filter, its comparison NULL.
    """
    if n_prompts <= 0:
        raise CircuitError(f"n_prompts is {n_prompts}; a trace has at least one prompt")
    rows = []
    variants = list(dict.fromkeys([*nodes["trace_rule"], *edges["trace_rule"]]))
    for variant in variants:
        for counted in COUNTS:
            column = "n_prompts" if counted == "prompts" else "path_multiplicity"
            for share in min_shares:
                least = max(1.0, share * n_prompts)
                of = (pl.col("trace_rule") == variant) & (pl.col(column) >= least - 1e-9)
                kept = nodes.filter(of)
                heads = set(kept.select("layer", "head").rows())
                sizes = {
                    "trace_rule": variant,
                    "counted": counted,
                    "min_share": share,
                    "min_count": least,
                    "n_prompts": n_prompts,
                    "n_attention_edges": kept["source_role"].drop_nulls().len(),
                    "n_communication_edges": edges.filter(of).height,
                    "n_nodes": kept.select("layer", "head", "destination_role").n_unique()
                    if kept.height
                    else 0,
                    "n_kept_heads": len(heads),
                }
                rows += [
                    sizes | _agreement(heads, name, reference, n_model_heads)
                    for name, reference in references.items()
                ] or [sizes]
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA)


def _agreement(
    heads: set[tuple[int, int]], name: str, reference: Heads, n_model_heads: int
) -> dict[str, object]:
    both = len(heads & reference)
    return {
        "head_list": name,
        "n_listed": len(reference),
        "n_shared": both,
        "precision": both / len(heads) if heads else None,
        "recall": both / len(reference),
        # Means over random sets of as many heads: hypergeometric.
        "random_precision": len(reference) / n_model_heads,
        "random_recall": len(heads) / n_model_heads,
        "p_value": float(hypergeom.sf(both - 1, n_model_heads, len(reference), len(heads))),
    }
