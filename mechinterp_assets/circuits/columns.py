"""Columns that name a traced pair and an edge, the same in every tracer's frames.

Belongs here: names and types of these keys, in their order. Does not belong here: what a frame says
of a pair or an edge (its own module).
"""

import polars as pl

PAIR: dict[str, pl.DataType] = {
    "prompt": pl.Int64(),
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination": pl.Int32(),
    "source": pl.Int32(),
}
PAIR_ROLES: dict[str, pl.DataType] = {
    "destination_role": pl.String(),
    "source_role": pl.String(),
}
UPSTREAM: dict[str, pl.DataType] = {
    "upstream_kind": pl.String(),
    "upstream_layer": pl.Int32(),
    "upstream_head": pl.Int32(),
}
DOWNSTREAM: dict[str, pl.DataType] = {
    "downstream_layer": pl.Int32(),
    "downstream_head": pl.Int32(),
    "destination": pl.Int32(),
    "source": pl.Int32(),
    **PAIR_ROLES,
    "side": pl.String(),
}
