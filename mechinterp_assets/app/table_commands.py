"""Commands on the lake: tables, queries, query, checks, export, refresh, verify, rebuild."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mechinterp_assets.app.known_studies import known_study
from mechinterp_assets.app.mistakes import told
from mechinterp_assets.app.opened_lake import check_has_study, opened_lake
from mechinterp_assets.app.printing import Format, print_frame
from mechinterp_assets.app.targets import FORCE_HELP, check_free

FormatOption = Annotated[Format, typer.Option("--format", help="What to write")]
_ROWS_OF_A_TABLE = 8


def tables(form: FormatOption = Format.TABLE) -> None:
    """List the tables of the lake with their rows and partitions."""
    from mechinterp_assets.storage.home import home

    frame = opened_lake().sql(
        'SELECT table_name, count(*) AS partitions, sum("rows")::BIGINT AS row_count '
        "FROM lineage GROUP BY ALL ORDER BY ALL"
    )
    print_frame(frame, f"tables in {home()}", form)


def queries(form: FormatOption = Format.TABLE) -> None:
    """List the worked queries: number, name and the question that each answers."""
    import polars as pl

    from mechinterp_assets.app.queries import all_queries

    found = [{"query": query.name, "question": query.question} for query in all_queries()]
    print_frame(pl.DataFrame(found), "worked queries; run one by its number or its name", form)


def query(
    name: Annotated[str, typer.Argument(help="Number or name of a worked query, or SQL text")],
    study: Annotated[str, typer.Argument(help="Study that the query is about")] = "organism",
    rows: Annotated[
        int | None, typer.Option(help="Rows to write; default: 8 of a table, else all", min=1)
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Run one of the worked queries, or SQL of your own. Nothing can be changed by it."""
    from mechinterp_assets.app.queries import NoQueryError, find_query
    from mechinterp_assets.app.user_sql import QueryError, run_query

    with told(NoQueryError, QueryError):
        found = find_query(name)
        lake = opened_lake()
        if found.asks_about_a_study:
            check_has_study(lake, study)
        frame = run_query(lake, found.sql, study)
    most = _ROWS_OF_A_TABLE if rows is None and form is Format.TABLE else rows
    shown = frame if most is None else frame.head(most)
    print_frame(shown, found.question, form)
    if form is Format.TABLE and shown.height < frame.height:
        print(f"{shown.height} of {frame.height} rows; --rows {frame.height} shows all")


def checks(
    study: Annotated[str, typer.Argument(help="Study whose tables are checked")] = "organism",
    form: FormatOption = Format.TABLE,
) -> None:
    """Check every table of a study: keys, ranges, references, counts and what tables mean.

    Prints what does not hold. Exit code 1 where a check fails that is no warning.
    """
    from mechinterp_assets.orchestration.table_checks import check_study

    chosen = known_study(study)
    lake = opened_lake()
    check_has_study(lake, study)
    found = check_study(lake, chosen)
    failed = found.filter(~found["passed"])
    if form is not Format.TABLE or failed.height:
        shown = failed.drop("passed") if form is Format.TABLE else found
        print_frame(shown, f"what does not hold in the tables of {study}", form)
    errors = failed.filter(failed["severity"] == "error").height
    if form is Format.TABLE:
        tables = f"{found['table'].n_unique()} tables"
        print(f"{found.height} checks of {tables}: {errors} failed, {failed.height - errors} warn")
    if errors:
        raise typer.Exit(1)


def export(
    path: Annotated[Path, typer.Argument(help="File to write, such as results.duckdb")],
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write one self-contained DuckDB file: real tables, comments and views."""
    check_free(path, force)
    print(opened_lake().export(path))


def refresh() -> None:
    """Rebuild the catalog, as after moving the home folder."""
    lake = opened_lake()
    lake.refresh()
    print(lake.database)


def verify() -> None:
    """Check every stored file of tables and tensors against what was written; 1 if any is damaged.

    Checks sizes, SHA-256, rows and manifests, the ledger and the catalog, and lists files that are
    not on record. Hashes of tables that were written before files were hashed are recorded.
    """
    from mechinterp_assets.app.progress import Progress
    from mechinterp_assets.app.verification import verify_lake, verify_tensors
    from mechinterp_assets.storage.home import tensor_folder
    from mechinterp_assets.storage.tensors import Tensors

    progress = Progress(partial(print, file=sys.stderr, flush=True))
    reports = [
        verify_lake(opened_lake(), progress),
        verify_tensors(Tensors(tensor_folder()), progress),
    ]
    for report in reports:
        for line in (*report.damaged, *report.set_aside):
            print(line)
    for report in reports:
        print(report.summary)
    if any(report.damaged for report in reports):
        raise typer.Exit(1)


def rebuild() -> None:
    """Make a lost, damaged or older ledger again from the tables; nothing is removed."""
    from mechinterp_assets.storage.home import lake_folder
    from mechinterp_assets.storage.lake import Lake

    lake = Lake(lake_folder())
    print(f"{lake.rebuild()} versions are on record again; `mechinterp verify` checks their files")
