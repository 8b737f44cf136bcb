"""The command line: `python -m mechinterp_assets ...` or `mechinterp ...`.

Belongs here: which commands there are, and how a command ends. Does not belong here: the commands
(`*_commands.py`, a file a group). Each imports what it needs when it is called, so that commands
that need no model answer at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mechinterp_assets.app import (
    export_commands,
    fetch_commands,
    mcp_command,
    run_commands,
    sae_commands,
    study_commands,
    table_commands,
)
from mechinterp_assets.app.mistakes import outside
from mechinterp_assets.storage.lake_error import LakeError
from mechinterp_assets.storage.manifest import ArtefactError

# Without rich's boxes: a message is a line that can be copied, however wide the terminal is.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
NAME = "mechinterp"
_INTERRUPTED = 130

for command in (
    run_commands.quickstart,
    run_commands.materialize,
    run_commands.stale,
    run_commands.reproduce,
    study_commands.studies,
    study_commands.check,
    study_commands.new,
    fetch_commands.fetch,
    table_commands.tables,
    table_commands.queries,
    table_commands.query,
    table_commands.checks,
    table_commands.export,
    table_commands.refresh,
    table_commands.verify,
    table_commands.rebuild,
    export_commands.label_sheet,
    export_commands.neuronpedia,
    export_commands.sae_folder,
    sae_commands.sae_check,
    export_commands.trace_graph,
    mcp_command.mcp,
):
    app.command()(command)


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(help="Port of the Dagster webserver", min=1, max=65535)
    ] = 3000,
    dashboards_port: Annotated[
        int, typer.Option(help="Port of the dashboards", min=1, max=65535)
    ] = 3001,
) -> None:
    """Serve the Dagster UI, its daemon and the dashboards on 127.0.0.1 until interrupted."""
    from mechinterp_assets.app.ports import listening

    with listening({"--port": port, "--dashboards-port": dashboards_port}) as sockets:
        from mechinterp_assets.app.serve import serve

        serve(*sockets)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"mechinterp-assets {version('mechinterp-assets')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    """Mechanistic interpretability of attention as Dagster data assets, queryable in DuckDB."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; mistakes are told in one line each.

    0 is success, 1 what could not be done, 2 a wrong call, 130 an interruption. Mistakes in the
    program itself are raised.
    """
    try:
        code = app(arguments, prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _told(f"{error.format_message()}{_hint(error)}", error.exit_code)
    except (LakeError, ArtefactError) as error:
        return _told(str(error), 1)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if (line := outside(error)) is None:
            raise
        return _told(line, 1)
    if code == _INTERRUPTED:
        return _told("interrupted", code)
    return int(code or 0)


def main() -> None:
    """Run the command of this process and end it with its exit code."""
    sys.exit(run())


def _hint(error: typer.TyperException) -> str:
    """Where a call that could not be read is explained."""
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (`{context.command_path} --help` explains)"


def _told(line: str, code: int) -> int:
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)
    return code
