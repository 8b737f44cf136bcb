"""The first page of the dashboards: all studies with how they stand, and links to their pages.

Belongs here: what the page shows. Does not belong here: reading study files (studies/registry.py),
Dagster's runs (app/failed_runs.py) and serving (app/dashboard_app.py).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.places import (
    COMPARISONS,
    EXPLORER,
    GLOSSARY,
    experiments_folder,
    frontier_folder,
    heads_folder,
    prompts_folder,
    task_title,
    trace_folder,
    training_folder,
)
from mechinterp_assets.dashboards.rendering import page_parts, template
from mechinterp_assets.staleness.reasons import Freshness
from mechinterp_assets.studies.registry import Registry
from mechinterp_assets.studies.study import Study, site_key

SHOWN_PARTITIONS = 3
BAR = 120  # pixels of the bar of partitions


@dataclass(frozen=True)
class Failure:
    """A step or check of a run that failed.

    Attributes:
        run_id: of Dagster.
        study: whose partitions they are; empty where unknown.
        step: name of the step, or the table that was checked.
        partitions: that were to be made.
        why: the error's own words.
        at: when.
    """

    run_id: str
    study: str
    step: str
    partitions: tuple[str, ...]
    why: str
    at: datetime


def studies_page(
    registry: Registry,
    published: Collection[str],
    states: Mapping[str, Freshness],
    *,
    failures: Sequence[Failure] = (),
    dagster_href: str | None = None,
) -> str:
    """HTML of the page.

    Args:
        registry: studies, and study files that give none.
        published: folders under the dashboards' root that have an index.
        states: how studies stand of which something is made.
        failures: what failed and was not made since, the latest first.
        dagster_href: address of Dagster's pages, with a slash at its end; None where they are not
            served.
    """
    studies = [
        {**_row(study, published), **_standing(states.get(study.study))}
        for study in registry.studies.values()
    ]
    studies.sort(key=lambda row: row["state"] is None)  # what has something comes first
    return template("studies.html").render(
        **page_parts(),
        studies=studies,
        problems=registry.problems,
        failures=[_failure(failure) for failure in failures],
        dagster_href=dagster_href,
        explorer_href=f"{EXPLORER}/" if EXPLORER in published else "",
        comparisons_href=f"{COMPARISONS}/" if COMPARISONS in published else "",
        glossary_href=f"{GLOSSARY}/" if GLOSSARY in published else "",
    )


# ---- private -------------------------------------------------------------------------------------


def _row(study: Study, published: Collection[str]) -> dict[str, Any]:
    folders = {
        "features": study.study,
        "heads": heads_folder(study.study),
        "experiments": experiments_folder(study.study),
        "training": training_folder(study.study),
        "frontier": frontier_folder(study.study),
        "prompts": prompts_folder(study.study),
        **{
            f"circuit of {task_title(task)}": trace_folder(study.study, task)
            for task in study.tasks.traced
        },
    }
    layers = [
        {"number": layer, "href": _href(site_key(study.study, layer), published)}
        for layer in study.layers
    ]
    return {
        "name": study.study,
        "description": study.description,
        "model": shown_name(study.model.source).rpartition("/")[2],
        "source": shown_name(study.model.source),
        "n_layers": study.n_layers,
        "n_sites": len(layers),
        "layers": [layer for layer in layers if layer["href"]],
        "pages": [
            {"title": title, "href": f"{folder}/index.html"}
            for title, folder in folders.items()
            if folder in published
        ],
    }


def _standing(state: Freshness | None) -> dict[str, Any]:
    """Counts of partitions, and the widths of their parts of a bar."""
    if state is None:
        return {"state": None}
    outdated = max(0, state.stale - state.missing)
    total = max(1, state.made + state.missing)
    current = max(0, state.made - outdated)
    parts = [("current", current), ("outdated", outdated), ("missing", state.missing)]
    x, bar = 0.0, []
    for kind, n in parts:
        width = BAR * n / total
        if n:
            bar.append({"kind": kind, "x": f"{x:.1f}", "width": f"{max(width, 1.5):.1f}"})
        x += width
    return {
        "state": state,
        "total": state.made + state.missing,
        "outdated": outdated,
        "bar": bar,
        "bar_width": BAR,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    shown = ", ".join(failure.partitions[:SHOWN_PARTITIONS])
    more = len(failure.partitions) - SHOWN_PARTITIONS
    return {
        "at": failure.at.strftime("%Y-%m-%d %H:%M UTC"),
        "what": f"{failure.step} of {shown}" if shown else failure.step,
        "more": more if more > 0 else 0,
        "why": failure.why,
        "run_id": failure.run_id,
    }


def _href(folder: str, published: Collection[str]) -> str:
    return f"{folder}/index.html" if folder in published else ""
