"""What pages say about the heads of a layer: roles, edges of the IOI trace, features they write.

Belongs here: text and numbers per head, from frames. Scores, traces and attribution are computed
elsewhere.
"""

from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.model.names import head_name

TOP_FEATURES = 8


class HeadNotes:
    """Roles and IOI edges of the heads of one layer.

    Attributes:
        roles: names of the roles of each head that has any.
        edges: lines about the IOI edges of each head that has any, most prompts first.
    """

    def __init__(self, frames: LayerFrames, layer: int) -> None:
        self.roles: dict[int, list[str]] = {}
        if frames.head_roles is not None:
            ordered = frames.head_roles.sort("head", "role")
            for head, role, value in ordered.select("head", "role", "value").iter_rows():
                self.roles.setdefault(head, []).append(f"{role.replace('_', ' ')} {number(value)}")
        self.edges: dict[int, list[str]] = {}
        if frames.ioi_edges is not None:
            ordered = frames.ioi_edges.sort("n_prompts", descending=True, maintain_order=True)
            for edge in ordered.iter_rows(named=True):
                self._add(edge, layer)

    def _add(self, edge: dict[str, Any], layer: int) -> None:
        upstream = head_name(edge["upstream_layer"], edge["upstream_head"])
        downstream = head_name(edge["downstream_layer"], edge["downstream_head"])
        roles = f"{edge['destination_role']} → {edge['source_role']}"
        end = f"({roles}, {edge['side']}, {edge['n_prompts']} prompts)"
        if edge["upstream_layer"] == layer:
            text = f"writes to {downstream} {end}"
            self.edges.setdefault(edge["upstream_head"], []).append(text)
        if edge["downstream_layer"] == layer:
            text = f"reads from {upstream} {end}"
            self.edges.setdefault(edge["downstream_head"], []).append(text)


def head_rows(frames: LayerFrames, layer: int) -> list[dict[str, Any]]:
    """Rows of the layer index's table of heads, in order of the heads."""
    notes = HeadNotes(frames, layer)
    written = frames.head_attribution.drop_nulls("attribution")
    strongest = (
        written.sort("feature", "attribution", "head", descending=[False, True, False])
        .group_by("feature", maintain_order=True)
        .first()
    )
    n_led = dict(strongest.group_by("head").len().iter_rows())
    mean = dict(written.group_by("head").agg(pl.col("attribution").mean()).iter_rows())
    fired = frames.statistics.filter(pl.col("n_active") > 0).select("feature")
    top = (
        written.join(fired, on="feature", how="semi")
        .sort("head", "attribution", "feature", descending=[False, True, False])
        .group_by("head", maintain_order=True)
        .head(TOP_FEATURES)
    )
    rows = []
    for head in frames.head_attribution["head"].unique().sort().to_list():
        best = top.filter(pl.col("head") == head).select("feature", "attribution").iter_rows()
        rows.append(
            {
                "head": head,
                "roles": notes.roles.get(head, []),
                "edges": notes.edges.get(head, []),
                "n_led": f"{n_led.get(head, 0):,}",
                "mean": number(mean.get(head)),
                "top": [{"feature": f, "share": number(share)} for f, share in best],
            }
        )
    return rows
