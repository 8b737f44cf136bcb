"""The index of a layer (all its features) and of a study (all its layers).

Belongs here: what they show. How they look is in templates/.
"""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import amount, number
from mechinterp_assets.dashboards.context import LayerContext
from mechinterp_assets.dashboards.density import BIN, bin_edges, density_chart, density_counts
from mechinterp_assets.dashboards.heads import head_rows
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import json_block
from mechinterp_assets.model.names import head_name
from mechinterp_assets.storage.declarations import table_specs

ROWS_WITHOUT_SCRIPT = 100
# Columns of sae_evaluation in the order shown, with the names readers know them by.
EVALUATION = {
    "l0": "L0",
    "explained_variance": "explained variance",
    "typical_explained_variance": "explained variance without outliers",
    "reconstruction_cosine": "cosine",
    "ce_recovered": "CE recovered",
    "ce_recovered_mean": "CE recovered (mean ablation)",
    "kl": "KL",
    "kl_recovered": "KL recovered",
    "shrinkage": "shrinkage",
    "n_tokens": "evaluation tokens",
}
# Shares of a loss that ablation costs, with the columns of that cost and of the KL it causes.
SHARES = {"ce_recovered": ("ce_zero", "kl_zero"), "ce_recovered_mean": ("ce_mean", "kl_mean")}
SMALL = 0.2
UNSTABLE = (
    f"Unstable: the loss that ablation costs is less than {SMALL:.0%} of the KL that it causes: "
    "most changes of predictions cancel, and this is a share of what is left; see KL recovered"
)
# A proxy is named beside a feature where it holds at this share of the feature's active tokens, and
# at this many times the share of all tokens.
PROXY_SHARE, PROXY_LIFT = 0.05, 2.0
SHOWN_PROXIES = 3


def layer_content(
    frames: LayerFrames,
    context: LayerContext,
    linked: set[int],
    evaluation: Mapping[str, object],
) -> dict[str, Any]:
    """Values of the template layer.html, without the links to other pages."""
    texts, layer = context.texts, context.layer
    table = _feature_table(frames)
    data: dict[str, Any] = {
        "layer": layer,
        "feature": table["feature"].to_list(),
        "linked": [int(f in linked) for f in table["feature"].to_list()],
        "density": _rounded(table["density"]),
        "max": _rounded(table["max_activation"]),
        "mean": _rounded(table["mean_activation"]),
        "head": table["head"].to_list(),
        "share": _rounded(table["share"]),
        **{
            name: [None if t is None else texts.labels[t] for t in table[name].to_list()]
            for name in ("fires_on", "promotes", "suppresses")
        },
        "meaning": _meanings(frames, table["feature"].to_list()),
    }
    counts = density_counts(frames.statistics)
    edges = bin_edges(counts)
    return {
        "facts": _layer_facts(frames.statistics, evaluation),
        "columns": _feature_columns(),
        "has_meaning": any(data["meaning"]),
        "rows": [_feature_row(data, i, layer) for i in range(min(len(table), ROWS_WITHOUT_SCRIPT))],
        "data": json_block(data),
        "heads": head_rows(frames, layer),
        "linked": linked,
        "has_roles": frames.head_roles is not None,
        "has_edges": frames.ioi_edges is not None,
        "histogram": density_chart(counts, edges, 90) if edges else "",
        "low": f"{edges[0]:.2f}" if edges else "",
        "high": f"{edges[-1] + BIN:.2f}" if edges else "",
        "sql": filled_statements(context.provenance.study, layer),
    }


