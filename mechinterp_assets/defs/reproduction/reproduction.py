"""A study's results beside published ones, or those of an earlier run."""

import polars as pl

from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables
from mechinterp_assets.reproduction.comparison import compare, failures
from mechinterp_assets.reproduction.measures import measured, tables_read
from mechinterp_assets.reproduction.reference_file import load_references, reference_path


@tables(
    "reproduction",
    reads=["language_model", *sorted(tables_read())],
    settings=["reference"],
    files=["reference"],
)
def reproduction(run: Run) -> Made:
    """Every reference of the study's file compared; no rows for a study without one."""
    run.row("language_model")
    rows = compare([], {})
    file = reference_path(run.name, run.study.reference)
    if file.is_file() or run.study.reference is not None:
        chosen = load_references(file, run.name).references
        rows = compare(chosen, measured((one.measure for one in chosen), run.query))
    else:
        run.log.info(f"{run.name} has no reference file: the table has no rows")
    outside = failures(rows)
    for row in outside.iter_rows(named=True):
        run.log.warning(
            f"{row['reference_id']} {row['key']}: {row['ours']} is more than "
            f"{row['tolerance']:.3g} from {row['reference_value']}"
        )
    return run.made(
        {"reproduction": rows},
        {
            "reproduction": {
                "compared": rows.filter(pl.col("ours").is_not_null()).height,
                "without_own_value": rows["ours"].null_count(),
                "outside_tolerance": outside.height,
            }
        },
    )
