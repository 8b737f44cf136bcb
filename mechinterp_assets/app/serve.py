"""The Dagster UI, its daemon and the dashboards, served on 127.0.0.1.

Belongs here: starting and stopping those processes. Does not belong here: what they show.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mechinterp_assets.app.materialize import prepare_instance_folder
from mechinterp_assets.app.ports import HOST
from mechinterp_assets.dashboards.live.experiment_pages import LiveExperimentPages
from mechinterp_assets.dashboards.live.feature_pages import LivePages
from mechinterp_assets.dashboards.live.head_pages import LiveHeadPages
from mechinterp_assets.dashboards.places import experiments_folder, head_page, heads_folder
from mechinterp_assets.dashboards.site import ALL_LINKED, SOME_LINKED
from mechinterp_assets.dashboards.studies_page import studies_page
from mechinterp_assets.storage.home import dashboard_folder, lake_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.registry import load_registry

WORKSPACE = Path(__file__).with_name("workspace.yaml")


def dashboard_app() -> Starlette:
    """The dashboards folder as a read-only web application, with pages from the lake.

    A layer's published folder has pages of its most active features, for reading without a server.
    Here every feature has one: pages are made on request, and the layer's index links all of them.
    Pages of heads and of experiments are made on request too, so that they follow every table that
    they show. The first page lists the studies of the files as they are when it is asked for.
    """
    folder = dashboard_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lake = Lake(lake_folder())
    pages, heads, experiments = LivePages(lake), LiveHeadPages(lake), LiveExperimentPages(lake)
    files = StaticFiles(directory=folder, html=True, follow_symlink=True)

    def studies(request: Request) -> Response:
        published = {page.parent.name for page in folder.glob("*/index.html")}
        return HTMLResponse(studies_page(load_registry(), published))

    started = time.time_ns()

    def answer(request: Request, live: Callable[[], str | None], file: Path) -> Response:
        """A page from the lake, or without one the published file."""
        # What a page shows changes with the lake, how it is made with this program. Looked at
        # first: a page that a write overtakes must not pass for the newer one.
        state = (started, *(lake.catalog_state() or ()))
        if _is_known(request, state):
            return _not_modified(state)
        page = live()
        return _file(request, file, folder) if page is None else _html(page, state)

    def feature(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        file = folder / site / "features" / f"{number}.html"
        return answer(request, lambda: pages.page(site, number), file)

    def tree(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        file = folder / site / "trees" / f"{number}.html"
        return answer(request, lambda: pages.tree(site, number), file)

    def index(request: Request) -> Response:
        site = request.path_params["site"]
        every = (SOME_LINKED, ALL_LINKED) if pages.covers(site) else None
        return _file(request, folder / site / "index.html", folder, every)

    def head(request: Request) -> Response:
        study, layer, number = (request.path_params[name] for name in ("study", "layer", "head"))
        file = folder / heads_folder(study) / head_page(layer, number)
        return answer(request, lambda: heads.page(study, layer, number), file)

    def head_index(request: Request) -> Response:
        study = request.path_params["study"]
        return answer(
            request, lambda: heads.index(study), folder / heads_folder(study) / "index.html"
        )

    def experiment_page(request: Request) -> Response:
        study = request.path_params["study"]
        file = folder / experiments_folder(study) / "index.html"
        return answer(request, lambda: experiments.page(study), file)

    return Starlette(
        routes=[
            Route("/", studies),
            Route("/{study}.experiments/index.html", experiment_page),
            Route("/{study}.experiments/", experiment_page),
            Route("/{study}.heads/L{layer:int}H{head:int}.html", head),
            Route("/{study}.heads/index.html", head_index),
            Route("/{study}.heads/", head_index),
            Route("/{site}/features/{feature:int}.html", feature),
            Route("/{site}/trees/{feature:int}.html", tree),
            Route("/{site}/index.html", index),
            Route("/{site}/", index),
            Mount("/", app=files),
        ],
        middleware=[Middleware(GZipMiddleware)],
    )


def serve(port: int, dashboards_port: int) -> int:
    """Run webserver, daemon and dashboards until SIGINT or SIGTERM; return Dagster's exit code."""
    prepare_instance_folder()
    dashboards = uvicorn.Server(
        uvicorn.Config(dashboard_app(), host=HOST, port=dashboards_port, log_level="warning")
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopper(dashboards))
    # A shell's `&` ignores SIGINT, and `dagster dev` would inherit that: reset both signals.
    dagster = subprocess.Popen(
        [
            *("env", "--default-signal=INT,TERM"),
            *(sys.executable, "-m", "dagster", "dev"),
            *("-w", str(WORKSPACE), "-h", HOST, "-p", str(port)),
        ],
        start_new_session=True,
    )
    print(
        f"Dagster    http://{HOST}:{port}\nDashboards http://{HOST}:{dashboards_port}", flush=True
    )
    try:
        dashboards.run()
    finally:
        # Once: a second signal interrupts `dagster dev` while it stops its daemon, which then
        # outlives it and quarrels with the next one.
        if dagster.poll() is None:
            dagster.send_signal(signal.SIGTERM)
    return dagster.wait()


def _file(
    request: Request, path: Path, folder: Path, replaced: tuple[str, str] | None = None
) -> Response:
    """A page of the folder, with one text replaced, or 404; nothing outside the folder."""
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        return HTMLResponse("Not Found", status_code=404)
    found = path.stat()
    state = (found.st_ino, found.st_mtime_ns, replaced is not None)
    if _is_known(request, state):
        return _not_modified(state)
    text = path.read_text()
    return _html(text if replaced is None else text.replace(*replaced, 1), state)


def _headers(state: tuple[int, ...]) -> dict[str, str]:
    """A tag of what a page shows, which browsers ask about each time.

    Weak: gzip sends the same page in other bytes.
    """
    tag = "-".join(format(part, "x") for part in state)
    return {"ETag": f'W/"{tag}"', "Cache-Control": "no-cache"}


def _is_known(request: Request, state: tuple[int, ...]) -> bool:
    """Whether the browser has the page as of `state`."""
    known = request.headers.get("if-none-match", "").split(",")
    return _headers(state)["ETag"] in map(str.strip, known)


def _not_modified(state: tuple[int, ...]) -> Response:
    return Response(status_code=304, headers=_headers(state))


def _html(text: str, state: tuple[int, ...]) -> Response:
    return HTMLResponse(text, headers=_headers(state))


def _stopper(dashboards: uvicorn.Server) -> Callable[[int, FrameType | None], None]:
    """For signals that come before uvicorn's own handlers, and for those that it raises again."""

    def stop(number: int, frame: FrameType | None) -> None:
        dashboards.should_exit = True

    return stop
