"""In how many prompts a trace has each head: two ways of counting, the same for every tracer.

Belongs here: heads by traced pairs and by edges. Does not belong here: what is made of the counts
(faithfulness/), traces (trace.py, acc_trace.py).

By pairs a head counts where a pair of it was traced: it fired and its score was followed upstream.
By edges it counts where it is an end of a kept edge; so do writers that attend nowhere from there.
"""

import polars as pl

HEAD = ("layer", "head")


def heads_by_pairs(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """trace_rule, layer, head, n_prompts, n_pairs; most first.

    pairs: attention_slices or acc_pairs; rows with path_multiplicity > 0 are traced.
    """
    return _counted(
        pairs.filter(pl.col("path_multiplicity") > 0).select("trace_rule", "prompt", *HEAD)
    )


def heads_by_edges(edges: pl.LazyFrame) -> pl.LazyFrame:
    """trace_rule, layer, head, n_prompts, n_pairs (ends of edges); most first.

    edges: kept rows of trace_edges, or acc_edges. A downstream head counts whoever wrote
    for it, an upstream one where the writer is a head.
    """
    ends = [
        edges.select("trace_rule", "prompt", layer=f"{end}_layer", head=f"{end}_head")
        for end in ("upstream", "downstream")
    ]
    return _counted(pl.concat(ends).filter(pl.col("head").is_not_null()))


def _counted(heads: pl.LazyFrame) -> pl.LazyFrame:
    key = ("trace_rule", *HEAD)
    return (
        heads.group_by(key)
        .agg(n_prompts=pl.col("prompt").n_unique().cast(pl.Int64), n_pairs=pl.len().cast(pl.Int64))
        .sort(
            "trace_rule",
            "n_prompts",
            "n_pairs",
            *HEAD,
            descending=[False, True, True, *[False] * 2],
        )
    )
