"""`mechinterp ui`: Dagster's webserver, its daemon, a code server and the dashboards.

Belongs here: which processes there are, that they start and end together, and what is said of it.
Does not belong here: what is served (dagster_app.py, dashboard_app.py), who may ask
(request_check.py), how a child is tied to its parent (tied_process.py).

Both web applications are in this process, which holds the ports. The code server, which loads the
definitions and runs assets, and the daemon are children.
"""

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket as Socket
from types import FrameType

import dagster as dg
import uvicorn
import yaml
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient
from starlette.types import ASGIApp, Receive, Scope, Send

from mechinterp_assets.app.code_location import code_location
from mechinterp_assets.app.dagster_app import dagster_app
from mechinterp_assets.app.dashboard_app import dashboard_app
from mechinterp_assets.app.failed_runs import failures
from mechinterp_assets.app.materialize import prepare_instance_folder
from mechinterp_assets.app.mistakes import Mistake, told
from mechinterp_assets.app.ports import HOST
from mechinterp_assets.app.request_check import HostNameError, RequestCheck, allowed_hosts
from mechinterp_assets.app.tied_process import tied_process
from mechinterp_assets.dashboards.studies_page import Failure
from mechinterp_assets.storage.files import try_locked
from mechinterp_assets.storage.home import HOME_VARIABLE, dagster_folder, home
from mechinterp_assets.storage.lake import Lake, LakeError

LOCK_NAME = "ui.lock"
_CLOSE_SECONDS = 5


def serve(webserver: Socket, dashboards: Socket) -> None:
    """Serve Dagster and the dashboards on these sockets until SIGINT, SIGTERM or SIGHUP.

    Raises:
        Mistake: another `mechinterp ui` serves this home; MECHINTERP_ALLOWED_HOSTS is wrong; or a
            process ended that the others need. Nothing is left running.
    """
    with told(HostNameError):
        hosts = allowed_hosts()
    with _only_server(), ExitStack() as stack:
        prepare_instance_folder()
        with told(LakeError):
            pages = dashboard_app(dagster_port=_port(webserver), failures=_failures)
        apps: dict[int, ASGIApp] = {_port(dashboards): pages}
        server = uvicorn.Server(
            uvicorn.Config(
                RequestCheck(_by_port(apps), hosts),
                lifespan="off",
                log_level="warning",
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )
        _stop_at_signals(server)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mechinterp-ui-")))
        workspace, code_socket = folder / "workspace.yaml", folder / "code"
        code_server = _code_server(workspace, code_socket)
        print(f"Starting on {home()}", flush=True)
        ended: list[str] = []

        def start(name: str, module: str, arguments: list[str]) -> None:
            child = stack.enter_context(tied_process(module, arguments))
            threading.Thread(target=_watch, args=(name, child, server, ended), daemon=True).start()

        start("code server", "dagster", code_server)
        _wait_until_it_answers(code_socket, server)
        if not server.should_exit:
            start("daemon", "dagster._daemon", ["run", "--workspace", str(workspace)])
            apps[_port(webserver)] = stack.enter_context(dagster_app(workspace, pages))
            print(f"Dagster    http://{HOST}:{_port(webserver)}")
            print(f"Dashboards http://{HOST}:{_port(dashboards)}", flush=True)
            server.run(sockets=[webserver, dashboards])
        if ended:
            raise Mistake(f"{ended[0]}; stopped the others", exit_code=1)


def _failures(lake: Lake) -> list[Failure]:
    """Looked up when the first page is asked for, as Dagster's instance is then."""
    with dg.DagsterInstance.get() as instance:
        return failures(instance, lake)


@contextmanager
def _only_server() -> Iterator[None]:
    """Two daemons on one instance would launch the same runs, each against the other."""
    with try_locked(dagster_folder() / LOCK_NAME) as free:
        if not free:
            raise Mistake(
                f"another `mechinterp ui` serves {home()}; stop it, or name another folder in"
                f" {HOME_VARIABLE}",
                exit_code=1,
            )
        yield


def _port(listener: Socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def _by_port(apps: Mapping[int, ASGIApp]) -> ASGIApp:
    """The application of the port that a request came in by."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[scope["server"][1]](scope, receive, send)

    return answer


def _code_server(workspace: Path, socket: Path) -> list[str]:
    """Arguments of `dagster` for a code server; `workspace` is written to name it to the others.

    Its socket must lie in a private folder: whoever can write to it can run code.
    """
    location = code_location()
    module, name = location.loadable_target_origin.module_name, location.location_name
    assert module is not None, "workspace.yaml names a module"
    server = {"socket": str(socket), "host": "localhost", "location_name": name}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return [
        *("code-server", "start", "--socket", str(socket), "--log-level", "warning"),
        *("--module-name", module, "--location-name", name, "--inject-env-vars-from-instance"),
    ]


def _wait_until_it_answers(socket: Path, server: uvicorn.Server) -> None:
    """Wait for the code server, or until there is a reason to stop."""
    client = DagsterGrpcClient(socket=str(socket))
    while not server.should_exit:
        try:
            client.ping("")
        except DagsterUserCodeUnreachableError:
            time.sleep(0.1)
        else:
            return


def _watch(
    name: str, child: subprocess.Popen[bytes], server: uvicorn.Server, ended: list[str]
) -> None:
    """When a child ends, stop serving and say which it was and how."""
    code = child.wait()
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    ended.append(f"the {name} ended with {how}")
    server.should_exit = True


def _stop_at_signals(server: uvicorn.Server) -> None:
    """For signals that come before uvicorn's own handlers, and for those that it raises again."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, stop)
