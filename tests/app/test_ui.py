"""`mechinterp ui` as a process: who it answers, and that nothing of it is left, however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from mechinterp_assets.app.code_location import WORKSPACE
from mechinterp_assets.app.ports import HOST
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.home import HOME_VARIABLE

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes by /proc"
)


@dataclass(frozen=True)
class Served:
    """A running `mechinterp ui`, its home and its two addresses."""

    process: subprocess.Popen[str]
    home: Path
    dagster: str
    dashboards: str


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def start(home: Path, dagster: int, dashboards: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *("env", "--default-signal=INT,TERM,HUP", sys.executable, "-m", "mechinterp_assets"),
            *("ui", "--port", str(dagster), "--dashboards-port", str(dashboards)),
        ],
        env={**os.environ, HOME_VARIABLE: str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """`mechinterp ui` once it has said its addresses."""
    dagster, dashboards = free_port(), free_port()
    with start(home, dagster, dashboards) as ui:
        try:
            assert ui.stdout is not None
            said = iter(ui.stdout.readline, "")
            assert any(line.startswith("Dashboards ") for line in said), "mechinterp ui ended"
            yield Served(ui, home, f"http://{HOST}:{dagster}", f"http://{HOST}:{dashboards}")
        finally:
            ui.kill()


def processes_of(home: Path) -> dict[int, str]:
    """Command lines of the living processes that were started with this home, by id."""
    wanted = f"{HOME_VARIABLE}={home}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = line
            except OSError:  # it ended meanwhile
                continue
    return found


def wait_until_all_ended(home: Path) -> None:
    deadline = time.monotonic() + 120
    while left := processes_of(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def fetch(url: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def open_websocket(url: str, origin: str) -> str:
    """First line of the answer to opening Dagster's subscriptions from a page of `origin`."""
    address = url.removeprefix("http://")
    lines = [
        "GET /graphql HTTP/1.1",
        f"Host: {address}",
        f"Origin: {origin}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: graphql-ws",
    ]
    with socket.create_connection((HOST, int(address.partition(":")[2])), timeout=60) as client:
        client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return client.makefile().readline().strip()


WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["x"]}}]) { __typename } }'
LOCATIONS = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
)


@LINUX
def test_it_answers_its_own_pages_alone_and_one_interrupt_ends_all(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as ui:
        graphql = f"{ui.dagster}/graphql"
        json_type = {"content_type": "application/json"}
        # Its own pages and programs.
        status, text = fetch(graphql, {"query": LOCATIONS}, origin=ui.dagster, **json_type)
        assert (status, '"name":"mechinterp"' in text) == (200, True)
        assert fetch(graphql, {"query": WIPE}, **json_type)[0] == 200
        assert "101" in open_websocket(ui.dagster, ui.dagster)
        assert "Studies" in fetch(f"{ui.dashboards}/")[1]
        # Pages of other sites: in a form, as text, as a picture, by a name for this address.
        evil = "http://evil.example"
        foreign = (
            fetch(graphql, {"query": WIPE}, origin=evil, content_type="text/plain"),
            fetch(
                graphql, {"query": WIPE}, origin=evil, content_type="text/plain;application/json"
            ),
            fetch(graphql, {"query": WIPE}, origin=evil, **json_type),
            fetch(graphql, {"query": WIPE}, origin=ui.dashboards, **json_type),
            fetch(graphql, {"query": WIPE}, host="evil.example", origin=evil, **json_type),
            fetch(f"{ui.dagster}/report_asset_materialization/x", {}, origin=evil, **json_type),
            fetch(f"{ui.dagster}/", host="evil.example:3000"),
            fetch(f"{ui.dashboards}/", host="evil.example"),
        )
        assert [status for status, _ in foreign] == [403] * len(foreign)
        assert fetch(f"{graphql}?query={quote(WIPE)}", accept="image/*")[0] == 405
        assert "403" in open_websocket(ui.dagster, evil)
        # Links in metadata.
        published = DashboardsResource(root=str(home / "dashboards"))
        with published.publish("organism.L00") as folder:
            (folder / "index.html").write_text("pages of a layer")
        link = published.url("organism.L00")
        assert fetch(f"{ui.dagster}{link}") == (200, "pages of a layer")
        with urllib.request.urlopen(f"{ui.dagster}{link}") as page:
            policies = page.headers.get_all("Content-Security-Policy")
        # No scripts of a page reach GraphQL, which has the same address.
        assert any(
            policy.startswith("sandbox ") and "allow-same-origin" not in policy
            for policy in policies
        )
        assert fetch(f"{ui.dagster}/dashboards/nowhere/")[0] == 404
        assert fetch(f"{ui.dagster}/dashboards")[0] == 200
        # One daemon for a home.
        second = start(home, free_port(), free_port())
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 1
        assert f"another `mechinterp ui` serves {home}; stop it" in said
        assert sum("dagster._daemon" in line for line in processes_of(home).values()) == 1

        ui.process.send_signal(signal.SIGINT)
        assert ui.process.wait(120) == 0
        assert processes_of(home) == {}


@LINUX
def test_a_signal_while_it_starts_ends_all(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with start(home, free_port(), free_port()) as ui:
        assert ui.stdout is not None
        assert ui.stdout.readline().startswith("Starting on ")
        ui.send_signal(signal.SIGHUP)
        assert ui.wait(120) == 0
        assert processes_of(home) == {}


def child(home: Path, module: str) -> int:
    (found,) = [
        pid for pid, line in processes_of(home).items() if "tied_process" in line and module in line
    ]
    return found


@LINUX
@pytest.mark.parametrize(
    ("killed", "said"),
    [
        ("dagster._daemon", "the daemon ended with SIGKILL"),
        ("code-server", "the code server ended with SIGKILL"),
        ("", ""),
    ],
)
def test_the_death_of_one_ends_all(tmp_path: Path, killed: str, said: str) -> None:
    home = tmp_path / "home"
    with served(home) as ui:
        os.kill(child(home, killed) if killed else ui.process.pid, signal.SIGKILL)
        output, _ = ui.process.communicate(timeout=120)
        if killed:
            assert ui.process.returncode == 1
            assert output.splitlines()[-1] == f"mechinterp: {said}; stopped the others"
        wait_until_all_ended(home)


def test_the_workspace_is_the_one_of_the_repository() -> None:
    """`dagster dev` in the repository's folder finds what `mechinterp ui` serves."""
    assert WORKSPACE.resolve() == ROOT / "workspace.yaml"
