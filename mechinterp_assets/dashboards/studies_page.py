"""The first page of the dashboards: all studies with links to their pages, and what is left out.

Belongs here: what the page shows. Does not belong here: reading study files (studies/registry.py)
and serving (app/dashboard_app.py).
"""

from collections.abc import Collection, Mapping
from typing import Any

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.places import (
    experiments_folder,
    frontier_folder,
    heads_folder,
    trace_folder,
)
from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.staleness.reasons import Freshness
from mechinterp_assets.studies.registry import Registry
from mechinterp_assets.studies.study import Study, site_key


def studies_page(
    registry: Registry, published: Collection[str], states: Mapping[str, Freshness]
) -> str:
    """HTML of the page.

    published: folders under the dashboards' root that have an index. states: how studies stand of
    which something is made.
    """
    return template("studies.html").render(
        **page_parts(),
        studies=[
            {**_row(study, published), "state": states.get(study.study)}
            for study in registry.studies.values()
        ],
        problems=registry.problems,
    )


# ---- private -------------------------------------------------------------------------------------


def _row(study: Study, published: Collection[str]) -> dict[str, Any]:
    folders = {
        "features": study.study,
        "heads": heads_folder(study.study),
        "experiments": experiments_folder(study.study),
        "frontier": frontier_folder(study.study),
        **{
            "trace" if task == "ioi" else f"trace of {task}": trace_folder(study.study, task)
            for task in study.tasks.traced
        },
    }
    return {
        "name": study.study,
        "description": study.description,
        "model": shown_name(study.model.source),
        "n_layers": study.n_layers,
        "layers": [
            {"number": layer, "href": _href(site_key(study.study, layer), published)}
            for layer in study.layers
        ],
        "pages": [
            {"title": title, "href": f"{folder}/index.html"}
            for title, folder in folders.items()
            if folder in published
        ],
    }


def _href(folder: str, published: Collection[str]) -> str:
    return f"{folder}/index.html" if folder in published else ""
