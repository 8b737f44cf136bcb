"""The page of a study's own prompts: those that it names, and those kept in the explorer.

Belongs here: what the page shows. Does not belong here: which prompts there are
(app/kept_prompts.py), the explorer, which each of them leads to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import number, percent
from mechinterp_assets.dashboards.places import prompt_href
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.dashboards.tokens import token_label


def render_prompts(
    study: str, sets: Mapping[str, Sequence[str]], made: pl.DataFrame, *, study_href: str
) -> str:
    """HTML of the page.

    Args:
        study: its name.
        sets: texts by set, as they stand now.
        made: rows of the statement `prompts` (sql/dashboards), of the prompts that have tables.
        study_href: address of the study's page; empty where it has none.
    """
    known = {(row["prompt_set"], row["prompt_number"]): row for row in made.to_dicts()}
    return template("prompts.html").render(
        **page_parts("tables.js"),
        study=study,
        study_href=study_href,
        sets=[
            {
                "name": name,
                "rows": [
                    _row(study, place, text, known.get((name, place)))
                    for place, text in enumerate(texts)
                ],
            }
            for name, texts in sets.items()
        ],
        n_waiting=sum(
            (name, place) not in known
            for name, texts in sets.items()
            for place in range(len(texts))
        ),
        sql=filled_statements(study)["prompts"],
    )


# ---- private -------------------------------------------------------------------------------------


def _row(study: str, place: int, text: str, made: Mapping[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"number": place, "text": text, "href": prompt_href(study, text)}
    if made is None:
        return {**row, "made": False}
    return {
        **row,
        "made": True,
        "n_tokens": made["n_tokens"],
        "next": token_label(made["next_token"]),
        "probability": percent(made["next_probability"]),
        "mean": number(made["mean_log_probability"]),
    }
