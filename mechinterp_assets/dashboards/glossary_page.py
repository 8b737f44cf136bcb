"""The page of tables and terms: every table, view, column and head score with its definition.

Belongs here: what the page shows, made from the comments of sql/tables and sql/views. Does not
belong here: the definitions themselves.
"""

from collections.abc import Sequence
from typing import Any

import duckdb
from cachetools import LRUCache

from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.storage.declarations import Declarations, declarations
from mechinterp_assets.storage.joins import Join, joins, joins_of
from mechinterp_assets.storage.table_spec import Column, TableSpec, ViewSpec

SCORES_VIEW = "head_score_definitions"


def glossary_page() -> str:
    """HTML of the page, kept until a declaration changes."""
    declared = declarations()
    if declared.fingerprint not in _pages:
        _pages[declared.fingerprint] = _rendered(declared)
    return _pages[declared.fingerprint]


# ---- private -------------------------------------------------------------------------------------

# HTML by the fingerprint of the declarations.
_pages: LRUCache[str, str] = LRUCache(2)


def _rendered(declared: Declarations) -> str:
    known = joins(declared.tables)
    relations = [
        _relation(spec, "table", [*refers, *referred])
        for spec in declared.tables.values()
        for refers, referred in [joins_of(spec.name, known)]
    ]
    relations += [_relation(view, "view", []) for view in declared.views]
    provenance = next(iter(declared.tables.values())).provenance if declared.tables else ()
    return template("glossary.html").render(
        **page_parts("glossary.js"),
        relations=sorted(relations, key=lambda one: one["name"]),
        provenance_columns=[_column("provenance", column) for column in provenance],
        scores=_scores(declared),
    )


def _relation(spec: TableSpec | ViewSpec, kind: str, of: Sequence[Join]) -> dict[str, Any]:
    return {
        "name": spec.name,
        "kind": kind,
        "comment": spec.comment,
        "columns": [_column(spec.name, column) for column in spec.columns],
        "joins": of,
    }


def _column(relation: str, column: Column) -> dict[str, str]:
    return {
        "anchor": f"{relation}.{column.name}",
        "name": column.name,
        "type": column.type,
        "comment": column.comment,
    }


def _scores(declared: Declarations) -> list[dict[str, str]]:
    view = next((view for view in declared.views if view.name == SCORES_VIEW), None)
    if view is None:
        return []
    with duckdb.connect() as con:
        con.execute(view.statements)
        rows = con.execute(
            f"SELECT score, table_name, definition, value_range, paper FROM {SCORES_VIEW}"
            " ORDER BY score"
        ).fetchall()
    return [
        {
            "anchor": f"score.{score}",
            "name": score,
            "table": table,
            "definition": definition,
            "range": value_range or "",
            "paper": paper or "",
        }
        for score, table, definition, value_range, paper in rows
    ]
