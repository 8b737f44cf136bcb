"""Blocks that relate a feature to others and to text: neighbours and n-grams.

Belongs here: how those tables are shown. They are computed in the feature packages.
"""

from collections.abc import Callable
from typing import Any

from mechinterp_assets.dashboards.charts import number, percent, signed
from mechinterp_assets.dashboards.layer_frames import ByFeature, LayerFrames
from mechinterp_assets.dashboards.tokens import TokenTexts

NEIGHBOURS, NGRAMS = 8, 6  # rows per table
BAR = 34  # longest bar, in pixels
KINDS = {
    "coactivation": "active together",
    "decoder_cosine": "write alike",
}


class RelationBlocks:
    """Contents of both blocks for the features of one layer."""

    def __init__(
        self, frames: LayerFrames, texts: TokenTexts, linked: Callable[[int], bool]
    ) -> None:
        self._texts, self._linked = texts, linked
        self._neighbours = ByFeature(
            frames.neighbours,
            ("measure", "rank", "neighbour", "similarity", "n_coactive"),
            "measure",
            "rank",
        )
        self._ngrams = ByFeature(
            frames.ngrams,
            ("ngram_size", "rank", "token_ids", "active_share", "rate", "mean_activation"),
            "ngram_size",
            "rank",
        )
        names = frames.described() if frames.neighbours is not None else None
        rows = [] if names is None else names.select("feature", "fires_on", "promotes").iter_rows()
        self._names = {feature: (fires_on, promotes) for feature, fires_on, promotes in rows}

    def content(self, feature: int) -> dict[str, Any]:
        """Template values `neighbours` and `ngrams`: tables with a title and rows."""
        return {
            "neighbours": self._neighbour_tables(feature),
            "ngrams": self._ngram_tables(feature),
        }

    def _neighbour_tables(self, feature: int) -> list[dict[str, Any]]:
        tables: dict[str, list[dict[str, Any]]] = {}
        for row in self._neighbours.rows(feature):
            rows = tables.setdefault(row["measure"], [])
            if len(rows) < NEIGHBOURS:
                fires_on, promotes = self._names.get(row["neighbour"], (None, None))
                rows.append(
                    {
                        "feature": row["neighbour"],
                        "linked": self._linked(row["neighbour"]),
                        "value": signed(row["similarity"]),
                        "negative": row["similarity"] < 0,
                        "width": round(BAR * min(1.0, abs(row["similarity"]))),
                        "n_both": "" if row["n_coactive"] is None else f"{row['n_coactive']:,}",
                        "fires_on": self._label(fires_on),
                        "promotes": self._label(promotes),
                    }
                )
        return [
            {"title": KINDS.get(kind, kind.replace("_", " ")), "rows": rows}
            for kind, rows in tables.items()
        ]

    def _ngram_tables(self, feature: int) -> list[dict[str, Any]]:
        tables: dict[int, list[dict[str, Any]]] = {}
        for row in self._ngrams.rows(feature):
            rows = tables.setdefault(row["ngram_size"], [])
            if len(rows) < NGRAMS:
                rows.append(
                    {
                        "tokens": [self._texts.labels[token] for token in row["token_ids"]],
                        "share": percent(row["active_share"]),
                        "width": round(BAR * (row["active_share"] or 0.0)),
                        "rate": percent(row["rate"]),
                        "mean": number(row["mean_activation"]),
                    }
                )
        return [
            {"title": f"{n} token{'s' if n > 1 else ''}", "rows": rows}
            for n, rows in sorted(tables.items())
        ]

    def _label(self, token: int | None) -> str | None:
        return None if token is None else self._texts.labels[token]


# ---- private -------------------------------------------------------------------------------------
