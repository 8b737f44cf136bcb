"""The block of activation intervals: counts, histogram, and examples of each interval.

Belongs here: which examples are shown and how their windows are cut. Counts and samples are made
by the feature pass.
"""

from typing import Any

from mechinterp_assets.dashboards.charts import bar_chart, number
from mechinterp_assets.dashboards.examples import example_text
from mechinterp_assets.dashboards.layer_frames import (
    ActivationsByFeature,
    ByFeature,
    LayerFrames,
    SequenceTokens,
)
from mechinterp_assets.dashboards.tokens import TokenTexts

SHOWN = {"top": 2, "random": 3}  # examples per interval
BEFORE, AFTER = 12, 5  # tokens around an example


class IntervalBlock:
    """Contents of the block for the features of one layer."""

    def __init__(self, frames: LayerFrames, tokens: SequenceTokens, texts: TokenTexts) -> None:
        self._tokens, self._texts = tokens, texts
        self._intervals = ByFeature(
            frames.intervals,
            ("interval", "low", "high", "n_active", "active_share"),
            "interval",
        )
        self._examples = ByFeature(
            frames.interval_examples,
            ("interval", "sample", "rank", "sequence", "position", "activation"),
            "interval",
            "sample",
            "rank",
        )
        self._activations = ActivationsByFeature(frames.activations)

    def content(self, feature: int, maximum: float) -> dict[str, Any]:
        """Template values: intervals (strongest first), histogram, maximum."""
        intervals = self._intervals.rows(feature)
        chosen = self._chosen(feature, [row["interval"] for row in intervals], maximum)
        rows, counts, titles = [], [], []
        for row in intervals:
            counts.append(row["n_active"])
            low, high = number(row["low"]), number(row["high"])
            titles.append(f"({low}, {high}]: {row['n_active']:,} tokens")
            rows.append(
                {
                    "low": low,
                    "high": high,
                    "n_active": f"{row['n_active']:,}",
                    "share": f"{100 * row['active_share']:.3g}%",
                    "examples": chosen[row["interval"]],
                }
            )
        label = "Active tokens by activation; " + "; ".join(titles)
        return {
            "intervals": rows[::-1],
            "histogram": bar_chart(counts, label=label, titles=titles, bar_width=22, log=True),
            "maximum": number(maximum),
        }

    def _chosen(
        self, feature: int, intervals: list[int], maximum: float
    ) -> dict[int, list[dict[str, Any]]]:
        """Examples of each interval, top before random."""
        active = self._activations.sequences(feature)
        found: dict[int, list[dict[str, Any]]] = {interval: [] for interval in intervals}
        taken: dict[tuple[int, str], int] = {}
        seen: set[tuple[int, int]] = set()  # a token may be of both kinds
        for row in sorted(self._examples.rows(feature), key=lambda r: r["sample"] != "top"):
            key, place = (row["interval"], row["sample"]), (row["sequence"], row["position"])
            if taken.get(key, 0) == SHOWN.get(row["sample"], 0) or place in seen:
                continue
            taken[key] = taken.get(key, 0) + 1
            seen.add(place)
            ids = self._tokens[row["sequence"]]
            start = max(0, row["position"] - BEFORE)
            stop = min(len(ids), row["position"] + AFTER)
            here = {row["position"]: row["activation"], **active.get(row["sequence"], {})}
            window = [here.get(i, 0.0) for i in range(start, stop)]
            text = example_text(ids, row["position"], start, window, [], maximum, self._texts)
            found[row["interval"]].append(
                {"kind": row["sample"], "activation": number(row["activation"]), "text": text}
            )
        return found
