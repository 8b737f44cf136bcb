"""The command line: `python -m mechinterp_assets ...` or `mechinterp ...`.

Belongs here: arguments and printing. Does not belong here: work (every command calls one function).
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mechinterp_assets.app import study_commands

if TYPE_CHECKING:  # each command imports what it needs, so that --help is quick
    import polars as pl

    from mechinterp_assets.storage.lake import Lake
    from mechinterp_assets.studies.study import Study

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# Without a terminal to fit, tables get room to be read.
console = Console(width=None if sys.stdout.isatty() else 160)

QUICKSTART_QUERIES = (
    "01_heads_by_role",
    "05_traced_edges_that_hurt_when_ablated",
    "02_features_of_the_strongest_induction_head",
)


for command in (study_commands.studies, study_commands.check, study_commands.new):
    app.command()(command)


@app.command()
def materialize(
    study: Annotated[str, typer.Argument(help="Name of a study")] = "organism",
) -> None:
    """Materialize every asset of a study in this process; the UI shows the same runs."""
    from mechinterp_assets.app.materialize import StudyFailedError, instance, materialize_study
    from mechinterp_assets.definitions import build_definitions

    chosen = _study(study)
    started = time.monotonic()
    with instance() as opened:
        try:
            for result in materialize_study(build_definitions(), chosen, opened):
                seconds = time.monotonic() - started
                n = len(result.get_asset_materialization_events())
                console.print(
                    f"{result.job_def.name}: {n} materializations, {seconds:.0f} s so far"
                )
        except StudyFailedError as error:
            console.print(str(error), style="red", markup=False)
            raise typer.Exit(1) from None


@app.command()
def reproduce(
    study: Annotated[str, typer.Argument(help="Name of a study")] = "organism",
    no_run: Annotated[bool, typer.Option("--no-run", help="Compare what is there already")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Ids of references to show")] = None,
    write_reference: Annotated[
        bool, typer.Option("--write-reference", help="Make this run the study's reference file")
    ] = False,
) -> None:
    """Materialize a study and print its results beside published ones, or an earlier run's.

    Exit code 1 where a value is outside the tolerance of its reference; published ones have none.
    """
    from mechinterp_assets.app.reproduce import compared, missing_tables, write_measured
    from mechinterp_assets.reproduction.comparison import failures
    from mechinterp_assets.reproduction.printing import print_comparison
    from mechinterp_assets.reproduction.reference_file import ReferenceFileError

    chosen = _study(study)
    try:
        if not write_reference:
            compared(None, chosen, only or [])  # mistakes in the file show before hours of work
        if not no_run:
            materialize(study)
        lake = _lake()
        if missing := missing_tables(lake, chosen):
            console.print(
                f"not materialized, so without values: {', '.join(missing)}; leave out --no-run "
                f"or run `mechinterp materialize {study}`",
                style="yellow",
                markup=False,
            )
        if write_reference:
            console.print(f"wrote {write_measured(lake, chosen)}", markup=False, soft_wrap=True)
        rows = compared(lake, chosen, only or [])
    except ReferenceFileError as error:
        raise typer.BadParameter(str(error)) from None
    print_comparison(console, rows)
    if failures(rows).height:
        raise typer.Exit(1)


@app.command()
def quickstart(
    study: Annotated[str, typer.Argument(help="Name of a study")] = "organism",
) -> None:
    """Materialize a study, then print what was made and the answers of three queries."""
    materialize(study)
    tables()
    for name in QUICKSTART_QUERIES:
        query(name, study)
    from mechinterp_assets.storage.home import lake_folder

    console.print("\nEverything is SQL in DuckDB:")
    console.print(str(lake_folder() / "mechinterp.duckdb"), markup=False, soft_wrap=True)
    console.print("`make ui` shows how each table came about.")


@app.command()
def tables() -> None:
    """List the tables of the lake with their rows and partitions."""
    frame = _lake().sql(
        'SELECT table_name, count(*) AS partitions, sum("rows") AS row_count '
        "FROM lineage GROUP BY ALL ORDER BY ALL"
    )
    _print(frame, "tables")


@app.command()
def query(
    name: Annotated[str, typer.Argument(help="Name of a file in sql/queries, or SQL text")],
    study: Annotated[str, typer.Argument(help="Study that the query is about")] = "organism",
    rows: Annotated[int, typer.Option(help="Rows to print")] = 8,
) -> None:
    """Run one of the worked queries, or any SQL."""
    import duckdb

    from mechinterp_assets.app.queries import QueryError, find_query

    try:
        found = find_query(name)
    except QueryError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        frame = _lake().query(found.sql, study)
    except duckdb.Error as error:
        raise typer.BadParameter(str(error)) from None
    _print(frame.head(rows), found.question)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write, such as results.duckdb")],
) -> None:
    """Write one self-contained DuckDB file: real tables, comments and views."""
    console.print(str(_lake().export(path)), markup=False)


@app.command()
def label_sheet(
    study: Annotated[str, typer.Argument(help="Name of a study")],
    layer: Annotated[int | None, typer.Option(help="Layer of the SAE; heads: default all")] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Features (default 30) that fired, or heads (default all), to draw"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw")] = 0,
    output: Annotated[Path | None, typer.Option(help="File to write; without it: print")] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Heads with their top features")] = False,
) -> None:
    """Write a CSV sheet of randomly drawn features, or of heads, for a person to label."""
    from mechinterp_assets.app.label_sheets import SheetError, head_sheet_of, sheet_of

    chosen = _study(study)
    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists and may hold labels; name another file")
    if layer is None and not heads:
        raise typer.BadParameter("name a layer with --layer, or ask for heads with --heads")
    try:
        if layer is None or heads:
            text = head_sheet_of(_lake(), chosen, layer, n, seed)
        else:
            text = sheet_of(_lake(), chosen, layer, 30 if n is None else n, seed)
    except SheetError as error:
        raise typer.BadParameter(str(error)) from None
    if output is None:
        sys.stdout.write(text)
        return
    output.write_text(text, encoding="utf-8")
    console.print(
        f"{output}: fill in rater and, on the lines without a feature, class (monosemantic, minor "
        "exception, bisemantic, polysemantic), then name the file under `head_labels` in the study "
        "file and materialize head_labels"
        if heads
        else f"{output}: fill in rater, label and verdict (yes, no, unsure), then name the file "
        "under `labels` in the study file and materialize feature_labels",
        markup=False,
    )


@app.command()
def neuronpedia(
    study: Annotated[str, typer.Argument(help="Name of a study")],
    folder: Annotated[Path, typer.Argument(help="Folder to write <model>/<source>/ into")],
    creator_id: Annotated[
        str, typer.Option(help="Id of an account on the Neuronpedia that imports the folder")
    ],
    creator_name: Annotated[str, typer.Option(help="Shown as the creator")] = "unnamed",
    model_id: Annotated[str, typer.Option(help="Id of the model there; default: its name")] = "",
    source_set: Annotated[str, typer.Option(help="Name of the set of SAEs")] = "",
    release: Annotated[str, typer.Option(help="Name of the release")] = "",
    url: Annotated[list[str] | None, typer.Option(help="Paper, code or weights")] = None,
    layer: Annotated[list[int] | None, typer.Option(help="Layers; default: all")] = None,
) -> None:
    """Write a study's features as a Neuronpedia bulk-import folder."""
    from datetime import UTC, datetime

    from mechinterp_assets.app.neuronpedia_export import export_study
    from mechinterp_assets.dashboards.context import shown_name
    from mechinterp_assets.dashboards.neuronpedia import Publication, identifier
    from mechinterp_assets.orchestration.inputs import StaleInputError
    from mechinterp_assets.resources.compute import ComputeResource
    from mechinterp_assets.resources.language_model import LanguageModelResource
    from mechinterp_assets.storage.home import tensor_folder
    from mechinterp_assets.storage.lake import LakeError
    from mechinterp_assets.storage.tensors import Tensors

    chosen = _study(study)
    if unknown := sorted(set(layer or []) - set(chosen.layers)):
        raise typer.BadParameter(f"{study} has no layer {unknown}; it has {chosen.layers}")
    publication = Publication(
        model_id=identifier(model_id or shown_name(chosen.model.source)),
        source_set=identifier(source_set or f"{study}-att"),
        release=identifier(release or study),
        description=chosen.description,
        creator_id=creator_id,
        creator_name=creator_name,
        created=datetime.now(UTC),
        urls=tuple(url or ()),
    )
    model = LanguageModelResource(compute=ComputeResource()).load(chosen)
    written = export_study(
        _lake(),
        Tensors(tensor_folder()),
        chosen,
        model,
        folder,
        publication,
        layer or chosen.layers,
    )
    try:
        for path in written:
            console.print(str(path), markup=False, soft_wrap=True)
    except (ValueError, LakeError, StaleInputError) as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def sae_folder(
    study: Annotated[str, typer.Argument(help="Name of a study")],
    layer: Annotated[int, typer.Argument(help="Layer of the SAE, from 0")],
    to: Annotated[Path | None, typer.Option(help="Folder to copy it to")] = None,
) -> None:
    """Print the folder of a layer's SAE, in SAELens's format, or copy it to another place."""
    from mechinterp_assets.sae.errors import SaeError
    from mechinterp_assets.sae.io import copy_sae_folder
    from mechinterp_assets.storage.home import tensor_folder
    from mechinterp_assets.storage.manifest import ArtefactError
    from mechinterp_assets.storage.tensors import Tensors
    from mechinterp_assets.studies.study import site_key

    try:
        folder = Tensors(tensor_folder()).open("attention_sae", site_key(study, layer)).path
        if to is not None:
            copy_sae_folder(folder, to)
    except (ArtefactError, SaeError) as error:
        raise typer.BadParameter(str(error)) from None
    print(folder if to is None else to)  # one line, never wrapped: for use in scripts


