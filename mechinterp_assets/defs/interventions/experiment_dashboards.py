"""Group `interventions`, page: the experiments of a study with their pictures."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.experiments_page import TABLES, render_experiments
from mechinterp_assets.dashboards.places import experiments_folder
from mechinterp_assets.defs.interventions.intervention_results import GROUP
from mechinterp_assets.orchestration.publishing import Inputs, Publisher
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors


@dg.multi_asset(
    name="experiment_dashboards",
    specs=[
        table_asset(
            "experiment_dashboards",
            per="study",
            group=GROUP,
            study_deps=["language_model", *TABLES],
            kinds=["html"],
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def experiment_dashboards(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    dashboards: DashboardsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Self-contained HTML: question, choices, pictures, numbers and SQL of every experiment."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]
    for table in TABLES:  # what is there is shown; the page's statements read all of them
        if lake.exists(table, study.study):
            inputs.table(table, study.study)
    publisher = Publisher(context, lake)
    with lake.connect() as con:
        page = render_experiments(
            lambda text: con.sql(text).pl(),
            provenance=publisher.provenance(inputs),
            model=shown_name(model["weights_source"]),
            study_href=f"../{study.study}/index.html",
        )
    name = experiments_folder(study.study)
    with dashboards.publish(name) as folder:
        size = (folder / "index.html").write_bytes(page.html.encode())
    publisher.publish(
        study.study,
        inputs,
        {
            "experiment_dashboards": pl.DataFrame(
                [
                    {
                        "path": name,
                        "url_path": f"/{name}/index.html",
                        "n_experiments": page.n_experiments,
                        "n_pictures": page.n_pictures,
                        "bytes": size,
                    }
                ],
                schema_overrides={"n_experiments": pl.Int32, "n_pictures": pl.Int32},
            )
        },
        {
            "experiment_dashboards": {
                "dashboard": dg.MetadataValue.url(dashboards.url(name)),
                **{
                    key: dg.MetadataValue.md(f"![{key}]({uri})")
                    for key, uri in page.thumbnails.items()
                },
            }
        },
    )
    yield from publisher.results()