def study_content(
    statistics: pl.DataFrame,
    evaluation: pl.DataFrame | None,
    hrefs: Mapping[int, str] | None,
    study: str,
) -> dict[str, Any]:
    """Values of the template study.html."""
    help_texts = _evaluation_help()
    rows_of = {row["layer"]: row for row in evaluation.to_dicts()} if evaluation is not None else {}
    columns = [name for name in EVALUATION if any(name in row for row in rows_of.values())]
    counts = {
        int(layer): density_counts(part)
        for (layer,), part in statistics.partition_by("layer", as_dict=True).items()
    }
    edges = bin_edges({edge: 1 for part in counts.values() for edge in part})
    rows = []
    for layer in sorted(counts):
        part = statistics.filter(pl.col("layer") == layer)
        dead = int((part["n_active"] == 0).sum())
        values = [f"{len(part):,}", f"{dead:,} ({100 * dead / len(part):.1f}%)"]
        values += [_share_or_value(rows_of.get(layer, {}), name) for name in columns]
        rows.append(
            {
                "layer": layer,
                "href": (hrefs or {}).get(layer, f"L{layer:02d}/index.html"),
                "cells": values,
                "histogram": density_chart(counts[layer], edges, 28) if edges else "",
            }
        )
    has_unstable = any(_is_unstable(row, name) for row in rows_of.values() for name in SHARES)
    named = [
        {"name": "features", "help": "Features of the layer's SAE (d_sae)", "term": ""},
        {
            "name": "never fired",
            "help": "Features that fired on none of the tokens read",
            "term": "feature_statistics.n_active",
        },
        *(
            {
                "name": EVALUATION[name],
                "help": help_texts.get(name, ""),
                "term": f"sae_evaluation.{name}",
            }
            for name in columns
        ),
    ]
    return {
        "columns": named,
        "rows": rows,
        "unstable": UNSTABLE if has_unstable else "",
        "low": f"{edges[0]:.2f}" if edges else "–",
        "high": f"{edges[-1] + BIN:.2f}" if edges else "–",
        "sql": {**filled_statements(study), "provenance": ""},
    }


# ---- private -------------------------------------------------------------------------------------


def _feature_table(frames: LayerFrames) -> pl.DataFrame:
    """One row per feature: statistics, strongest head, extreme tokens."""
    heads = (
        frames.head_attribution.drop_nulls("attribution")
        .sort("feature", "attribution", "head", descending=[False, True, False])
        .group_by("feature", maintain_order=True)
        .first()
        .select("feature", "head", pl.col("attribution").alias("share"))
    )
    return (
        frames.statistics.select("feature", "density", "mean_activation", "max_activation")
        .join(heads, on="feature", how="left")
        .join(frames.described(), on="feature", how="left")
        .sort("feature")
    )


def _meanings(frames: LayerFrames, features: list[int]) -> list[str]:
    """Of each feature: labels of people, then families, then proxies that hold at its active tokens
    more often than elsewhere; empty where there are none."""
    found: dict[int, list[str]] = {}
    if frames.labels is not None:
        for feature, label in frames.labels.sort("feature", "rater")[
            "feature", "label"
        ].iter_rows():
            if label and label not in found.setdefault(feature, []):
                found[feature].append(label)
    if frames.families is not None:
        named = (
            frames.families.filter(pl.col("required"))
            .group_by("feature", "family")
            .agg(pl.col("meets_threshold").fill_null(False).all())
            .filter("meets_threshold")
            .sort("feature", "family")
        )
        for feature, family in named["feature", "family"].iter_rows():
            found.setdefault(feature, []).append(family.replace("_", " "))
    if frames.proxies is not None:
        share = pl.col("n_active_true") / pl.col("n_active")
        likely = (
            frames.proxies.with_columns(share=share)
            .filter(
                pl.col("n_active") > 0,
                pl.col("share") >= PROXY_SHARE,
                pl.col("share") >= PROXY_LIFT * pl.col("n_true") / pl.col("n_tokens"),
            )
            .sort("feature", "share", "proxy", descending=[False, True, False])
            .group_by("feature", maintain_order=True)
            .head(SHOWN_PROXIES)
        )
        for feature, proxy, of in likely["feature", "proxy", "share"].iter_rows():
            found.setdefault(feature, []).append(f"{proxy.replace('_', ' ')} {of:.0%}")
    return ["; ".join(found.get(feature, [])) for feature in features]


