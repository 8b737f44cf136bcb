"""One SAE feature: what it fires on, what it writes, which heads make it.

Belongs here: reading its rows, and showing them in a notebook and as text. Does not belong here:
whole tables (tables.py), pages (dashboards/).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from mechinterp_assets.model.names import head_name

SHOWN_EXAMPLES = 8
SHOWN_TOKENS = 8
SHOWN_HEADS = 4
_CELL = "text-align:left;padding:2px 14px 2px 0;vertical-align:top"


@dataclass(frozen=True)
class Example:
    """A place in the corpus where a feature fires strongly.

    Attributes:
        rank: by activation, 0 = strongest.
        sequence: of tokenized_corpus.
        position: in the sequence, from 0 (BOS): the attention destination.
        activation: there, in units of z.
        window_start: position of the first token of `tokens`.
        tokens: texts around the place.
        activations: of the feature at each of `tokens`.
        dfa_by_source: [position + 1] contribution of each source position to the pre-activation
            (Kissane et al. 2024, direct feature attribution), units of z; with `constant` they sum
            to it. None where no attribution was kept for the example.
        dfa_by_head: [n_heads] the same by head.
    """

    rank: int
    sequence: int
    position: int
    activation: float
    window_start: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    dfa_by_source: tuple[float, ...] | None = None
    dfa_by_head: tuple[float, ...] | None = None

    def __str__(self) -> str:
        at = self.position - self.window_start
        return f"{number(self.activation)}  {marked_text(self.tokens, self.activations, at)}"

    def html(self, largest: float) -> str:
        """The window in one line; `largest`: activation with the strongest colour."""
        at = self.position - self.window_start
        return marked_html(self.tokens, self.activations, largest, at)

    def _repr_html_(self) -> str:
        return f"<div style='{TEXT}'>{self.html(self.activation)}</div>"


class Feature(LayerPart):
    """One feature of a layer's attention-output SAE; `study.feature(layer, index)` gives it.

    Attributes:
        study, layer, index: which.
        statistics: row of feature_statistics: density, activations, norms (units: its comments).
    """

    _numbered = "feature"

    def __init__(
        self,
        tables: Tables,
        study: str,
        layer: int,
        index: int,
        write_label: Callable[..., Any],
        effects: Callable[..., pl.DataFrame],
    ) -> None:
        super().__init__(tables, study, layer, index)
        self._write_label, self._effects = write_label, effects
        found = self.rows("feature_statistics").drop("study")
        if found.is_empty():
            d_sae = tables["feature_statistics"].lazy(layer=layer).select(pl.len()).collect().item()
            raise NotThereError(
                f"layer {layer} of {study} has no feature {index}; it has 0..{d_sae - 1}"
            )
        self.statistics: Mapping[str, Any] = found.row(0, named=True)

    @property
    def name(self) -> str:
        """As interventions name it, such as L3F12."""
        return feature_name(self.layer, self.index)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """Places where it fires strongest, strongest first (feature_top_examples, feature_dfa)."""
        dfa = self._rows_if_made("feature_dfa")
        by_rank = {} if dfa is None else {row["rank"]: row for row in dfa.iter_rows(named=True)}
        found = []
        for row in self.rows("feature_top_examples").sort("rank").iter_rows(named=True):
            attributed = by_rank.get(row["rank"], {})
            found.append(
                Example(
                    row["rank"],
                    row["sequence"],
                    row["position"],
                    row["activation"],
                    row["window_start"],
                    tuple(row["window_tokens"]),
                    tuple(row["window_activations"]),
                    _tuple(attributed.get("dfa_by_source")),
                    _tuple(attributed.get("dfa_by_head")),
                )
            )
        return tuple(found)

    @cached_property
    def logit_effects(self) -> pl.DataFrame:
        """Tokens whose logits it raises (extreme 'top') or lowers ('bottom') most, when it writes
        straight to the unembedding (feature_logit_effects)."""
        return self.rows("feature_logit_effects").drop("study", "layer", "feature")

    def logit_effect(self, token: str | int) -> float:
        """Its direct effect on the logit of any token (its text, with a leading space if it has
        one, or its id), as `logit_effects` has it of the most extreme ones: logits per unit of
        activation, before the final norm's scale.

        Computed of the weights: the model and the SAEs are loaded by the first call. Raises
        NotThereError where the table has no row of the feature (its decoder row is zero, or the
        model has no such effects: table model_capabilities), ExploreError for what is no token.
        """
        if self.logit_effects.is_empty():
            raise NotThereError(
                f"{self.name} of {self.study} has no logit effects: its decoder row is zero, or "
                "`model_capabilities` says why the model has none (direct_effects)"
            )
        return float(self._effects(self.layer, self.index, token)["logit_effect"][0])

    @cached_property
    def heads(self) -> pl.DataFrame:
        """Share of its decoder row that each head writes (feature_head_attribution), largest first;
        shares sum to 1."""
        rows = self.rows("feature_head_attribution").select("head", "attribution")
        return rows.sort("attribution", descending=True)

    @cached_property
    def families(self) -> list[str]:
        """Families whose tests it passes (view feature_family_labels)."""
        rows = self.rows("feature_family_labels")
        return sorted(rows["family"].unique().to_list())

    @cached_property
    def labels(self) -> pl.DataFrame:
        """What people said it means (feature_labels); empty where nobody did."""
        rows = self._rows_if_made("feature_labels")
        schema = self._tables["feature_labels"].columns
        if rows is None:
            rows = pl.DataFrame(schema={column.name: column.polars_type for column in schema})
        return rows.drop("study", "layer", "feature")

    def label(self, label: str, *, verdict: str, rater: str, note: str = "", **options: Any) -> Any:
        """Write a label into a CSV file of the study; see `OpenedStudy.label_feature`."""
        return self._write_label(
            self.layer, self.index, label, verdict=verdict, rater=rater, note=note, **options
        )

    # ---- showing it ------------------------------------------------------------------------------

    def text(self, examples: int = SHOWN_EXAMPLES) -> str:
        """The feature in plain text: statistics, families, labels, effects, heads, examples.

        Active tokens read `{token|activation}`, the one an example is about `**{...}**`.
        """
        lines = [f"Feature {self.name} of {self.study}", self._density()]
        lines += [f"{name}: {value}" for name, value in self._facts(str, str)]
        lines.append(f"examples ({min(examples, len(self.examples))} of {len(self.examples)}):")
        lines += [f"  {example}" for example in self.examples[:examples]]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text(3)

    def _repr_html_(self) -> str:
        largest = self.statistics["max_activation"] or 1.0
        examples = "".join(
            f"<tr><td style='{_CELL}'>{number(example.activation)}</td>"
            f"<td style='{TEXT}'>{example.html(largest)}</td></tr>"
            for example in self.examples[:SHOWN_EXAMPLES]
        )
        facts = "".join(
            f"<div><b>{name}</b>: {value}</div>"
            for name, value in self._facts(escape, lambda label: f"<code>{escape(label)}</code>")
        )
        return (
            f"<div style='{BOX}'><b>Feature {self.name}</b> of {escape(self.study)}"
            f"<div>{escape(self._density())}</div>{facts}"
            f"<table style='border-collapse:collapse;font-size:13px'>{examples}</table></div>"
        )

    def _density(self) -> str:
        s = self.statistics
        return (
            f"density {number(s['density'])}, active at {s['n_active']:,} of {s['n_tokens']:,} "
            f"tokens, max activation {number(s['max_activation'])}"
        )

    def _facts(
        self, plain: Callable[[str], str], token: Callable[[str], str]
    ) -> list[tuple[str, str]]:
        """Families, labels, effects and heads, each with its name.

        plain: writes any text of them for where it is shown; token: writes a token's label.
        """
        facts = []
        if self.families:
            facts.append(("families", plain(", ".join(self.families))))
        for row in self.labels.iter_rows(named=True):
            said = f"{_line(row['label'])} ({row['verdict']})"
            facts.append((plain(f"label of {_line(row['rater'])}"), plain(said)))
        for words, extreme in (("raises logits of", "top"), ("lowers logits of", "bottom")):
            rows = self.logit_effects.filter(extreme=extreme).sort("rank").head(SHOWN_TOKENS)
            shown = [
                f"{token(token_label(text))} {plain(signed(effect))}"
                for text, effect in rows.select("token", "logit_effect").iter_rows()
            ]
            facts.append((words, ", ".join(shown)))
        heads = self.heads.head(SHOWN_HEADS).iter_rows()
        written = [f"{head_name(self.layer, head)} {number(share)}" for head, share in heads]
        facts.append(("written by heads", plain(", ".join(written))))
        return facts


# ---- private -------------------------------------------------------------------------------------


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _line(text: str | None) -> str:
    """What a person wrote, in one line, with what cannot be seen drawn."""
    return " ".join(token_label(word) for word in (text or "").split())
