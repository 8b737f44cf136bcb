"""`mechinterp ui` as a process: it serves, and one Ctrl-C ends all that it started."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mechinterp_assets.app.ports import HOST
from mechinterp_assets.app.serve import WORKSPACE

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str, ui: subprocess.Popen[str], seconds: float = 120) -> bytes:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert ui.poll() is None, "mechinterp ui ended"
            assert time.monotonic() < deadline, url
            time.sleep(0.2)


def processes_of(home: Path) -> list[str]:
    """Command lines of the living processes that were started with this home."""
    wanted = f"MECHINTERP_HOME={home}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it ended meanwhile
                continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")
def test_one_interrupt_ends_all_that_it_started(tmp_path: Path) -> None:
    home, dagster, dashboards = tmp_path / "home", free_port(), free_port()
    ui = subprocess.Popen(
        [
            *("env", "--default-signal=INT,TERM", sys.executable, "-m", "mechinterp_assets"),
            *("ui", "--port", str(dagster), "--dashboards-port", str(dashboards)),
        ],
        env={**os.environ, "MECHINTERP_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert b"Studies" in wait_for(f"http://{HOST}:{dashboards}/", ui)
        wait_for(f"http://{HOST}:{dagster}/server_info", ui)
        assert any("dagster._daemon" in line for line in processes_of(home))
        ui.send_signal(signal.SIGINT)
        shown, _ = ui.communicate(timeout=120)
    finally:
        ui.kill()
    assert "Dagster services shut down" in shown
    assert "Aborted" not in shown  # what a second signal does to `dagster dev`
    deadline = time.monotonic() + 30
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_of(home) == []


def test_the_workspace_is_the_one_of_the_repository() -> None:
    """`dagster dev` in the repository's folder finds what `mechinterp ui` serves."""
    assert WORKSPACE.resolve() == ROOT / "workspace.yaml"
