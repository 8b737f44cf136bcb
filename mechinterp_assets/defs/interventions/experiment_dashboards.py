"""The page of a study's experiments with their pictures."""

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.experiments_page import TABLES, render_experiments
from mechinterp_assets.dashboards.places import experiments_folder
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables


@tables("experiment_dashboards", reads=["language_model", *TABLES], kinds=["html"])
def experiment_dashboards(run: Run) -> Made:
    """Self-contained HTML: question, choices, pictures, numbers and SQL of every experiment."""
    model = run.row("language_model")
    page = render_experiments(
        run.sql,
        provenance=run.origin("language_model"),
        model=shown_name(model["weights_source"]),
        study_href=f"../{run.name}/index.html",
        feature_layers=run.study.layers,
    )
    name = experiments_folder(run.name)
    with run.dashboards.publish(name) as folder:
        size = (folder / "index.html").write_bytes(page.html.encode())
    row = {
        "path": name,
        "url_path": f"/{name}/index.html",
        "n_experiments": page.n_experiments,
        "n_pictures": page.n_pictures,
        "bytes": size,
    }
    return run.made(
        {
            "experiment_dashboards": pl.DataFrame(
                [row], schema_overrides={"n_experiments": pl.Int32, "n_pictures": pl.Int32}
            )
        },
        {
            "experiment_dashboards": {
                "dashboard": dg.MetadataValue.url(run.dashboards.url(name)),
                **{
                    key: dg.MetadataValue.md(f"![{key}]({uri})")
                    for key, uri in page.thumbnails.items()
                },
            }
        },
    )
