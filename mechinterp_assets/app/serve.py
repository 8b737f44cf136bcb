"""The Dagster UI, its daemon and the dashboards, served on 127.0.0.1.

Belongs here: starting and stopping those processes. Does not belong here: what they show.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
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
from mechinterp_assets.storage.home import dashboard_folder, lake_folder
from mechinterp_assets.storage.lake import Lake

WORKSPACE = Path(__file__).with_name("workspace.yaml")


def dashboard_app() -> Starlette:
    """The dashboards folder as a read-only web application, with pages from the lake.

    A layer's published folder has pages of its most active features, for reading without a server.
    Here every feature has one: pages are made on request, and the layer's index links all of them.
    Pages of heads and of experiments are made on request too, so that they follow every table that
    they show.
    """
    folder = dashboard_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lake = Lake(lake_folder())
    pages, heads, experiments = LivePages(lake), LiveHeadPages(lake), LiveExperimentPages(lake)
    files = StaticFiles(directory=folder, html=True, follow_symlink=True)

    def feature(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        page = pages.page(site, number)
        if page is not None:
            return HTMLResponse(page)
        return _file(folder / site / "features" / f"{number}.html", folder)

    def tree(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        page = pages.tree(site, number)
        if page is not None:
            return HTMLResponse(page)
        return _file(folder / site / "trees" / f"{number}.html", folder)

    def index(request: Request) -> Response:
        site = request.path_params["site"]
        answer = _file(folder / site / "index.html", folder)
        if answer.status_code == 200 and pages.covers(site):
            text = bytes(answer.body).decode()
            return HTMLResponse(text.replace(SOME_LINKED, ALL_LINKED, 1))
        return answer

    def head(request: Request) -> Response:
        study, layer, number = (request.path_params[name] for name in ("study", "layer", "head"))
        page = heads.page(study, layer, number)
        if page is not None:
            return HTMLResponse(page)
        return _file(folder / heads_folder(study) / head_page(layer, number), folder)

    def head_index(request: Request) -> Response:
        study = request.path_params["study"]
        page = heads.index(study)
        if page is not None:
            return HTMLResponse(page)
        return _file(folder / heads_folder(study) / "index.html", folder)

    def experiment_page(request: Request) -> Response:
        study = request.path_params["study"]
        page = experiments.page(study)
        if page is not None:
            return HTMLResponse(page)
        return _file(folder / experiments_folder(study) / "index.html", folder)

    return Starlette(
        routes=[
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
        ]
    )


def serve(port: int, dashboards_port: int) -> int:
    """Run webserver, daemon and dashboards until SIGINT or SIGTERM; return Dagster's exit code."""
    prepare_instance_folder()
    # A shell's `&` ignores SIGINT, and `dagster dev` would inherit that: reset both signals.
    dagster = subprocess.Popen(
        [
            *("env", "--default-signal=INT,TERM"),
            *(sys.executable, "-m", "dagster", "dev"),
            *("-w", str(WORKSPACE), "-h", HOST, "-p", str(port)),
        ],
        start_new_session=True,
    )
    dashboards = uvicorn.Server(
        uvicorn.Config(dashboard_app(), host=HOST, port=dashboards_port, log_level="warning")
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopper(dashboards, dagster))
    print(
        f"Dagster    http://{HOST}:{port}\nDashboards http://{HOST}:{dashboards_port}", flush=True
    )
    try:
        dashboards.run()
    finally:
        if dagster.poll() is None:
            dagster.send_signal(signal.SIGTERM)
    return dagster.wait()


def _file(path: Path, folder: Path) -> HTMLResponse:
    """A page of the folder, or 404; nothing outside the folder."""
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        return HTMLResponse("Not Found", status_code=404)
    return HTMLResponse(path.read_text())


def _stopper(
    dashboards: uvicorn.Server, dagster: "subprocess.Popen[bytes]"
) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        dashboards.should_exit = True
        if dagster.poll() is None:
            dagster.send_signal(signal.SIGTERM)

    return stop
