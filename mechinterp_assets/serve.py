"""The Dagster UI, its daemon and the dashboards, served on 127.0.0.1.

Belongs here: starting and stopping those processes. Does not belong here: what they show.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from mechinterp_assets.home import PROJECT, dashboard_folder
from mechinterp_assets.materialize import prepare_instance_folder

HOST = "127.0.0.1"


def dashboard_app() -> Starlette:
    """The dashboards folder as a read-only web application."""
    folder = dashboard_folder()
    folder.mkdir(parents=True, exist_ok=True)
    files = StaticFiles(directory=folder, html=True, follow_symlink=True)
    return Starlette(routes=[Mount("/", app=files)])


def serve(port: int, dashboards_port: int) -> int:
    """Run webserver, daemon and dashboards until SIGINT or SIGTERM; return Dagster's exit code."""
    prepare_instance_folder()
    # A shell's `&` ignores SIGINT, and `dagster dev` would inherit that: reset both signals.
    dagster = subprocess.Popen(
        [
            *("env", "--default-signal=INT,TERM"),
            *(sys.executable, "-m", "dagster", "dev"),
            *("-w", str(PROJECT / "workspace.yaml"), "-h", HOST, "-p", str(port)),
        ],
        cwd=PROJECT,
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


def _stopper(
    dashboards: uvicorn.Server, dagster: "subprocess.Popen[bytes]"
) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        dashboards.should_exit = True
        if dagster.poll() is None:
            dagster.send_signal(signal.SIGTERM)

    return stop
