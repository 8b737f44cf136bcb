"""Areas of faithfulness curves: CPR and CMD (MIB, Mueller et al. 2025, arXiv 2504.13151).

Belongs here: one number per curve, and its variants. Does not belong here: curves (edge_sets.py).

CPR (circuit performance ratio) is the trapezoid of f over k, of the ranking by signed score: large
is good, above 1 where a part does better than the whole. CMD (circuit-model distance) is the
trapezoid of |1 - f| over k, of the ranking by |score|: small is good. Half of either area lies
between k = 0.5 and 1; the log variants integrate over log k and divide by its range, so that a
perfect circuit has CPR 1 and CMD 0 and every factor of k weighs the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError

SUMMARY_SCHEMA: dict[str, Any] = {
    "ranking": pl.String,
    "ranked_by": pl.String,
    "seed": pl.Int64,
    "cpr": pl.Float64,
    "cmd": pl.Float64,
    "cpr_log": pl.Float64,
    "cmd_log": pl.Float64,
    "smallest_k_90": pl.Float64,
    "n_points": pl.Int64,
    "n_prompts": pl.Int64,
}


def trapezoid(k: Sequence[float], values: Sequence[float], *, log: bool = False) -> float:
    """Area under values over increasing k; `log`: over log k, divided by its range."""
    at, height = np.asarray(k, dtype=float), np.asarray(values, dtype=float)
    if len(at) < 2 or len(at) != len(height) or not (np.diff(at) > 0).all():
        raise FaithfulnessError(
            f"an area needs two or more increasing circuit sizes, not {list(k)}"
        )
    if log:
        at = np.log(at) / (np.log(at[-1]) - np.log(at[0]))
    return float((np.diff(at) * (height[1:] + height[:-1]) / 2).sum())


def curve_summary(curves: pl.DataFrame) -> pl.DataFrame:
    """CPR, CMD and their log variants of every curve of `circuit_curves`: SUMMARY_SCHEMA.

    smallest_k_90: smallest stored k from which on |1 - f| stays at most .1; NULL where none.
    """
    rows = []
    for (ranking, ranked_by, seed), curve in curves.group_by(
        "ranking", "ranked_by", "seed", maintain_order=True
    ):
        curve = curve.sort("edge_fraction")
        k, f = curve["edge_fraction"].to_list(), curve["faithfulness"].to_numpy()
        gap = np.abs(1 - f)
        near = [size for place, size in enumerate(k) if (gap[place:] <= 0.1).all()]
        rows.append(
            {
                "ranking": ranking,
                "ranked_by": ranked_by,
                "seed": seed,
                "cpr": trapezoid(k, f.tolist()),
                "cmd": trapezoid(k, gap.tolist()),
                "cpr_log": trapezoid(k, f.tolist(), log=True),
                "cmd_log": trapezoid(k, gap.tolist(), log=True),
                "smallest_k_90": near[0] if near else None,
                "n_points": len(k),
                "n_prompts": curve["n_prompts"][0],
            }
        )
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA)
