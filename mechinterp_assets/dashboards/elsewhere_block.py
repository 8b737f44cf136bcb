"""Where else a feature fires: documents, and features of other layers that fire with it.

Belongs here: how these rows are shown. They are read by the page's own statements
(sql/dashboards/elsewhere_*.sql), when a server makes the page: pages in bulk are made of their
layer's tables alone.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import number, percent
from mechinterp_assets.dashboards.places import feature_href, feature_name
from mechinterp_assets.dashboards.tokens import token_label

STATEMENTS = ("elsewhere_documents", "elsewhere_features", "elsewhere_token")
TABLES = ("feature_coactivation", "corpus_documents")
"""Of the study; of other layers: feature_ngrams and what names their features."""
OTHER_LAYERS = ("feature_ngrams", "feature_top_examples", "feature_logit_effects")
BAR = 34  # longest bar, in pixels


def elsewhere(read: Callable[[str], pl.DataFrame], study: str) -> dict[str, Any] | None:
    """Template value `elsewhere`; None where there is nothing to show.

    read: rows of a statement, named as its file.
    """
    documents, together, token = (read(name).to_dicts() for name in STATEMENTS)
    if not (documents or together or token):
        return None
    most = max((row["n_tokens"] for row in documents), default=1)
    return {
        "documents": [
            {
                "document": row["document"],
                "title": row["title"],
                "n": f"{row['n_tokens']:,}",
                "width": round(BAR * row["n_tokens"] / most),
                "largest": number(row["max_activation"]),
            }
            for row in documents
        ],
        "together": [
            {
                **_named(row, study),
                "value": number(row["phi"]),
                "width": round(BAR * min(1.0, row["phi"])),
                "n_both": f"{row['n_coactive']:,}",
                "fires_on": _label(row["fires_on"]),
                "promotes": _label(row["promotes"]),
            }
            for row in together
        ],
        "token": _label(token[0]["token"]) if token else None,
        "same_token": [
            {
                **_named(row, study),
                "share": percent(row["active_share"]),
                "width": round(BAR * row["active_share"]),
                "rate": percent(row["rate"]),
            }
            for row in token
        ],
    }


# ---- private -------------------------------------------------------------------------------------


def _named(row: dict[str, Any], study: str) -> dict[str, str]:
    layer, feature = row["other_layer"], row["other_feature"]
    return {
        "name": feature_name(layer, feature),
        "href": f"../{feature_href(study, layer, feature)}",
    }


def _label(token: str | None) -> str | None:
    return None if token is None else token_label(token)
