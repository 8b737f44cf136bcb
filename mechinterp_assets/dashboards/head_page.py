"""The page of one attention head.

Belongs here: what the page shows, from the tables of the study. How it looks is in templates/.
"""

import math
from collections.abc import Callable
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.attention_text import attention_in_words, attention_text
from mechinterp_assets.dashboards.charts import number, place_among, signed
from mechinterp_assets.dashboards.head_frames import HeadFrames
from mechinterp_assets.dashboards.layer_frames import SequenceTokens
from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.tokens import TokenTexts, token_label
from mechinterp_assets.model.names import head_name

BAR = 60  # longest bar, in pixels
EDGES = 12  # edges of a direction shown without unfolding
_SELECTIONS = {
    "strongest": "Where it attends most strongly",
    "spread": "Across all tokens, by how strongly it attends",
}
METRICS = ("logit_diff", "loss", "kl", "prob", "attn_score")  # order of the effects
MEASURES = {"ngrams": "same text", "decoder_slice": "same direction", "either": "either"}


class HeadPages:
    """Contents of the pages of one study's heads.

    Args:
        frames: tables of the study.
        study: name of the study.
        tokens: token ids of the sequences of the examples.
        texts: of the vocabulary.
        feature_link: address of a feature's page by (layer, feature); None without one.
    """

    def __init__(
        self,
        frames: HeadFrames,
        study: str,
        tokens: SequenceTokens,
        texts: TokenTexts,
        feature_link: Callable[[int, int], str | None],
    ) -> None:
        self.study, self.tokens, self.texts = study, tokens, texts
        self.frames, self.feature_link = frames, feature_link
        self.known = set(frames.heads)
        # Rows by head, looked up once for all pages.
        self._rows: dict[str, dict[tuple[int, int], list[dict[str, Any]]]] = {}
        for name in (
            *("scores", "roles", "examples", "features", "proxy", "labels", "nodes", "effects"),
            "task_effects",
        ):
            self._rows[name] = _by_head(getattr(frames, name), "layer", "head")
        self._rows["in"] = _by_head(frames.edges, "downstream_layer", "downstream_head")
        self._rows["out"] = _by_head(frames.edges, "upstream_layer", "upstream_head")
        self._all_values = {
            str(score[0]): part["value"].drop_nulls().to_list()
            for score, part in frames.scores.partition_by("score", as_dict=True).items()
        }
        self._n_tasks = 0 if frames.edges is None else frames.edges["task"].n_unique()
        self._families: dict[tuple[int, int], list[str]] = {}
        if frames.families is not None:
            ordered = frames.families.sort("layer", "feature", "family")
            for layer, feature, family in ordered.select("layer", "feature", "family").iter_rows():
                self._families.setdefault((layer, feature), []).append(family.replace("_", " "))

    def content(self, layer: int, head: int) -> dict[str, Any]:
        """Values of the template head.html, without the links to other heads."""
        at = (layer, head)
        labels = sorted(self._of("labels", at), key=lambda row: row["rater"])
        features = self._features(at, labels)
        return {
            "layer": layer,
            "head": head,
            "roles": self._roles(at),
            "scores": self._scores(at),
            "examples": self._examples(at),
            "features": features,
            "top_features": sum(row["rank"] < 10 for row in self._of("features", at)),
            "n_tasks": self._n_tasks,
            "has_families": any(row["families"] for row in features),
            "has_text": any(row["text_cluster"] for row in features),
            "has_slice": any(row["slice_cluster"] for row in features),
            "has_notes": any(row["labels"] for row in features),
            "proxy": self._proxy(at),
            "labels": [row for row in labels if row["feature"] is None],
            "edges": [
                {"title": "Reads from", "rows": self._edges("in", "upstream", at)},
                {"title": "Writes to", "rows": self._edges("out", "downstream", at)},
            ],
            "shown_edges": EDGES,
            "nodes": self._nodes(at),
            "effects": self._effects(at),
            **self._task_effects(at),
            "sql": {
                **filled_statements(self.study, layer, head=head),
                "provenance": filled_statements(self.study)["head_provenance"],
            },
        }

    def _of(self, name: str, at: tuple[int, int]) -> list[dict[str, Any]]:
        return self._rows[name].get(at, [])

    def _roles(self, at: tuple[int, int]) -> list[str]:
        return sorted(str(row["role"]).replace("_", " ") for row in self._of("roles", at))

    def _scores(self, at: tuple[int, int]) -> list[dict[str, Any]]:
        """One row per score, those that pass first, then those that could."""
        rows = []
        for row in self._of("scores", at):
            value, null, sd = row["value"], row["null_mean"], row["null_sd"]
            chance = None if null is None or sd is None else (null, sd)
            words = "" if chance is None else f"; chance {number(null)} ± {number(sd)}"
            limit = "" if row["threshold"] is None else f"; threshold {number(row['threshold'])}"
            chart = ""
            if value is not None:
                chart = place_among(
                    self._all_values[row["score"]],
                    value,
                    label=f"{row['score']} {number(value)} among all heads{words}{limit}",
                    null=chance,
                    threshold=row["threshold"],
                )
            rows.append(
                {
                    "score": row["score"].replace("_", " "),
                    "name": row["score"],
                    "passes": row["passes"],
                    "order": (not row["passes"], row["threshold"] is None, row["score"]),
                    "value": number(value),
                    "null": "–" if null is None else f"{number(null)} ± {number(sd)}",
                    "threshold": "" if row["threshold"] is None else number(row["threshold"]),
                    "dataset": f"{row['dataset']}; n = {row['n']:,}",
                    "chart": chart,
                }
            )
        return sorted(rows, key=lambda row: row["order"])

    def _examples(self, at: tuple[int, int]) -> list[dict[str, Any]]:
        """By selection, the strongest first."""
        shown: dict[str, list[dict[str, Any]]] = {selection: [] for selection in _SELECTIONS}
        for row in sorted(self._of("examples", at), key=lambda row: row["rank"]):
            ids = self.tokens[row["sequence"]]
            destination, attention = row["destination"], row["attention_row"]
            shown[row["selection"]].append(
                {
                    "attention": _probability(row["attention"]),
                    "above": _quantile(row["attention_quantile"]),
                    "sequence": row["sequence"],
                    "position": destination,
                    "text": attention_text(ids, destination, attention, self.texts),
                    "words": attention_in_words(ids, destination, attention, self.texts),
                }
            )
        return [
            {"title": title, "rows": shown[selection]}
            for selection, title in _SELECTIONS.items()
            if shown[selection]
        ]

    def _features(self, at: tuple[int, int], labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
        layer = at[0]
        named: dict[int, list[str]] = {}
        for row in labels:
            if row["feature"] is not None and (row["label"] or row["note"]):
                named.setdefault(row["feature"], []).append(row["label"] or row["note"])
        clusters = {
            row["measure"]: dict(zip(row["features"], row["clusters"], strict=True))
            for row in self._of("proxy", at)
        }
        rows = []
        ordered = sorted(self._of("features", at), key=lambda row: row["rank"])
        largest = max((row["attribution"] for row in ordered), default=0.0) or 1.0
        for row in ordered:
            feature = row["feature"]
            rows.append(
                {
                    "rank": row["rank"],
                    "feature": feature,
                    "href": self.feature_link(layer, feature) if row["is_alive"] else None,
                    "is_alive": row["is_alive"],
                    "share": number(row["attribution"]),
                    "width": round(BAR * row["attribution"] / largest),
                    "density": number(row["density"]),
                    "fires_on": [token_label(token) for token in row["frequent_tokens"]],
                    "promotes": [token_label(token) for token in row["promoted_tokens"]],
                    "families": self._families.get((layer, feature), []),
                    "text_cluster": _letter(clusters.get("ngrams", {}).get(feature)),
                    "slice_cluster": _letter(clusters.get("decoder_slice", {}).get(feature)),
                    "labels": named.get(feature, []),
                }
            )
        return rows

    def _proxy(self, at: tuple[int, int]) -> list[dict[str, str]]:
        found = {row["measure"]: row for row in self._of("proxy", at)}
        return [
            {
                "name": name,
                "clusters": f"{row['n_clusters']} of {row['n_compared']}",
                "null": f"{number(row['null_n_clusters'])} ± {number(row['null_n_clusters_sd'])}",
            }
            for measure, name in MEASURES.items()
            if (row := found.get(measure)) is not None
        ]

    def _edges(self, direction: str, other: str, at: tuple[int, int]) -> list[dict[str, Any]]:
        rows = self._of(direction, at)
        most = max((row["n_prompts"] for row in rows), default=1)
        ordered = sorted(
            rows,
            key=lambda row: (row["task"] != "ioi", -row["n_prompts"], -row["mean_contribution"]),
        )
        return [
            {
                "name": head_name(*(there := (row[f"{other}_layer"], row[f"{other}_head"]))),
                "href": head_page(*there) if there in self.known else None,
                "task": row["task"],
                "pair": f"{row['destination_role']} → {row['source_role'] or '–'}",
                "side": row["side"],
                "n_prompts": f"{row['n_prompts']:,}",
                "width": round(BAR * row["n_prompts"] / most),
                "contribution": number(row["mean_contribution"]),
                "share": number(row["mean_contribution_share"]),
                "heads": number(row["mean_head_share"]),
                "exact": number(row["mean_exact_effect"]),
            }
            for row in ordered
        ]

    def _nodes(self, at: tuple[int, int]) -> list[str]:
        """Where the head acts in the trace, in words, and what heads wrote of what it reads."""
        rows = sorted(
            self._of("nodes", at), key=lambda row: (row["task"] != "ioi", -row["n_prompts"])
        )
        return [
            f"{row['destination_role']} → {row['source_role']} in {row['n_prompts']:,} prompts"
            + (f" of {row['task']}" if self._n_tasks > 1 else "")
            + _in_words(row)
            for row in rows
            if row["source_role"] is not None
        ]

    def _effects(self, at: tuple[int, int]) -> list[dict[str, Any]]:
        order = {metric: i for i, metric in enumerate(METRICS)}
        rows = sorted(
            self._of("effects", at),
            key=lambda row: (
                row["task"] != "ioi",
                row["task"],
                order.get(row["metric"], len(order)),
                row["metric"],
                row["mode"] or "",
                row["position_role"] or "",
            ),
        )
        return [
            {
                "task": row["task"],
                "metric": row["metric"].replace("_", " "),
                "mode": _words(row["mode"]),
                "reference": _words(row["reference"]),
                "role": row["position_role"] or "",
                "effect": signed(row["mean_effect"]),
                "interval": ""
                if row["ci_low"] is None
                else f"{signed(row['ci_low'])} to {signed(row['ci_high'])}",
                "excludes_zero": row["ci_low"] is not None and row["ci_low"] * row["ci_high"] > 0,
                "n": f"{row['n']:,}",
            }
            for row in rows
        ]

    def _task_effects(self, at: tuple[int, int]) -> dict[str, Any]:
        """Change of the loss per task (rows) and mode of ablation (columns)."""
        rows = [row for row in self._of("task_effects", at) if row["metric"] == "loss"]
        modes = sorted({row["mode"] for row in rows})
        found = {(row["task"], row["mode"]): row for row in rows}
        return {
            "task_modes": [_words(mode) for mode in modes],
            "task_effects": [
                {
                    "task": task.replace("_", " "),
                    "cells": [_loss_change(found.get((task, mode))) for mode in modes],
                }
                for task in sorted({row["task"] for row in rows})
            ],
        }


# ---- private -------------------------------------------------------------------------------------


def _by_head(
    frame: pl.DataFrame | None, layer: str, head: str
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in [] if frame is None else frame.iter_rows(named=True):
        found.setdefault((row[layer], row[head]), []).append(row)
    return found


def _in_words(node: dict[str, Any]) -> str:
    """Mean attention, and the share of heads in what all writers do, in parentheses."""
    said = [
        f"{what} {number(node[column])}"
        for what, column in (
            ("attention", "mean_attention"),
            ("heads wrote", "mean_destination_head_share"),
            ("of the source", "mean_source_head_share"),
        )
        if node[column] is not None
    ]
    return f" ({', '.join(said)})" if said else ""


def _probability(value: float) -> str:
    """An attention probability, with two digits where it is small: it stands in a narrow column."""
    return "<.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else number(value)


def _quantile(share: float) -> str:
    """A share in percent; of those near 100%, cut and not rounded up to it."""
    return f"{math.floor(1000 * share) / 10:.1f}%" if share > 0.99 else f"{share:.0%}"


def _words(name: str | None) -> str:
    """A name of the ablation vocabulary with spaces."""
    return (name or "").replace("_", " ")


def _loss_change(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"effect": "–", "excludes_zero": False, "title": ""}
    low, high = row["ci_low"], row["ci_high"]
    interval = "" if low is None else f", 95% interval {signed(low)} to {signed(high)}"
    return {
        "effect": signed(row["mean_effect"]),
        "excludes_zero": low is not None and low * high > 0,
        "title": f"{row['n']:,} prompts{interval}; reference: {_words(row['reference'])}",
    }


def _letter(cluster: int | None) -> str:
    """Clusters are named A, B, ..., Z, AA, ..."""
    if cluster is None:
        return ""
    name = chr(ord("A") + cluster % 26)
    return name if cluster < 26 else f"{_letter(cluster // 26 - 1)}{name}"
