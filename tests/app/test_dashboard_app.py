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
from urllib.parse import quote

import polars as pl
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from mechinterp_assets.app.dashboard_app import dashboard_app
from mechinterp_assets.app.ports import HOST
from mechinterp_assets.dashboards.live.experiment_pages import LiveExperimentPages
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.asgi import ask


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


def fetch(url: str, **headers: str) -> tuple[int, Message, bytes]:
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
    status, headers, body = fetch(served.url("organism.L00"))
    assert (status, body) == (200, b"first")
    known = headers["ETag"]
    assert fetch(served.url("organism.L00"), if_none_match=f'"other", {known}')[::2] == (304, b"")
    publish("second")
    status, headers, body = fetch(served.url("organism.L00"), if_none_match=known)
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
    status, headers, body = fetch(url)
    assert (status, body) == (200, b"<p>organism 1</p>")
    assert fetch(url, if_none_match=headers["ETag"])[::2] == (304, b"")
    assert made == ["organism"]
    write()
    assert fetch(url, if_none_match=headers["ETag"])[::2] == (200, b"<p>organism 2</p>")


@pytest.mark.parametrize("page", ["explore/", "glossary/"])
def test_a_browser_gets_a_page_without_data_once(served: DashboardsResource, page: str) -> None:
    status, headers, _ = fetch(f"{served.base_url}/{page}")
    assert status == 200
    again = fetch(f"{served.base_url}/{page}index.html", if_none_match=headers["ETag"])
    assert again[::2] == (304, b"")


def test_long_pages_travel_packed(served: DashboardsResource) -> None:
    text = "attention " * 1000
    with served.publish("organism.L00") as folder:
        (folder / "index.html").write_text(text)
        (folder / "page.css").write_text(text)
    for page in ("index.html", "page.css"):
        _, headers, body = fetch(served.url("organism.L00", page), accept_encoding="gzip")
        assert headers["Content-Encoding"] == "gzip"
        assert headers["ETag"]
        assert gzip.decompress(body).decode() == text
        assert len(body) < 200
        assert fetch(served.url("organism.L00", page))[2].decode() == text


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    """The application over one published folder and a lake without data."""
    home = tmp_path_factory.mktemp("home")
    (home / "secret.html").write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINTERP_HOME", str(home))
        made = dashboard_app()
    folder = home / "dashboards" / "organism.L00"
    (folder / "features").mkdir(parents=True)
    (folder / "index.html").write_text("index")
    (folder / "features" / "7.html").write_text("seven")
    return made


HUGE = "9" * 20
ENDLESS = "9" * 5000
# Addresses of nothing: numbers that no column holds, names that no folder has, ways out.
NOWHERE = (
    f"/organism.L{HUGE}/",
    f"/organism.L{ENDLESS}/index.html",
    "/organism.L-1/",
    "/organism.L%D9%A3/",
    f"/organism.L00/features/{HUGE}.html",
    f"/organism.L00/features/{ENDLESS}.html",
    "/organism.L00/features/-1.html",
    "/organism.L00/features/%D9%A7.html",
    "/organism.L00/features/%00.html",
    f"/organism.L00/trees/{HUGE}.html",
    f"/organism.heads/L{HUGE}H0.html",
    f"/organism.heads/L0H{ENDLESS}.html",
    "/nobody.L00/",
    "/nobody.heads/",
    "/nobody.experiments/",
    "/nobody.heads/L0H0.html",
    "/%00",
    "/organism%00.L00/",
    "/organism.L00%00/index.html",
    "/%ff%fe.L00/",
    "/%ed%a0%80/",
    "/../secret.html",
    "/..%2fsecret.html",
    "/%2e%2e/secret.html",
    "/organism.L00/..%2f..%2fsecret.html",
    "/organism.L00/features/..%2f..%2f..%2fsecret.html",
    "/..%5csecret.html",
    "//etc/passwd",
    f"/{'a' * 300}/",
    f"/{'a' * 300}.heads/",
    f"/{'a' * 300}/features/1.html",
    f"/{'a' * 20_000}",
    "/a" * 3000,
)


@pytest.mark.parametrize("path", NOWHERE, ids=[path[:40] for path in NOWHERE])
def test_what_is_nowhere_is_answered_with_a_page(application: Starlette, path: str) -> None:
    for method in ("GET", "HEAD"):
        for headers in ({}, {"if-none-match": "*"}, {"range": "bytes=0-1"}):
            answer = ask(application, path, method, headers)
            assert answer.status == 404
            assert answer.headers["content-type"].startswith("text/html")
    assert '<a href="/">All studies</a>' in ask(application, path).text


def test_a_page_that_fails_is_answered_with_what_to_do(
    served: DashboardsResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise TypeError("an older form")

    monkeypatch.setattr("mechinterp_assets.app.dashboard_app.glossary_page", fail)
    status, _, body = fetch(f"{served.base_url}/glossary/")
    assert status == 500
    assert b"This page could not be made" in body


PIECES = st.sampled_from(
    (
        *("organism", ".L00", ".L", ".heads", ".experiments", "/", "features", "trees"),
        *("index.html", "L0H0.html", "7.html", "..", ".", "%00", "%2f", "%", "-1", "\u0663", HUGE),
    )
)


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join), st.booleans())
def test_no_path_is_an_error_or_leads_out(application: Starlette, path: str, raw: bool) -> None:
    answer = ask(application, "/" + (path.replace("?", "") if raw else quote(path)))
    assert answer.status in (200, 304, 307, 404)
    assert b"secret" not in answer.body


def test_reading_is_all_that_is_answered(application: Starlette) -> None:
    for path in ("/", "/organism.L00/", "/organism.L00/features/7.html", "/nobody/x.html"):
        for method in ("POST", "PUT", "DELETE"):
            assert ask(application, path, method).status == 405


def test_head_and_conditional_requests_say_the_same_as_get(application: Starlette) -> None:
    for path in ("/organism.L00/", "/organism.L00/features/7.html", "/organism.L00/features/7"):
        get, head = ask(application, path), ask(application, path, "HEAD")
        assert head.status == get.status
        names = {"content-type", "content-length", "etag", "cache-control"}
        for name in names & {*get.headers}:
            assert head.headers[name] == get.headers[name]
    tag = ask(application, "/organism.L00/features/7.html").headers["etag"]
    known = {"if-none-match": tag}
    for method in ("GET", "HEAD"):
        answer = ask(application, "/organism.L00/features/7.html", method, known)
        assert (answer.status, answer.body) == (304, b"")
