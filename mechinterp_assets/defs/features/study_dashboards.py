"""The page that links all pages of a study."""

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.glossary_page import glossary_page
from mechinterp_assets.dashboards.places import GLOSSARY, frontier_folder, trace_folder
from mechinterp_assets.dashboards.site import render_study
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables

# Title -> table that says where a page of the study is.
PAGES = {"its attention heads": "head_dashboards", "its experiments": "experiment_dashboards"}


@tables(
    "study_dashboards",
    reads=[
        "language_model",
        "feature_dashboards",
        "feature_statistics",
        "sae_evaluation",
        *PAGES.values(),
    ],
    settings=["description", "tasks.traced"],
    kinds=["html"],
)
def study_dashboards(run: Run) -> Made:
    """The page that links all layers of a study with the quality of their SAEs; the glossary."""
    model, name = run.row("language_model"), run.name
    pages = run.frame("feature_dashboards").sort("layer")
    evaluation = run.frame("sae_evaluation").sort("layer")
    statistics = run.table("feature_statistics").select("layer", "n_active", "log10_density")
    related = _related_pages(run)
    with run.dashboards.publish(name) as folder:
        render_study(
            folder,
            model=shown_name(model["weights_source"]),
            provenance=run.provenance,
            statistics=statistics.collect(),
            evaluation=evaluation,
            hrefs={layer: f"..{url}" for layer, url in pages["layer", "url_path"].iter_rows()},
            description=run.study.description,
            related=related,
        )
    with run.dashboards.publish(GLOSSARY) as folder:
        (folder / "index.html").write_text(glossary_page(), encoding="utf-8")
    row = {
        "path": name,
        "url_path": f"/{name}/index.html",
        "n_layer_pages": pages.height,
        "n_feature_pages": int(pages["n_feature_pages"].sum()),
    }
    return run.made(
        {"study_dashboards": pl.DataFrame([row])},
        {
            "study_dashboards": {
                "dashboard": dg.MetadataValue.url(run.dashboards.url(name)),
                "ce_recovered_by_layer": dg.MetadataValue.md(
                    f"![ce]({tiny_bar_chart(evaluation['ce_recovered'].to_list())})"
                ),
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _related_pages(run: Run) -> dict[str, str]:
    """Titles and addresses of the study's other pages, of those that are there."""
    folders = {}
    for title, table in PAGES.items():
        if (page := run.find(table)) is not None:
            folders[title] = page.select("path").collect().item()
    for task in run.study.tasks.traced:
        folders[f"the traced circuit of {task}"] = trace_folder(run.name, task)
    folders["the frontier of its sweep"] = frontier_folder(run.name)
    return {
        title: f"../{folder}/index.html"
        for title, folder in folders.items()
        if run.dashboards.has(folder)
    }
