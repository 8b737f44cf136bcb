"""Pages that put two studies, or two SAEs, side by side, and the page that lists what there is.

Belongs here: which blocks they have. Does not belong here: the statements (sql/dashboards/
compare*.sql), which the caller runs, and curves (training_page.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import amount, number, signed
from mechinterp_assets.dashboards.places import (
    comparison_href,
    feature_href,
    layer_href,
)
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.dashboards.training_page import training_plots
from mechinterp_assets.files.plain_text import listed
from mechinterp_assets.storage.declarations import table_specs
from mechinterp_assets.storage.sql_text import quote_text
from mechinterp_assets.studies.study import site_key

Query = Callable[[str], pl.DataFrame]
Site = tuple[str, int]
# Tables of which the page of two studies shows a row, and the columns that it leaves out.
STUDY_ROWS = ("language_model",)
SAE_ROWS = ("attention_sae", "sae_evaluation")
LEFT_OUT = {"study", "layer", "path", "density_counts", "left_out_token_ids"}
STUDY_TABLES = (
    "language_model",
    "attention_sae",
    "sae_evaluation",
    "task_baseline",
    "ioi_baseline",
    "head_scores",
    "ioi_head_scores",
    "trace_graph",
    "intervention_summary",
)
SAE_TABLES = ("attention_sae", "sae_evaluation", "sae_training_log", "sae_matching")
SHOWN_HEADS = 12
SHOWN_ROWS = 12
MAX_FEATURES = 300


def render_comparisons(query: Query, studies: Sequence[str], sites: Sequence[str]) -> str:
    """The list: a pair of names to choose, and the pairs of SAEs that were matched.

    Args:
        query: runs one statement.
        studies: that can be compared.
        sites: `<study>.L<nn>` that have an SAE.
    """
    sql = filled_statements("")
    matched = query(sql["comparisons"]).to_dicts()
    return template("comparisons.html").render(
        **page_parts("comparisons.js", "tables.js"),
        choices=[("studies", list(studies)), ("SAEs", list(sites))],
        pairs=[
            {
                "names": [
                    site_key(row["study"], row["layer"]),
                    site_key(row["other_study"], row["other_layer"]),
                ],
                "compared": row["compared"],
                "cosine": number(row["mean_matched_cosine"]),
                "random": number(row["random_mean_cosine"]),
            }
            for row in matched
        ],
        sql={**sql, "provenance": ""},
    )


def render_study_comparison(query: Query, study: str, other: str) -> str:
    """The page of two studies; blocks without rows are left out."""
    sql = filled_statements(study, other=other)
    frames = {name: query(sql[name]) for name in _STUDY_BLOCKS}
    frames["compare_roles"] = _with_heads(frames["compare_roles"])
    blocks = [
        _block(title, frames[name], sql[name], links=_links(name, study, other))
        for name, title in _STUDY_BLOCKS.items()
        if not frames[name].is_empty()
    ]
    return template("comparison.html").render(
        **page_parts("tables.js"),
        names=[study, other],
        hrefs=[f"../../../{name}/index.html" for name in (study, other)],
        swapped=comparison_href(other, study),
        kind="two studies",
        facts=_facts(query, STUDY_ROWS, {"study": study}, {"study": other}),
        plots=[],
        legend=[],
        blocks=blocks,
        sql={**sql, "provenance": ""},
        shown_rows=SHOWN_ROWS,
    )


def render_sae_comparison(query: Query, site: Site, other: Site) -> str:
    """The page of two SAEs; blocks without rows are left out."""
    keys = [site_key(*site), site_key(*other)]
    sql = filled_statements(site[0], site[1], other=other[0], other_layer=other[1])
    logs = [query(filled_statements(of)["training_curves"]) for of, _ in (site, other)]
    lines = {
        key: log.filter(pl.col("layer") == layer)
        for key, log, (_, layer) in zip(keys, logs, (site, other), strict=True)
    }
    drawn = {key: log for key, log in lines.items() if not log.is_empty()}
    matching, features = query(sql["compare_sae"]), query(sql["compare_features"])
    blocks = []
    if not matching.is_empty():
        blocks.append(_block("How much of one is in the other", matching, sql["compare_sae"]))
    if not features.is_empty():
        title = "Features and their partners, the least alike first"
        blocks.append(
            _block(
                title,
                features.head(MAX_FEATURES),
                sql["compare_features"],
                links={
                    "feature": lambda value: f"../../{feature_href(*site, value)}",
                    "matched_feature": lambda value: f"../../{feature_href(*other, value)}",
                },
                total=features.height,
            )
        )
    return template("comparison.html").render(
        **page_parts("tables.js"),
        names=keys,
        hrefs=[f"../../{layer_href(*one)}" for one in (site, other)],
        swapped=comparison_href(keys[1], keys[0]),
        kind="two SAEs",
        facts=_facts(query, SAE_ROWS, _place(site), _place(other)),
        plots=training_plots(drawn) if drawn else [],
        legend=[(key, f"s{i}") for i, key in enumerate(drawn)],
        blocks=blocks,
        sql={**sql, "provenance": ""},
        shown_rows=SHOWN_ROWS,
    )


# ---- private -------------------------------------------------------------------------------------

_STUDY_BLOCKS = {
    "compare_settings": "Settings that differ",
    "compare_saes": "SAEs by layer",
    "compare_tasks": "Tasks",
    "compare_roles": "Heads by role",
    "compare_circuits": "Traced circuits",
    "compare_interventions": "The same interventions, largest difference first",
}


def _place(site: Site) -> dict[str, object]:
    return {"study": site[0], "layer": site[1]}


def _facts(
    query: Query, tables: Sequence[str], *places: Mapping[str, object]
) -> list[dict[str, Any]]:
    """Columns of one row per side, those that differ first."""
    found: list[dict[str, Any]] = []
    for table in tables:
        spec = table_specs()[table]
        rows = [_row(query, table, place) for place in places]
        if not any(rows):
            continue
        for column in spec.columns:
            if column.name in LEFT_OUT:
                continue
            values = [row.get(column.name) for row in rows]
            if all(value is None for value in values):
                continue
            found.append(
                {
                    "name": column.name.replace("_", " "),
                    "term": f"{table}.{column.name}",
                    "help": column.comment,
                    "cells": [_cell(value) for value in values],
                    "difference": _difference(values),
                    "differs": values[0] != values[1],
                }
            )
    return sorted(found, key=lambda fact: not fact["differs"])


def _row(query: Query, table: str, place: Mapping[str, object]) -> dict[str, Any]:
    where = " AND ".join(
        f"{name} = {quote_text(value) if isinstance(value, str) else value}"
        for name, value in place.items()
    )
    rows = query(f"SELECT * FROM {table} WHERE {where}").to_dicts()
    return rows[0] if rows else {}


def _difference(values: Sequence[Any]) -> str:
    """The other's minus this one's, of two numbers."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return signed(float(numbers[1] - numbers[0])) if len(numbers) == 2 else ""


Link = Callable[[Any], str]


def _links(block: str, study: str, other: str) -> dict[str, Link]:
    if block != "compare_saes":
        return {}
    return {"layer": lambda layer: comparison_href(site_key(study, layer), site_key(other, layer))}


def _with_heads(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists of heads as text, cut where they are long."""
    shown = {
        name: [listed(heads or [], SHOWN_HEADS) for heads in frame[name].to_list()]
        for name in ("heads", "other_heads")
    }
    return frame.with_columns(pl.Series(name, own, dtype=pl.String) for name, own in shown.items())


def _block(
    title: str,
    frame: pl.DataFrame,
    sql: str,
    links: Mapping[str, Link] | None = None,
    total: int | None = None,
) -> dict[str, Any]:
    links = links or {}
    return {
        "title": title,
        "columns": [name.replace("_", " ") for name in frame.columns],
        "rows": [
            [
                {
                    "text": _cell(value),
                    "href": links[name](value) if name in links and value is not None else "",
                }
                for name, value in zip(frame.columns, row, strict=True)
            ]
            for row in frame.iter_rows()
        ],
        "n_rows": frame.height if total is None else total,
        "sql": sql,
    }


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return amount(value) if isinstance(value, int | float) else str(value)
