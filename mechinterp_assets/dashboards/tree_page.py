"""The page of a feature's recursive attribution: a tree of what it reads, down to tokens.

Belongs here: what the page shows, from the rows of feature_rdfa. The tree is nested <details>,
rendered here and in templates/tree.html: it opens and closes without a script.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from mechinterp_assets.dashboards.charts import number, signed
from mechinterp_assets.dashboards.context import LayerContext
from mechinterp_assets.dashboards.examples import example_text, strong_sources
from mechinterp_assets.dashboards.layer_frames import SequenceTokens
from mechinterp_assets.dashboards.places import feature_name
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.dashboards.tokens import TokenTexts, token_label
from mechinterp_assets.model.names import head_name

BAR = 70  # pixels of a node that has the whole of the root
OPEN_SHARE = 0.1  # nodes with at least this share of the root are open at first
WINDOW = 40  # tokens shown in front of the example
TOTALS = 12  # rows of the tables of ends, besides the one for all others

# (layer, feature) -> address of its page as seen from a tree's page, None where there is none.
FeatureLink = Callable[[int, int], str | None]


class TreePages:
    """Pages of the features of one layer that have a tree.

    Args:
        trees: feature_rdfa of the layer, of the features asked for.
        context: of the layer.
        tokens: token ids of the sequences of the examples.
        link: of features of earlier layers.
    """

    def __init__(
        self, trees: pl.DataFrame, context: LayerContext, tokens: SequenceTokens, link: FeatureLink
    ) -> None:
        ordered = trees.sort("feature", "rank", "node")
        self._trees = {
            int(key[0]): rows.rows(named=True)
            for key, rows in ordered.partition_by("feature", as_dict=True).items()
        }
        self._context, self._tokens, self._link = context, tokens, link

    def html(self, feature: int) -> str | None:
        """The page of one feature; None without a tree."""
        rows = self._trees.get(feature)
        if rows is None:
            return None
        examples: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            examples.setdefault(row["rank"], []).append(row)
        return template("tree.html").render(
            **self._context.values,
            **page_parts(),
            feature=feature,
            trees=[self._example(of_rank) for of_rank in examples.values()],
            sql=filled_statements(self._context.provenance.study, self._context.layer, feature),
            study_href=f"../{self._context.study_href}",
        )

    def _example(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        root, texts = rows[0], self._context.texts
        errors = [row["identity_error"] for row in rows if row["identity_error"] is not None]
        leaves = [row for row in rows if row["identity_error"] is None]
        return {
            "rank": root["rank"],
            "sequence": root["sequence"],
            "position": root["position"],
            "text": self._text(root, rows),
            "value": number(root["dfa"]),
            "worst": number(max(errors, default=0.0)),
            "root": _nested(rows, texts, self._link),
            "ends": _totals(
                leaves, root["dfa"], lambda row: (_end(row), row["at_layer"]), self._end
            ),
            "places": _totals(leaves, root["dfa"], lambda row: row["at_position"], self._place),
        }

    def _end(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"name": _end(row), "token": None, "position": None}

    def _place(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["at_position"] is None:
            return {"name": "no single position", "token": None, "position": None}
        label = self._context.texts.labels[row["token_id"]]
        return {"name": "", "token": label, "position": row["at_position"]}

    def _text(self, root: dict[str, Any], rows: list[dict[str, Any]]) -> str:
        """The tokens before the example, marked by what the root reads at them."""
        position = root["position"]
        reads = np.zeros(position + 1)
        for row in rows:
            if row["parent"] == 0 and row["node_kind"] == "source":
                reads[row["at_position"]] += row["dfa"]
        start = max(0, position - WINDOW)
        silent = [0.0] * (position + 1 - start)
        ids = self._tokens[root["sequence"]]
        sources = strong_sources(reads)
        return example_text(ids, position, start, silent, sources, 1.0, self._context.texts)


# ---- private -------------------------------------------------------------------------------------


def _nested(rows: Sequence[dict[str, Any]], texts: TokenTexts, link: FeatureLink) -> dict[str, Any]:
    """Root with its parts under `parts`, from rows in depth-first order."""
    shown = {row["node"]: _node(row, texts, link) for row in rows}
    for row in rows[1:]:
        shown[row["parent"]]["parts"].append(shown[row["node"]])
    return shown[rows[0]["node"]]


def _node(row: dict[str, Any], texts: TokenTexts, link: FeatureLink) -> dict[str, Any]:
    share = row["share_of_root"]
    is_feature = row["node_kind"] == "feature"
    names = (
        [("fires on", row["strongest_token"]), ("promotes", row["promoted_token"])]
        if is_feature
        else []
    )
    return {
        "parts": [],
        "is_open": row["parent"] is None or abs(share or 0.0) >= OPEN_SHARE,
        "name": _name(row),
        "href": link(row["at_layer"], row["at_feature"])
        if is_feature and row["parent"] is not None
        else None,
        "token": None if row["token_id"] is None else texts.labels[row["token_id"]],
        "position": row["at_position"],
        "names": [(what, token_label(text)) for what, text in names if text is not None],
        "detail": _detail(row),
        "value": signed(row["dfa"]),
        "percent": _percent(share),
        "negative": row["dfa"] < 0,
        "width": round(BAR * min(1.0, abs(share or 0.0))),
        "is_minor": row["node_kind"].endswith(("_bias", "_error")) or row["node_kind"] == "rest",
    }


def _name(row: dict[str, Any]) -> str:
    kind: str = row["node_kind"]
    layer = row["at_layer"]
    if kind == "rest":
        n = row["n_left_out"]
        return f"{n} other part{'s' if n > 1 else ''}"
    names = {
        "feature": f"feature {feature_name(layer, row['at_feature'])}",
        "source": f"reads through head {head_name(layer, row['at_head'])}"
        if row["at_head"] is not None
        else "reads",
        "embedding": "token embedding",
        "position": "position embedding",
        "attention": f"attention output of layer {layer}",
        "mlp": f"MLP output of layer {layer}",
        "encoder_bias": f"encoder bias, layer {layer}",
        "value_bias": f"biases of LayerNorm and values, layer {layer}",
        "sae_error": f"SAE error, layer {layer}",
        "sae_bias": f"SAE decoder bias, layer {layer}",
        "output_bias": f"output bias, layer {layer}",
        "residual_feature": f"residual feature {row['at_feature']} before layer {layer}",
        "residual_error": f"error of the residual SAE before layer {layer}",
        "residual_bias": f"decoder bias of the residual SAE before layer {layer}",
    }
    return names.get(kind, kind)


def _end(row: dict[str, Any]) -> str:
    """Name of a leaf in the table of ends: features of a layer share a line, so do all rests."""
    if row["node_kind"] == "feature":
        return f"features of layer {row['at_layer']}"
    if row["node_kind"] == "residual_feature":
        return f"residual features before layer {row['at_layer']}, not split"
    if row["node_kind"] == "source":
        return f"sources of layer {row['at_layer']}, not split"
    return "parts without a row" if row["node_kind"] == "rest" else _name(row)


def _detail(row: dict[str, Any]) -> str:
    if row["node_kind"] in ("feature", "residual_feature"):
        active = f"active {number(row['activation'])}"
        return active if row["parent"] is None else f"{active}, gain {number(row['gain'])}"
    if (
        row["node_kind"] == "source"
        and row["at_head"] is None
        and row["strongest_head"] is not None
    ):
        return f"mostly head {head_name(row['at_layer'], row['strongest_head'])}"
    return ""


def _percent(share: float | None) -> str:
    """Share of the root, such as +51%, or a dash where the root is 0."""
    if share is None:
        return "–"
    text = f"{share:+.1%}" if abs(share) < 0.0995 else f"{share:+.0%}"
    return text.replace("-", "−")


def _totals(
    leaves: Sequence[dict[str, Any]],
    root: float,
    key: Callable[[dict[str, Any]], Any],
    name: Callable[[dict[str, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Sums of leaves with the same key, the largest first, and one of all that have no row.

    name: what a row says about one of its leaves.
    """
    sums: dict[Any, float] = {}
    some: dict[Any, dict[str, Any]] = {}
    for row in leaves:
        sums[key(row)] = sums.get(key(row), 0.0) + row["dfa"]
        some.setdefault(key(row), row)
    ordered = sorted(sums, key=lambda k: -abs(sums[k]))
    shown = [(name(some[k]), sums[k]) for k in ordered[:TOTALS]]
    if others := [sums[k] for k in ordered[TOTALS:]]:
        shown.append(({"name": "all others", "token": None, "position": None}, sum(others)))
    return [
        {
            **what,
            "value": signed(value),
            "percent": _percent(value / root if root else None),
            "negative": value < 0,
            "width": round(BAR * min(1.0, abs(value / root))) if root else 0,
        }
        for what, value in shown
    ]
