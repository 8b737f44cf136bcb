"""Pages of other sites cannot use the servers; those that they serve and programs can."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from mechinterp_assets.app.request_check import (
    HOSTS_VARIABLE,
    HostNameError,
    RequestCheck,
    allowed_hosts,
)
from tests.asgi import Answer, ask, connect

HERE = "http://127.0.0.1:3000"
JSON = {"content-type": "application/json"}
FOREIGN = (
    "http://evil.example",
    "null",
    "http://127.0.0.1:3001",
    "http://127.0.0.1",
    "http://localhost:3000",
    "http://127.0.0.1:3000.evil.example",
    "http://127.0.0.1:3000@evil.example",
    "http://evil.example#127.0.0.1:3000",
    "http://[::1",
    "file://127.0.0.1:3000",
    "127.0.0.1:3000",
    "",
)


def app(*hosts: str) -> RequestCheck:
    """An application that does whatever it is asked for, behind the check."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse("done", headers={"Content-Security-Policy": "base-uri 'none'"})

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()

    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    routes = [WebSocketRoute("/graphql", talk), Route("/{path:path}", answer, methods=methods)]
    return RequestCheck(Starlette(routes=routes), hosts)


def refused(answer: Answer) -> bool:
    """Whether a request was refused, in one line of text that says why."""
    if answer.status == 200:
        return False
    assert answer.status in (403, 405, 415)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.count("\n") == 1
    return True


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_changes_nothing(origin: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/graphql", "/report_asset_materialization/head_scores", "/%67raphql"):
            assert refused(ask(app(), path, method, {"origin": origin, **JSON}))
    assert ask(app(), "/graphql", "POST", {"origin": origin, **JSON}).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_browsers_say_of_the_site_counts_without_an_origin(site: str) -> None:
    assert refused(ask(app(), "/graphql", "POST", {"sec-fetch-site": site, **JSON}))


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_opens_no_websocket(origin: str) -> None:
    opened = connect(app(), "/graphql", {"host": "127.0.0.1:3000", "origin": origin})
    assert opened == "websocket.close"


def test_websockets_of_own_pages_and_of_programs_open() -> None:
    for headers in ({"origin": HERE}, {"origin": HERE, "sec-fetch-site": "same-origin"}, {}):
        opened = connect(app(), "/graphql", {"host": "127.0.0.1:3000", **headers})
        assert opened == "websocket.accept"
    assert connect(app(), "/graphql", {"host": "evil.example"}) == "websocket.close"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "",
    ],
)
def test_graphql_in_a_form_that_needs_no_permission_is_refused(kind: str) -> None:
    answer = ask(app(), "/graphql?query=mutation{a}", "POST", {"content-type": kind})
    assert (answer.status, refused(answer)) == (415, True)


def test_graphql_in_an_address_is_refused() -> None:
    for accept in ("image/*", "*/*", ""):
        answer = ask(app(), "/graphql?query=mutation{a}", headers={"accept": accept})
        assert (answer.status, refused(answer)) == (405, True)
    # The page with an editor, which Dagster gives for any such request.
    assert not refused(ask(app(), "/graphql", headers={"accept": "text/html"}))


def test_own_pages_and_programs_are_answered() -> None:
    for headers in (
        {},
        {"content-type": "application/json; charset=utf-8"},
        {"origin": HERE},
        {"origin": HERE, "sec-fetch-site": "same-origin"},
        {"host": "localhost:3000", "origin": "http://localhost:3000"},
        {"host": "LocalHost:9000", "origin": "http://localhost:9000"},  # a forwarded port
        {"host": "[::1]:3000", "origin": "http://[::1]:3000"},
        {"host": "127.0.0.1"},
    ):
        assert not refused(ask(app(), "/graphql", "POST", {**JSON, **headers})), headers


def test_links_from_other_sites_lead_to_pages() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert not refused(ask(app(), "/runs", headers=headers))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:3000", "127.0.0.1.evil.example", "evil@127.0.0.1", ""),
        *("localhost.", "127.0.0.1:x", "127.0.0.1,evil.example", "2130706433", "0.0.0.0:3000"),
        "a" * 5000,
    ],
)
def test_a_name_that_nobody_allowed_is_refused_with_the_remedy(host: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        answer = ask(app(), "/", method, {"host": host, "origin": f"http://{host}", **JSON})
        assert answer.status == 403
        assert HOSTS_VARIABLE in answer.text
        assert len(answer.text) < 400


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_no_header_breaks_the_check(host: str, origin: str) -> None:
    answer = ask(app(), "/graphql", "POST", {"host": host, "origin": origin, **JSON})
    assert answer.status == 403
    assert ask(app(), "/graphql", "POST", {"origin": origin, **JSON}).status == 403


def test_a_second_host_header_is_refused() -> None:
    twice = Starlette()

    async def both(scope, receive, send) -> None:
        headers = [*scope["headers"], (b"host", b"evil.example")]
        await RequestCheck(twice)({**scope, "headers": headers}, receive, send)

    assert ask(both, "/").status == 403


def test_hosts_that_are_named_are_answered() -> None:
    proxied = app("lab.example", "10.0.0.7")
    for headers in (
        {"host": "lab.example", "origin": "https://lab.example"},
        {"host": "10.0.0.7:8080", "origin": "http://10.0.0.7:8080"},
        {"origin": "https://lab.example"},  # a proxy that puts its own Host
    ):
        assert not refused(ask(proxied, "/graphql", "POST", {**JSON, **headers}))
    other = {"host": "lab.example", "origin": "https://other.example", **JSON}
    assert refused(ask(proxied, "/graphql", "POST", other))


def test_named_hosts_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOSTS_VARIABLE, raising=False)
    assert allowed_hosts() == frozenset()
    monkeypatch.setenv(HOSTS_VARIABLE, " Lab.Example.org, 10.0.0.7 ,,[fe80::1]")
    assert allowed_hosts() == {"lab.example.org", "10.0.0.7", "[fe80::1]"}
    for wrong in ("http://lab.example", "lab.example:80", "*", "a b"):
        monkeypatch.setenv(HOSTS_VARIABLE, wrong)
        with pytest.raises(HostNameError, match="write host names without scheme and port"):
            allowed_hosts()


def test_no_other_site_shows_a_page_in_a_frame_or_reads_it() -> None:
    for answer in (ask(app(), "/"), ask(app(), "/", headers={"host": "evil.example"})):
        assert "frame-ancestors 'self'" in answer.headers.getlist("content-security-policy")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    kept = ask(app(), "/").headers.getlist("content-security-policy")
    assert kept == ["base-uri 'none'", "frame-ancestors 'self'"]
