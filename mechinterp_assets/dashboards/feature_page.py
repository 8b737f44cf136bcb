"""The page of one feature.

Belongs here: what the page shows, from the layer's tables. How it looks is in templates/.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from mechinterp_assets.dashboards.charts import number, signed, signed_bars
from mechinterp_assets.dashboards.density import density_place
from mechinterp_assets.dashboards.examples import example_text, sources_in_words, strong_sources
from mechinterp_assets.dashboards.heads import HeadNotes
from mechinterp_assets.dashboards.interval_block import IntervalBlock
from mechinterp_assets.dashboards.layer_frames import (
    AttributionByFeature,
    ByFeature,
    ExampleAttribution,
    LayerFrames,
    MatrixByFeature,
    SequenceTokens,
)
from mechinterp_assets.dashboards.matrix_block import matrix_picture
from mechinterp_assets.dashboards.meaning_block import MeaningBlock
from mechinterp_assets.dashboards.proxy_block import ProxyBlock
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.relation_blocks import RelationBlocks
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.model.names import head_name
from mechinterp_assets.storage.declarations import table_spec

BAR = 60  # longest bar of the table of heads, in pixels
EFFECT_BAR = 34  # longest bar of a logit effect
MAX_DISTANCE = 31
WRITERS = 3  # heads whose roles and IOI edges are named
EDGES = 4  # IOI edges named per head; the layer's index has them all


class FeaturePages:
    """Contents of the pages of one layer.

    Args:
        frames: tables of the layer, with at least the rows of the features asked for.
        study: name of the study.
        layer: layer.
        tokens: token ids of the sequences of all examples.
        texts: of the vocabulary.
        density: features of the layer per bin of log10 density (`density_counts`).
        linked: whether a feature has a page to link to.
    """

    def __init__(
        self,
        frames: LayerFrames,
        study: str,
        layer: int,
        tokens: SequenceTokens,
        texts: TokenTexts,
        density: Mapping[float, int],
        linked: Callable[[int], bool],
    ) -> None:
        self.study, self.layer, self.tokens, self.texts = study, layer, tokens, texts
        self.density = density
        self.statistics = frames.statistics.sort("feature")
        self.row = {f: i for i, f in enumerate(self.statistics["feature"].to_list())}
        self.help = {c.name: c.comment for c in table_spec("feature_statistics").columns}
        self.examples = ByFeature(
            frames.top_examples,
            ("rank", "sequence", "position", "activation", "window_start", "window_activations"),
            "rank",
        )
        self.dfa = AttributionByFeature(frames.dfa)
        self.matrices = MatrixByFeature(frames.dfa_matrix)
        self.effects = ByFeature(
            frames.logit_effects, ("extreme", "token_id", "logit_effect"), "rank"
        )
        self.heads = ByFeature(frames.head_attribution, ("head", "attribution"), "head")
        self.notes = HeadNotes(frames, layer)
        self.intervals = IntervalBlock(frames, tokens, texts)
        self.meaning = MeaningBlock(frames)
        self.proxies = ProxyBlock(frames)
        self.relations = RelationBlocks(frames, texts, linked)
        self.trees = frozenset(() if frames.rdfa is None else frames.rdfa["feature"].to_list())

    def content(self, feature: int) -> dict[str, Any]:
        """Values of the template feature.html, without the links to other pages."""
        statistics = self.statistics.row(self.row[feature], named=True)
        maximum = statistics["max_activation"] or 1.0
        dfa = self.dfa.examples(feature)
        heads = self._heads(feature, dfa)
        return {
            "feature": feature,
            "facts": self._facts(statistics),
            "examples": self._examples(feature, maximum, dfa),
            "effects": self._effects(feature),
            "n_vocabulary": f"{len(self.texts):,}",
            "heads": heads,
            "writers": self._writers(heads),
            "has_dfa": bool(dfa),
            "has_tree": feature in self.trees,
            **self._distances(dfa),
            **self.intervals.content(feature, maximum),
            **self.meaning.content(feature),
            **self.proxies.content(feature),
            **self.relations.content(feature),
            "sql": filled_statements(self.study, self.layer, feature),
        }

    def _facts(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        density = row["density"]
        one_in = f"1 in {number(1 / density)}" if density else ""
        facts = [
            ("density", "density", number(density), one_in),
            ("n_active", "active tokens", f"{row['n_active']:,}", f"of {row['n_tokens']:,}"),
            ("n_active_sequences", "active sequences", f"{row['n_active_sequences']:,}", ""),
            ("max_activation", "max activation", number(row["max_activation"]), ""),
            ("mean_activation", "mean, when active", number(row["mean_activation"]), ""),
            ("decoder_norm", "decoder norm", number(row["decoder_norm"]), ""),
            ("encoder_decoder_cosine", "cos(enc, dec)", number(row["encoder_decoder_cosine"]), ""),
            ("encoder_bias", "encoder bias", number(row["encoder_bias"]), ""),
        ]
        place = {"density": density_place(self.density, row["log10_density"])}
        return [
            {
                "name": name,
                "value": value,
                "note": note,
                "help": self.help[column],
                "chart": place.get(column, ""),
            }
            for column, name, value, note in facts
        ]

    def _examples(
        self,
        feature: int,
        maximum: float,
        dfa: dict[int, ExampleAttribution],
    ) -> list[dict[str, Any]]:
        shown = []
        matrices = self.matrices.examples(feature)
        columns = [column.to_list() for column in self.examples.columns(feature)]
        for rank, sequence, position, activation, start, window in zip(*columns, strict=True):
            ids = self.tokens[sequence]
            attribution = dfa.get(rank)
            sources = strong_sources(attribution.by_source) if attribution else []
            example = {
                "activation": number(activation),
                "sequence": sequence,
                "position": position,
                "text": example_text(ids, position, start, window, sources, maximum, self.texts),
                "heads": "",
                "sources": "",
                "matrix": "",
            }
            if rank in matrices:
                example["matrix"] = matrix_picture(matrices[rank], ids, self.layer, self.texts)
            if attribution:
                values = attribution.by_head.tolist()
                parts = [
                    f"{head_name(self.layer, i)} {value:+.2g}" for i, value in enumerate(values)
                ]
                example["heads"] = signed_bars(
                    values, label="DFA by head: " + ", ".join(parts), step=max(4, 96 // len(values))
                )
                example["sources"] = sources_in_words(ids, sources, position, self.texts)
            shown.append(example)
        return shown

    def _effects(self, feature: int) -> dict[str, list[dict[str, Any]]]:
        direction, token_id, effect = (c.to_list() for c in self.effects.columns(feature))
        largest = max((abs(value) for value in effect), default=0.0) or 1.0
        rows: dict[str, list[dict[str, Any]]] = {"top": [], "bottom": []}
        for name, token, value in zip(direction, token_id, effect, strict=True):
            rows[name].append(
                {
                    "token_id": token,
                    "label": self.texts.labels[token],
                    "effect": signed(value),
                    "negative": value < 0,
                    "width": round(EFFECT_BAR * abs(value) / largest),
                }
            )
        return rows

    def _heads(
        self,
        feature: int,
        dfa: dict[int, ExampleAttribution],
    ) -> list[dict[str, Any]]:
        head, share = (column.to_list() for column in self.heads.columns(feature))
        mean = np.mean([example.by_head for example in dfa.values()], axis=0) if dfa else None
        largest = float(np.abs(mean).max()) if mean is not None else 0.0
        largest_share = max((value or 0.0 for value in share), default=0.0) or 1.0
        rows = []
        for i, (number_of, value) in enumerate(zip(head, share, strict=True)):
            read = float(mean[i]) if mean is not None else 0.0
            rows.append(
                {
                    "head": number_of,
                    "share": number(value),
                    "attribution": value or 0.0,
                    "width": round(BAR * (value or 0.0) / largest_share),
                    "dfa": signed(read),
                    "negative": read < 0,
                    "dfa_width": round(BAR * abs(read) / (largest or 1.0)),
                }
            )
        return rows

    def _writers(self, heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The strongest writing heads that have a role or an IOI edge."""
        strongest = sorted(heads, key=lambda row: -row["attribution"])[:WRITERS]
        return [
            {
                "head": row["head"],
                "roles": self.notes.roles.get(row["head"], []),
                "edges": self.notes.edges.get(row["head"], [])[:EDGES],
                "n_more": max(0, len(self.notes.edges.get(row["head"], [])) - EDGES),
            }
            for row in strongest
            if row["head"] in self.notes.roles or row["head"] in self.notes.edges
        ]

    def _distances(self, dfa: dict[int, ExampleAttribution]) -> dict[str, Any]:
        """Mean attribution by distance, over the examples that reach back that far."""
        if not dfa:
            return {"distance_chart": "", "max_distance": 0, "strongest_distance": ""}
        total, n = np.zeros(MAX_DISTANCE + 1), np.zeros(MAX_DISTANCE + 1)
        for example in dfa.values():
            back = example.by_source[::-1][: MAX_DISTANCE + 1]
            total[: len(back)] += back
            n[: len(back)] += 1
        mean = total[n > 0] / n[n > 0]
        best = int(np.abs(mean).argmax())
        parts = ", ".join(f"{i}: {value:+.2g}" for i, value in enumerate(mean))
        chart = signed_bars(
            mean.tolist(), label=f"Mean DFA by distance; {parts}", step=11, height=60
        )
        return {
            "distance_chart": chart,
            "max_distance": len(mean) - 1,
            "strongest_distance": f"{best} back ({signed(float(mean[best]))})",
        }


def fired(statistics: pl.DataFrame) -> list[int]:
    """Features that fired at least once, ascending."""
    return statistics.filter(pl.col("n_active") > 0)["feature"].sort().to_list()