def _feature_columns() -> list[dict[str, str]]:
    help_texts = {
        column.name: (column.comment, f"{table}.{column.name}")
        for table in ("feature_statistics", "feature_head_attribution", "feature_logit_effects")
        for column in table_specs()[table].columns
    }
    columns = [
        ("feature", "feature", ("", "")),
        ("density", "density", help_texts["density"]),
        ("max", "max", help_texts["max_activation"]),
        ("mean", "mean, when active", help_texts["mean_activation"]),
        ("head", "top head", help_texts["attribution"]),
        ("share", "its share", help_texts["attribution"]),
        ("fires_on", "fires on", ("Token of its strongest example", "")),
        ("promotes", "promotes", help_texts["logit_effect"]),
        ("suppresses", "suppresses", help_texts["logit_effect"]),
    ]
    return [
        {"key": key, "name": name, "help": text, "term": term}
        for key, name, (text, term) in columns
    ]


def _feature_row(data: dict[str, Any], i: int, layer: int) -> dict[str, Any]:
    head = data["head"][i]
    return {
        "feature": data["feature"][i],
        "linked": data["linked"][i],
        "density": number(data["density"][i]),
        "max": number(data["max"][i]),
        "mean": number(data["mean"][i]),
        "head": "–" if head is None else head_name(layer, head),
        "share": number(data["share"][i]),
        "tokens": [data[name][i] for name in ("fires_on", "promotes", "suppresses")],
        "meaning": data["meaning"][i],
    }


def _layer_facts(
    statistics: pl.DataFrame, evaluation: Mapping[str, object]
) -> list[dict[str, str]]:
    n = len(statistics)
    dead = int((statistics["n_active"] == 0).sum())
    n_tokens = statistics["n_tokens"].to_list()[0] if n else 0
    help_texts = _evaluation_help()
    facts = [
        {"name": "features", "value": f"{n:,}", "help": "Features of the SAE (d_sae)", "term": ""},
        {
            "name": "never fired",
            "value": f"{dead:,} ({100 * dead / n:.1f}%)" if n else "–",
            "help": "Features that fired on none of the tokens read",
            "term": "feature_statistics.n_active",
        },
        {
            "name": "tokens read",
            "value": f"{n_tokens:,}",
            "help": "Tokens of the feature pass",
            "term": "feature_statistics.n_tokens",
        },
    ]
    return facts + [
        {
            "name": title,
            "value": _share_or_value(evaluation, name),
            "help": help_texts.get(name, ""),
            "term": f"sae_evaluation.{name}",
        }
        for name, title in EVALUATION.items()
        if evaluation.get(name) is not None
    ]


def _evaluation_help() -> dict[str, str]:
    spec = table_specs().get("sae_evaluation")
    return {column.name: column.comment for column in spec.columns} if spec else {}


def _is_unstable(row: Mapping[str, object], name: str) -> bool:
    """Whether a share divides by a cost that is small beside the change behind it."""
    if name not in SHARES or not isinstance(row.get(name), float):
        return False
    cost, change = (row.get(of) for of in SHARES[name])
    clean = row.get("ce_clean")
    if not (isinstance(cost, float) and isinstance(change, float) and isinstance(clean, float)):
        return False
    return cost - clean < SMALL * change


def _share_or_value(row: Mapping[str, object], name: str) -> str:
    text = amount(row.get(name))
    if not _is_unstable(row, name):
        return text
    return Markup('<span class="unstable" title="{}">{}</span>').format(UNSTABLE, text)


def _rounded(values: pl.Series) -> list[float | None]:
    """Three significant digits; None for NULL and NaN."""
    return [None if x is None or math.isnan(x) else float(f"{x:.3g}") for x in values.to_list()]
