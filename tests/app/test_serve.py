"""The dashboards are served over http on the loopback address alone."""

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from mechinterp_assets.app.serve import HOST, dashboard_app
from mechinterp_assets.resources.dashboards import DashboardsResource


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DashboardsResource]:
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(dashboard_app(), host=HOST, port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield DashboardsResource(root=str(tmp_path / "dashboards"), base_url=f"http://{HOST}:{port}")
    server.should_exit = True
    thread.join()


def get(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        text: str = response.read().decode()
        return text


def test_a_published_folder_is_served_and_replaced_at_once(served: DashboardsResource) -> None:
    for text in ("first", "second"):
        with served.publish("organism.L00") as folder:
            (folder / "index.html").write_text(text)
        assert get(served.url("organism.L00")) == text


def test_a_failed_writer_leaves_the_old_pages(served: DashboardsResource) -> None:
    with served.publish("organism.L00") as folder:
        (folder / "index.html").write_text("whole")

    def fail_half_way() -> None:
        with served.publish("organism.L00") as folder:
            (folder / "index.html").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert get(served.url("organism.L00")) == "whole"


def test_the_first_page_follows_the_study_files(
    served: DashboardsResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    monkeypatch.setenv("MECHINTERP_STUDIES", str(studies))
    with served.publish("organism") as folder:
        (folder / "index.html").write_text("pages of the organism")
    first = get(f"{served.base_url}/")
    assert 'href="organism/index.html"' in first
    assert "Left out" not in first
    (studies / "bad.yaml").write_text("study: bad\nstudy: bad\n")
    second = get(f"{served.base_url}/")
    assert f"<dt>{studies / 'bad.yaml'}</dt>" in second
    assert "line 2: key study is there twice" in second
    assert 'href="organism/index.html"' in second


def test_nothing_outside_the_folder_is_served(served: DashboardsResource, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    for path in ("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt"):
        with pytest.raises(urllib.error.HTTPError):
            get(f"{served.base_url}/{path}")
