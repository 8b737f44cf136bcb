"""The command `mcp`: the catalog for agents, over standard input or HTTP."""

import sys
from typing import Annotated

import typer

from mechinterp_assets.app.mistakes import Mistake, told
from mechinterp_assets.app.opened_lake import opened_lake

_NEEDS = "mcp"


def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP on 127.0.0.1 instead of stdio")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --http", min=1, max=65535)] = 3002,
) -> None:
    """Serve the catalog to agents (Model Context Protocol): they can read it and change nothing."""
    opened_lake()  # an empty home is told here, not to the first who asks
    try:
        from mechinterp_assets.app.mcp_server import PATH, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (_NEEDS, "mcp_types"):
            raise
        raise Mistake(
            "the MCP SDK is not installed; install it with `pip install 'mechinterp-assets[mcp]'`",
            exit_code=1,
        ) from None
    from mechinterp_assets.app.catalog_answers import CatalogAnswers
    from mechinterp_assets.app.ports import HOST, listening
    from mechinterp_assets.app.request_check import HostNameError
    from mechinterp_assets.storage.home import home

    answers = CatalogAnswers(home())
    if not http:
        serve_stdio(answers)
        return
    with listening({"--port": port}) as (listener,), told(HostNameError):
        print(f"MCP http://{HOST}:{port}{PATH}", file=sys.stderr, flush=True)
        serve_http(answers, listener)
