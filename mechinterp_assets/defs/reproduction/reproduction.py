"""A study's results beside published ones, or those of an earlier run."""

import polars as pl

from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables
from mechinterp_assets.reproduction.comparison import compare, failures
from mechinterp_assets.reproduction.conditions import run_conditions
from mechinterp_assets.reproduction.measures import measured, measures_of, tables_read
from mechinterp_assets.reproduction.reference_file import load_references, reference_path


@tables(
    "reproduction",
    reads=sorted(tables_read()),
    settings=[
        "reference",
        "model.bos",
        "corpus.dataset",
        "corpus.format",
        "corpus.path",
        "sae.architecture",
        "ioi.trace_rule",
        "ioi.firing_threshold",
        "ioi.roots",
        "circuits.counterfactual",
    ],
    files=["reference"],
)
def reproduction(run: Run) -> Made:
    """Every reference of the study's file compared; no rows for a study without one."""
    run.row("language_model")
    rows = compare([], {}, {}, {})
    file = reference_path(run.name, run.study.reference)
    if file.is_file() or run.study.reference is not None:
        chosen = load_references(file, run.name).references
        measures = measures_of(chosen)
        values = measured(measures, run.query)
        rows = compare(chosen, measures, values, run_conditions(run.study, run.query))
    else:
        run.log.info(f"{run.name} has no reference file: the table has no rows")
    outside = failures(rows)
    for row in outside.iter_rows(named=True):
        run.log.warning(
            f"{row['reference_id']} {row['key']}: {row['ours']} is not within "
            f"{row['tolerance']:.3g} of {row['reference_value']}"
        )
    return run.made(
        {"reproduction": rows},
        {
            "reproduction": {
                "compared": rows.filter(pl.col("ours").is_not_null()).height,
                "without_own_value": rows["ours"].null_count(),
                "under_another_condition": rows.filter(judgement="other_condition").height,
                "unstable": rows.filter(judgement="unstable").height,
                "outside_tolerance": outside.height,
            }
        },
    )