@app.command()
def trace_graph(
    study: Annotated[str, typer.Argument(help="Name of a study")],
    path: Annotated[Path, typer.Argument(help="File to write, such as trace.graphml")],
    task: Annotated[str, typer.Option(help="Which of the study's traced tasks")] = "ioi",
) -> None:
    """Write a study's traced circuit as GraphML, for Gephi, yEd, Cytoscape or networkx."""
    from mechinterp_assets.circuits.graph import to_graphml

    lake = _lake()
    if not lake.exists("ioi_trace_graph", study):
        raise typer.BadParameter(f"study {study!r} has no trace; materialize ioi_trace_graph first")
    every = lake.read("ioi_trace_graph", study).collect()
    tasks = every["task"].unique(maintain_order=True).to_list()
    if task not in tasks:
        raise typer.BadParameter(
            f"study {study!r} has no traced edges of {task!r}; it has those of: {', '.join(tasks)}"
        )
    graph = every.filter(task=task)
    path.write_bytes(to_graphml(graph))
    console.print(f"{path}: {graph.height} edges", markup=False)


@app.command()
def refresh() -> None:
    """Rebuild the catalog, as after moving the home folder."""
    _lake().refresh()


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port of the Dagster webserver")] = 3000,
    dashboards_port: Annotated[int, typer.Option(help="Port of the dashboards")] = 3001,
) -> None:
    """Serve the Dagster UI, its daemon and the dashboards on 127.0.0.1 until interrupted."""
    from mechinterp_assets.app.serve import serve

    raise typer.Exit(serve(port, dashboards_port))


def main() -> None:
    """Run a command and leave at once.

    Interpreter teardown is skipped: duckdb 2.0 prints dozens of lines about its own classes when
    anything (here: Dagster's records) keeps them alive until then, after the answer just given.
    """
    code = 0
    try:
        app()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _study(name: str) -> "Study":
    from mechinterp_assets.studies.registry import load_registry
    from mechinterp_assets.studies.study import StudyError

    try:
        return load_registry().find(name)
    except StudyError as error:
        raise typer.BadParameter(str(error)) from None


def _lake() -> "Lake":
    from mechinterp_assets.storage.home import lake_folder
    from mechinterp_assets.storage.lake import Lake

    return Lake(lake_folder())


def _print(frame: "pl.DataFrame", title: str) -> None:
    shown = Table(title=title, title_justify="left")
    for column, dtype in frame.schema.items():
        shown.add_column(column, justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        shown.add_row(*(_text(value) for value in row))
    console.print(shown)


def _text(value: object) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{value:.3g}"
    return escape(repr(value) if isinstance(value, str) and value != value.strip() else str(value))
