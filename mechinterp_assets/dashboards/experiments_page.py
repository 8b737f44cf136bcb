"""The page of a study's experiments: what was asked and found, pictures with their SQL.

Belongs here: which blocks the page has and their order. Does not belong here: the pictures
(experiment_figures.py, circuit_figures.py, slice_figures.py), sentences (answers.py), and where
rows come from: the caller runs the statements that the page shows.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from mechinterp_assets.dashboards import circuit_figures, slice_figures
from mechinterp_assets.dashboards.answers import SMALL, answer, unstable_share
from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.experiment_figures import (
    BY_KIND,
    BY_NAME,
    Figure,
    effects,
    set_members,
    sets,
)
from mechinterp_assets.dashboards.links import Links
from mechinterp_assets.dashboards.places import task_title, trace_folder
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template
from mechinterp_assets.storage.provenance import Provenance

# What the statements of the page read.
TABLES = (
    "ioi_prompts",
    "intervention_experiments",
    "intervention_plan",
    "intervention_results",
    "intervention_sets",
    "intervention_summary",
    "circuit_faithfulness",
    "circuit_faithfulness_summary",
    "component_reuse_faithfulness",
    "prefix_induction",
    "qk_feature_pairs",
    "qk_feature_summary",
    "attention_slices",
    "attention_slice_counts",
    "attention_slice_usage",
    "attention_slice_contrast",
    "attention_consensus",
    "attention_token_signal",
    "attention_token_norms",
    "attention_slice_writers",
    "vocabulary",
)
Query = Callable[[str], pl.DataFrame]
Draw = Callable[[pl.DataFrame], Figure | None]
CIRCUIT_FIGURES: dict[str, Draw] = {
    "reuse_faithfulness": circuit_figures.reuse,
    "qk_pairs": circuit_figures.qk_pairs,
    "qk_variance": circuit_figures.qk_variance,
    "prefix_curves": circuit_figures.prefix_curves,
}
# What heads read, by singular vectors: pages of traces link to these.
SLICE_FIGURES: dict[str, Draw] = {
    "slice_terms": slice_figures.slice_terms,
    "slice_prompts": slice_figures.slice_prompts,
    "slice_usage": slice_figures.slice_usage,
    "slice_counts": slice_figures.slice_counts,
    "slice_contrast": slice_figures.slice_contrast,
    "slice_writers": slice_figures.slice_writers,
    "token_signals": slice_figures.token_signals,
    "token_norms": slice_figures.token_norms,
}
MAX_TABLE_ROWS = 25  # rows of a table of numbers; the SQL gives all
SHOWN_PICTURES = 4  # of a figure, before more are asked for
# Experiments as readers know them; others are named after their key.
TITLES = {
    "fc24_edges_in": "Edges into heads of the circuit, ablated and boosted",
    "fc24_edges_out": "Edges out of one head, one by one",
    "fc24_magnitudes": "How far edits of edges move the residual stream",
    "fc24_parallel_sets": "Edges side by side, ablated together",
    "fc24_serial_sets": "Edges in a row, ablated together",
    "k24_cross_section": "SAE reconstructions in several layers at once",
    "k24_features_at_s2": "Features at S2 that the answer depends on",
    "k24_noising": "Attention outputs at S2 from another prompt",
    "k24_splicing": "SAE reconstructions in one layer",
}


@dataclass(frozen=True)
class ExperimentsPage:
    """The page and what it shows.

    Attributes:
        html: self-contained.
        n_experiments: experiments with interventions that were run.
        n_pictures: SVGs on the page.
        thumbnails: a small picture of each experiment as a data URI, for metadata.
    """

    html: str
    n_experiments: int
    n_pictures: int
    thumbnails: Mapping[str, str]


def render_experiments(
    query: Query,
    *,
    provenance: Provenance,
    model: str,
    study_href: str,
    feature_layers: Collection[int] = (),
) -> ExperimentsPage:
    """The page of a study; blocks without rows are left out.

    Args:
        query: runs one statement, with the study filled in, on its tables.
        provenance: of the study, which it names.
        model: its name, for display.
        study_href: address of the study's page.
        feature_layers: layers with pages of their features, to which links lead.
    """
    study = provenance.study
    sql = filled_statements(study)
    links = Links(study, feature_layers)
    circuits = list(_circuits(query, sql, links))
    slices = list(_drawn(SLICE_FIGURES, query, sql, links))
    found = _experiments(query, study, query(sql["experiments"]), links)
    run = [one for one in found if one["n_interventions"]]
    html = template("experiments.html").render(
        **page_parts("tables.js", "experiments.js"),
        study=study,
        study_href=study_href,
        circuits=circuits,
        slices=slices,
        trace_href=f"../{trace_folder(study)}/index.html",
        experiments=run,
        plan=query(sql["experiment_plan"]).to_dicts(),
        linked=links.text,
        shown_pictures=SHOWN_PICTURES,
        provenance=provenance_rows(provenance, model, {}),
        sql={**sql, "provenance": ""},
    )
    small = {one["name"]: [block["thumbnail"] for block in one["figures"]] for one in run}
    first = {name: next(filter(None, pictures), "") for name, pictures in small.items()}
    return ExperimentsPage(
        html, len(run), html.count("<svg "), {name: uri for name, uri in first.items() if uri}
    )


# ---- private -------------------------------------------------------------------------------------

_UNSTABLE = f"Unstable: the share is of what ablation changes, which is less than {SMALL:.0%}"


def _circuits(query: Query, sql: dict[str, str], links: Links) -> Iterable[dict[str, Any]]:
    name = "faithfulness_curves"
    for i, figure in enumerate(circuit_figures.faithfulness(query(sql[name]))):
        block = _block(figure, name, sql, links)
        yield block | {"anchor": f"{block['anchor']}-{i + 1}"}
    yield from _drawn(CIRCUIT_FIGURES, query, sql, links)


def _drawn(
    figures: Mapping[str, Draw], query: Query, sql: dict[str, str], links: Links
) -> Iterable[dict[str, Any]]:
    """Blocks of the statements that have something to draw."""
    for name, draw in figures.items():
        figure = draw(query(sql[name]))
        if figure is not None:
            yield _block(figure, name, sql, links)


def _experiments(
    query: Query, study: str, rows: pl.DataFrame, links: Links
) -> list[dict[str, Any]]:
    """Experiments with their figures, in the order of the statement."""
    found: list[dict[str, Any]] = []
    in_order = rows.sort("task", "experiment", maintain_order=True).to_dicts()
    for (task, name), group in groupby(in_order, key=lambda row: (row["task"], row["experiment"])):
        own = list(group)
        sql = filled_statements(study, task=task, experiment=name)
        made = {row["intervention"] for row in own if row["intervention"] is not None}
        figures = [
            _block(figure, statement, sql, links)
            for statement, draw in _drawings(own)
            if (figure := draw(query(sql[statement]))) is not None
        ]
        found.append(
            {
                "anchor": f"experiment-{len(found)}",
                "name": name,
                "title": _title(name, task),
                "sentence": next((f["sentence"] for f in figures if f["sentence"]), ""),
                "task": task,
                "source": own[0]["paper"],
                "question": own[0]["question"],
                "chosen": _chosen(own),
                "figures": figures,
                "n_interventions": len(made),
                "n_prompts": max((row["n"] or 0 for row in own), default=0),
            }
        )
    return found


def _drawings(
    rows: Sequence[dict[str, Any]],
) -> list[tuple[str, Draw]]:
    """Statements and drawings for the kinds of interventions of an experiment."""
    chosen = dict(BY_NAME.get(rows[0]["experiment"], {}))
    if not chosen:
        in_sets = any(row["kind"] == "edge" and row["is_set"] for row in rows)
        for row in rows:
            if row["kind"] == "edge" and in_sets:  # single edges are there to compare with
                chosen["experiment_sets"] = sets
                chosen["experiment_set_members"] = set_members
            elif row["kind"] is not None:
                statement, draw = BY_KIND.get(row["kind"], ("experiment_effects", effects))
                chosen[statement] = draw
    # Details come after what they sum up to, what no other picture shows comes last.
    last = ("experiment_set_members", "experiment_effects")
    return sorted(chosen.items(), key=lambda item: (*(item[0] == name for name in last), item[0]))


def _chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasons, each with the parts that it holds for."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        parts = reasons.setdefault(row["chosen_by"] or "–", [])
        if row["part"] is not None and row["part"] not in parts:
            parts.append(row["part"])
    return [{"reason": reason, "parts": parts} for reason, parts in reasons.items()]


def _title(name: str, task: str) -> str:
    """What a reader calls the experiment, with the task where that is another than IOI."""
    title = TITLES.get(name, name.replace("_", " "))
    return title if task == "ioi" else f"{title}: {task_title(task)}"


def _block(figure: Figure, statement: str, sql: dict[str, str], links: Links) -> dict[str, Any]:
    names = [name for name in figure.frame.columns if name not in figure.hidden]
    return {
        "anchor": statement.replace("_", "-"),
        "title": figure.title,
        "sentence": answer(statement, figure.frame),
        "pictures": [
            (links.text(caption), links.picture(picture)) for caption, picture in figure.pictures
        ],
        "legend": figure.legend,
        "note": figure.note,
        "thumbnail": figure.thumbnail,
        "columns": [name.replace("_", " ") for name in names],
        "rows": [
            [_cell(name, row, links) for name in names]
            for row in figure.frame.head(MAX_TABLE_ROWS).iter_rows(named=True)
        ],
        "n_rows": figure.frame.height,
        "sql": sql[statement],
    }


def _cell(name: str, row: Mapping[str, Any], links: Links) -> Markup:
    value = row[name]
    if value is None:
        return Markup("")
    if name == "feature" and row.get("layer") is not None:
        address = links.feature(row["layer"], value)
        return Markup('<a href="{}">{}</a>').format(address, value) if address else escape(value)
    if name.startswith("recovered_from_ablated") and unstable_share(row):
        grey = Markup('<span class="unstable" title="{}">{}</span>')
        return grey.format(_UNSTABLE, number(value))
    return links.text(number(value) if isinstance(value, float) else value)
