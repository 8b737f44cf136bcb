"""The dashboards are served over http on the loopback address alone."""

import gzip
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import polars as pl
import pytest
import uvicorn

from mechinterp_assets.app.ports import HOST
from mechinterp_assets.app.serve import dashboard_app
from mechinterp_assets.dashboards.live.experiment_pages import LiveExperimentPages
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance


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


def ask(url: str, **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body; `if_none_match` becomes If-None-Match."""
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_browser_gets_a_published_page_once(served: DashboardsResource) -> None:
    def publish(text: str) -> None:
        with served.publish("organism.L00") as folder:
            (folder / "index.html").write_text(text)

    publish("first")
    status, headers, body = ask(served.url("organism.L00"))
    assert (status, body) == (200, b"first")
    known = headers["ETag"]
    assert ask(served.url("organism.L00"), if_none_match=f'"other", {known}')[::2] == (304, b"")
    publish("second")
    status, headers, body = ask(served.url("organism.L00"), if_none_match=known)
    assert (status, body) == (200, b"second")
    assert headers["ETag"] != known


def test_a_browser_gets_a_page_on_request_once_until_the_lake_changes(
    served: DashboardsResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def page(self: LiveExperimentPages, study: str) -> str:
        made.append(study)
        return f"<p>{study} {len(made)}</p>"

    def write() -> None:
        schema = polars_schema(table_spec("corpus_documents"))
        row = {name: 0 if kind.is_numeric() else "" for name, kind in schema.items()}
        rows = pl.DataFrame([row], schema=schema)
        Lake(tmp_path / "lake").write("corpus_documents", "a", rows, Provenance("a", "run", "0"))

    monkeypatch.setattr(LiveExperimentPages, "page", page)
    write()
    url = f"{served.base_url}/organism.experiments/"
    status, headers, body = ask(url)
    assert (status, body) == (200, b"<p>organism 1</p>")
    assert ask(url, if_none_match=headers["ETag"])[::2] == (304, b"")
    assert made == ["organism"]
    write()
    assert ask(url, if_none_match=headers["ETag"])[::2] == (200, b"<p>organism 2</p>")


def test_long_pages_travel_packed(served: DashboardsResource) -> None:
    text = "attention " * 1000
    with served.publish("organism.L00") as folder:
        (folder / "index.html").write_text(text)
        (folder / "page.css").write_text(text)
    for page in ("index.html", "page.css"):
        _, headers, body = ask(served.url("organism.L00", page), accept_encoding="gzip")
        assert headers["Content-Encoding"] == "gzip"
        assert headers["ETag"]
        assert gzip.decompress(body).decode() == text
        assert len(body) < 200
        assert ask(served.url("organism.L00", page))[2].decode() == text
