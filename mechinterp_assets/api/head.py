"""One attention head: its scores, roles, features, edges of the traced circuit, where it attends.

Belongs here: reading its rows, how heads are written, showing a head in a notebook and as text.
Does not belong here: whole tables (tables.py), pages (dashboards/).
"""

from collections.abc import Callable
from functools import cached_property
from html import escape
from typing import Any

import polars as pl

from mechinterp_assets.api.layer_part import BOX, TEXT, LayerPart
from mechinterp_assets.api.marked_tokens import marked_html, marked_text
from mechinterp_assets.api.not_there import NotThereError
from mechinterp_assets.api.tables import Tables
from mechinterp_assets.dashboards.charts import number, signed
from mechinterp_assets.dashboards.places import feature_name
from mechinterp_assets.dashboards.tokens import token_label
from mechinterp_assets.model.names import head_name, named_head

SHOWN = 8


def head_of(name: str) -> tuple[int, int]:
    """Layer and head of `L2H3` or `2.3`. Raises NotThereError for anything else."""
    if (found := named_head(name)) is None:
        raise NotThereError(f"{name!r} names no head; write layer and head as L2H3 or 2.3")
    return found


class Head(LayerPart):
    """One head of a study's model; `study.head("L2H3")` gives it.

    Args:
        tables, study, layer, index: of the study, and which head.
        scores: rows of the view head_score_tests, of all heads.
        roles: rows of the view head_roles, of all heads.
        write_label: see `OpenedStudy.label_head`.

    Attributes:
        study, layer, index: which.
        scores: score, value, n, null_mean, null_sd, threshold, passes (view head_score_tests);
            what each score is, stands in the view head_score_definitions.
        roles: whose conditions it meets (view head_roles).
    """

    _numbered = "head"

    def __init__(
        self,
        tables: Tables,
        study: str,
        layer: int,
        index: int,
        *,
        scores: pl.DataFrame,
        roles: pl.DataFrame,
        write_label: Callable[..., Any],
    ) -> None:
        super().__init__(tables, study, layer, index)
        self._write_label = write_label
        every, mine = scores, scores.filter(layer=layer, head=index)
        if mine.is_empty():
            heads = every.select("layer", "head").max()
            there = (
                f"they are L0H0 to {head_name(heads['layer'].item(), heads['head'].item())}"
                if every.height
                else f"`mechinterp materialize {study} --select head_scores` scores them"
            )
            raise NotThereError(f"{study} has no scores of {head_name(layer, index)}; {there}")
        self.scores = mine.select(
            "score", "value", "n", "null_mean", "null_sd", "threshold", "passes"
        ).sort("score")
        self.roles = sorted(roles.filter(layer=layer, head=index)["role"].to_list())

    @property
    def name(self) -> str:
        """As it is written everywhere, such as L2H3."""
        return head_name(self.layer, self.index)

    @cached_property
    def features(self) -> pl.DataFrame:
        """Features of the layer's SAE of which it writes most, with its share of their decoder row
        (head_features). Raises NotThereError where the layer has no SAE."""
        return self.rows("head_features").drop("study", "layer", "head").sort("rank")

    @cached_property
    def edges(self) -> pl.DataFrame:
        """Edges of the traced circuits that enter or leave it (trace_graph; empty: none)."""
        graph = self._tables["trace_graph"]
        leaves = (pl.col("upstream_layer") == self.layer) & (pl.col("upstream_head") == self.index)
        enters = (pl.col("downstream_layer") == self.layer) & (
            pl.col("downstream_head") == self.index
        )
        rows = graph.lazy().filter(leaves | enters).drop("study").collect()
        return rows.sort("task", "n_prompts", descending=[False, True], maintain_order=True)

    @cached_property
    def examples(self) -> pl.DataFrame:
        """Where it attends in held-out text (head_attention_examples: half the strongest, half
        spread over quantiles), the strongest first, with the texts of the tokens up to the
        destination in `tokens` and their attention in `attention_row`."""
        rows = self.rows("head_attention_examples").drop("study", "layer", "head").sort("rank")
        wanted = rows["sequence"].unique().implode()
        corpus = self._tables["tokenized_corpus"].lazy().filter(pl.col("sequence").is_in(wanted))
        texts = dict(
            self._tables["vocabulary"].lazy().select("token_id", "token").collect().iter_rows()
        )
        ids = dict(corpus.select("sequence", "token_ids").collect().iter_rows())
        tokens = [
            [texts[token] for token in ids[sequence][: destination + 1]]
            for sequence, destination in rows.select("sequence", "destination").iter_rows()
        ]
        return rows.with_columns(tokens=pl.Series(tokens, dtype=pl.List(pl.String)))

    @cached_property
    def effects(self) -> pl.DataFrame:
        """What ablating it does on IOI prompts: mode, reference, mean_effect (patched - clean logit
        difference, so that negative means that it helps), 95% interval, n (intervention_summary).
        """
        rows = self._rows_if_made("intervention_summary")
        columns = ("mode", "reference", "position_role", "mean_effect", "ci_low", "ci_high", "n")
        if rows is None:
            return pl.DataFrame(schema=dict.fromkeys(columns))
        ablations = rows.filter(
            (pl.col("kind") == "head_ablation")
            & (pl.col("task") == "ioi")
            & (pl.col("metric") == "logit_diff")
            & (pl.col("alpha") == 1)
            & ~pl.col("is_control").fill_null(False)
        )
        return ablations.select(columns)

    def label(
        self,
        label: str = "",
        *,
        class_: str = "",
        rater: str,
        feature: int | None = None,
        note: str = "",
        **options: Any,
    ) -> Any:
        """Write a label into a CSV file of the study; see `OpenedStudy.label_head`."""
        return self._write_label(
            (self.layer, self.index),
            label,
            class_=class_,
            rater=rater,
            feature=feature,
            note=note,
            **options,
        )

    # ---- showing it ------------------------------------------------------------------------------

    def text(self, examples: int = 4) -> str:
        """The head in plain text: roles, scores, effects, features, edges, examples.

        In examples tokens read `{token|attention}`; the one that attends `**token**`.
        """
        lines = [f"Head {self.name} of {self.study}", f"roles: {', '.join(self.roles) or 'none'}"]
        lines += [f"{name}: {value}" for name, value in self._facts()]
        if windows := self._windows(examples):
            lines.append("attends:")
            lines += [f"  {marked_text(*window)}" for window in windows]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text(2)

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<div><b>{escape(name)}</b>: {escape(value)}</div>" for name, value in self._facts()
        )
        rows = "".join(
            f"<tr><td style='{TEXT}'>{marked_html(tokens, weights, 1.0, at)}</td></tr>"
            for tokens, weights, at in self._windows(SHOWN)
        )
        if rows:
            facts += "<div><b>attends most</b> (framed token to coloured ones):</div>"
        roles = ", ".join(self.roles) or "no role"
        return (
            f"<div style='{BOX}'><b>Head {self.name}</b> of {escape(self.study)}: {escape(roles)}"
            f"{facts}<table style='border-collapse:collapse'>{rows}</table></div>"
        )

    def _facts(self) -> list[tuple[str, str]]:
        found = []
        passing = self.scores.filter(pl.col("passes").fill_null(False))
        rest = self.scores.filter(~pl.col("passes").fill_null(False))
        for name, rows in (("scores over their threshold", passing), ("other scores", rest)):
            shown = [f"{row['score']} {number(row['value'])}" for row in rows.iter_rows(named=True)]
            if shown:
                found.append((name, ", ".join(shown)))
        for row in self.effects.iter_rows(named=True):
            what = f"{row['mode']} ablation at {row['position_role']}"
            found.append(
                (
                    what,
                    f"logit difference {signed(row['mean_effect'])} "
                    f"[{_bound(row['ci_low'])}, {_bound(row['ci_high'])}]",
                )
            )
        features = self._rows_if_made("head_features")
        if features is not None and not features.is_empty():
            shown = [
                f"{feature_name(self.layer, row['feature'])} ({number(row['attribution'])})"
                + (
                    f" on {token_label(row['frequent_tokens'][0])}"
                    if row["frequent_tokens"]
                    else ""
                )
                for row in features.sort("rank").head(SHOWN).iter_rows(named=True)
            ]
            found.append(("writes features", ", ".join(shown)))
        if self._tables["trace_graph"].partitions:
            found += self._edges_in_words()
        return found

    def _edges_in_words(self) -> list[tuple[str, str]]:
        found = []
        for task in self.edges["task"].unique(maintain_order=True).to_list():
            rows = self.edges.filter(task=task).head(SHOWN)
            shown = [
                f"{head_name(row['upstream_layer'], row['upstream_head'])} > "
                f"{head_name(row['downstream_layer'], row['downstream_head'])} "
                f"({row['destination_role']} to {row['source_role']}, {row['side']} side, "
                f"{row['n_prompts']} prompts)"
                for row in rows.iter_rows(named=True)
            ]
            found.append((f"edges in {task}", ", ".join(shown)))
        return found

    def _windows(self, n: int, before: int = 24) -> list[tuple[list[str], list[float], int]]:
        """Tokens up to the destination, cut in front of the source, with attention; the last one's
        index. Empty where no examples were made."""
        if not self._tables["head_attention_examples"].partitions:
            return []
        found = []
        # From the strongest to the weakest, not the strongest alone.
        every = max(1, len(self.examples) // n)
        for row in self.examples.gather_every(every).head(n).iter_rows(named=True):
            first = max(0, min(row["source"] - 4, row["destination"] - before))
            weights = [w if w >= 0.05 else 0.0 for w in row["attention_row"][first:]]
            tokens = row["tokens"][first:]
            found.append((tokens, weights, len(tokens) - 1))
        return found


# ---- private -------------------------------------------------------------------------------------


def _bound(value: float | None) -> str:
    return "–" if value is None else signed(value)
