"""Group `reproduction`: a study's results beside published ones, or those of an earlier run."""

import hashlib
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.orchestration.publishing import Inputs, Publisher
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.reproduction.comparison import compare, failures
from mechinterp_assets.reproduction.measures import measure
from mechinterp_assets.reproduction.reference_file import load_references, reference_path
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "reproduction"
# Tables that sql/reproduce reads, directly or through views (a test compares).
STUDY_TABLES = (
    "circuit_faithfulness_summary",
    "edge_attribution",
    "head_label_summary",
    "head_scores",
    "head_set_quality",
    "intervention_results",
    "intervention_summary",
    "ioi_baseline",
    "ioi_head_scores",
    "ioi_prompts",
    "ioi_trace_summary",
    "prefix_induction",
    "prefix_induction_intervention",
)
SITE_TABLES = ("induction_test", "sae_evaluation")


@dg.multi_asset(
    name="reproduction",
    specs=[
        table_asset(
            "reproduction",
            per="study",
            group=GROUP,
            study_deps=["language_model", *STUDY_TABLES],
            site_deps=SITE_TABLES,
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def reproduction(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """Every reference of the study's file compared; no rows for a study without one."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    inputs.settings("reference")
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]
    for table in STUDY_TABLES:
        inputs.table(table, study.study)
    for table in SITE_TABLES:
        for site in study.sites:
            inputs.table(table, site)
    file = reference_path(study)
    rows = compare([], {})
    if file.is_file() or study.reference is not None:
        references = load_references(file, study.study)
        text = file.read_bytes()
        inputs.versions["file:references"] = hashlib.sha256(text).hexdigest()
        chosen = references.references
        rows = compare(chosen, measure(lake, study.study, (one.measure for one in chosen)))
    else:
        context.log.info(f"{study.study} has no reference file: the table has no rows")
    outside = failures(rows)
    for row in outside.iter_rows(named=True):
        context.log.warning(
            f"{row['reference_id']} {row['key']}: {row['ours']} is more than "
            f"{row['tolerance']:.3g} from {row['reference_value']}"
        )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"reproduction": rows},
        {
            "reproduction": {
                "compared": rows.filter(pl.col("ours").is_not_null()).height,
                "without_own_value": rows["ours"].null_count(),
                "outside_tolerance": outside.height,
            }
        },
    )
    yield from publisher.results()
