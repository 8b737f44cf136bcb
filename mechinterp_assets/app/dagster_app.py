"""Dagster's webserver as a web application, with the dashboards in it.

Belongs here: how Dagster's own application is made and what is added to it. Does not belong here:
the ports and processes (serve.py), who may ask (request_check.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
)
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mechinterp_assets.resources.dashboards import DASHBOARDS_PATH

_POLL_MILLISECONDS = 2000
# What is in the dashboards' folder shares an address with GraphQL here: its scripts get an origin
# of their own, from which they reach nothing.
_SANDBOX = (
    "sandbox allow-scripts allow-forms allow-downloads allow-popups"
    " allow-popups-to-escape-sandbox; connect-src 'none'"
)


class _Webserver(DagsterWebserver[WorkspaceProcessContext, WorkspaceRequestContext]):
    """Dagster's webserver; the dashboards are where links in metadata lead."""

    def __init__(self, context: WorkspaceProcessContext, dashboards: ASGIApp) -> None:
        self._dashboards = dashboards
        super().__init__(context, live_data_poll_rate=_POLL_MILLISECONDS)

    def build_routes(self) -> list[BaseRoute]:
        # First: Dagster answers every other address with its own page.
        theirs: list[BaseRoute] = super().build_routes()  # type: ignore[no-untyped-call]  # Dagster's
        return [
            Route(DASHBOARDS_PATH, RedirectResponse(f"{DASHBOARDS_PATH}/")),
            Mount(DASHBOARDS_PATH, app=_sandboxed(self._dashboards)),
            *theirs,
        ]


@contextmanager
def dagster_app(workspace: Path, dashboards: ASGIApp) -> Iterator[ASGIApp]:
    """Dagster's web application over the instance of DAGSTER_HOME.

    Args:
        workspace: file that names the code servers.
        dashboards: application that is served under DASHBOARDS_PATH.
    """
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(
            DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW
        )
        target = WorkspaceFileTarget(paths=[str(workspace)])
        with WorkspaceProcessContext(instance, target, version=__version__) as context:
            yield _Webserver(context, dashboards).create_asgi_app()


def _sandboxed(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Content-Security-Policy", _SANDBOX)
            await send(message)

        await app(scope, receive, sent)

    return answer
