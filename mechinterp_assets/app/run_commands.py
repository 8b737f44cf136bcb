"""Commands that run a study or say what would run: materialize, stale, reproduce, quickstart."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp_assets.app.known_studies import known_study
from mechinterp_assets.app.mistakes import Mistake, told
from mechinterp_assets.app.opened_lake import opened_lake
from mechinterp_assets.app.printing import Format, console, print_frame

if TYPE_CHECKING:
    from mechinterp_assets.studies.study import Study

StudyArgument = Annotated[str, typer.Argument(help="Name of a study")]

QUICKSTART_QUERIES = (
    "01_heads_by_role",
    "05_traced_edges_that_hurt_when_ablated",
    "02_features_of_the_strongest_induction_head",
)


def materialize(
    study: StudyArgument = "organism",
    select: Annotated[
        list[str] | None,
        typer.Option(help="A group or table to make, with what it needs; may be given repeatedly"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Make what is up to date again too")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made and why, and end")
    ] = False,
) -> None:
    """Make what is missing or stale of a study, in this process; the UI shows the same runs."""
    _materialize(known_study(study), select or [], everything=everything, dry_run=dry_run)


def stale(
    study: Annotated[str | None, typer.Argument(help="Name of a study; default: all")] = None,
    form: Annotated[Format, typer.Option("--format", help="What to write")] = Format.TABLE,
) -> None:
    """List what is stale or missing and why, one line per table partition and reason."""
    from mechinterp_assets.staleness.asked_for import observe_if_possible
    from mechinterp_assets.studies.registry import load_registry

    if study is not None:
        known_study(study)
    lake = opened_lake()
    observe_if_possible(lake, load_registry().studies.values())
    frame = lake.sql(
        "SELECT study, table_name, partition, cause, reason FROM stale_partitions"
        " WHERE study = coalesce($study, study)"
        + ("" if study else " AND study IN (SELECT study FROM versions)")
        + " ORDER BY ALL",
        {"study": study},
    )
    if frame.is_empty() and form is Format.TABLE:
        print("nothing is stale")
        return
    print_frame(frame, "stale partitions", form)


def reproduce(
    study: StudyArgument = "organism",
    no_run: Annotated[bool, typer.Option("--no-run", help="Compare what is there already")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Ids of references to show")] = None,
    write_reference: Annotated[
        bool, typer.Option("--write-reference", help="Make this run the study's reference file")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be compared, with conditions, and end"),
    ] = False,
) -> None:
    """Materialize a study and print its results beside published ones, or an earlier run's.

    Exit code 1 where a value is outside the tolerance of its reference; published ones have none.
    """
    chosen = known_study(study)

    from mechinterp_assets.app.reproduce import compared, missing_tables, write_measured
    from mechinterp_assets.reproduction.comparison import failures
    from mechinterp_assets.reproduction.printing import print_comparison
    from mechinterp_assets.reproduction.reference_file import ReferenceFileError

    with told(ReferenceFileError):
        if not write_reference or dry_run:
            planned = compared(None, chosen, only or [])  # mistakes show before hours of work
        if dry_run:
            print_comparison(console(), planned)
            return
        if not no_run:
            _materialize(chosen)
        lake = opened_lake()
        if missing := missing_tables(lake, chosen):
            print(
                f"not materialized, so without values: {', '.join(missing)}; leave out --no-run "
                f"or run `mechinterp materialize {study}`"
            )
        if write_reference:
            print(f"wrote {write_measured(lake, chosen)}")
        rows = compared(lake, chosen, only or [])
    print_comparison(console(), rows)
    if failures(rows).height:
        raise typer.Exit(1)


def quickstart(study: StudyArgument = "organism") -> None:
    """Materialize a study, then print what was made and the answers of three queries."""
    from mechinterp_assets.app.table_commands import query, tables

    _materialize(known_study(study))
    tables()
    for name in QUICKSTART_QUERIES:
        query(name, study)
    print("\nEverything is SQL in DuckDB:")
    print(opened_lake().database)
    print("`mechinterp ui` shows how each table came about.")


# ---- private -------------------------------------------------------------------------------------


def _materialize(
    study: "Study",
    select: Iterable[str] = (),
    *,
    everything: bool = False,
    dry_run: bool = False,
) -> None:
    """Say what is stale, then make it, with lines of progress; Mistake where a step fails."""
    started = time.monotonic()

    from mechinterp_assets.app.materialize import (
        BlockedError,
        Materializer,
        StudyFailedError,
        instance,
    )
    from mechinterp_assets.app.plan_lines import plan_lines
    from mechinterp_assets.app.progress import Progress, duration
    from mechinterp_assets.orchestration.logging import console_logger
    from mechinterp_assets.storage.home import lake_folder
    from mechinterp_assets.storage.lake import Lake

    progress = Progress(console_logger().info)
    with instance() as opened:
        with progress.doing("loading the definitions"):
            from mechinterp_assets.definitions import build_definitions

            definitions = build_definitions()
        with told(ValueError):
            work = Materializer(
                definitions,
                study,
                Lake(lake_folder()),
                opened,
                only=select,
                everything=everything,
            )
        for line in plan_lines(work.graph, work.pending()):
            progress.say(line)
        if dry_run:
            return
        made = 0
        try:
            for result in work.run_all(progress):
                made += len(result.materializations)
        except BlockedError as error:
            raise Mistake(str(error), exit_code=1) from None
        except StudyFailedError as error:
            # Why it failed was said when it did.
            first = str(error).splitlines()[0].rstrip(":")
            raise Mistake(f"{first}; what was published before stays", exit_code=1) from None
        progress.say(
            f"study {study.study}: made {made} table partitions in "
            f"{duration(time.monotonic() - started)}"
        )
