"""Questions over HTTP: what is refused before it is looked at, progress, cancelling, failures."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from mechinterp_assets.app import explorer_app
from mechinterp_assets.app.explorer_app import MAX_BODY, questions_route
from mechinterp_assets.app.request_check import RequestCheck
from mechinterp_assets.dashboards.live.explorer import Asked, LiveExplorer, RefusedError
from mechinterp_assets.dashboards.live.explorer_questions import (
    MAX_CHARACTERS,
    Question,
    QuestionError,
    Studies,
    read_question,
)
from tests.served_app import served_app


class Invented(LiveExplorer):
    """Does what the name of the study says; remembers what was begun and what was cancelled."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled = threading.Event()
        self.go_on = threading.Event()

    def answer(self, question: Question, waiting: Asked) -> dict[str, Any]:
        name = "" if isinstance(question, Studies) else question.study
        self.begun.append(name)
        if name == "refused":
            raise RefusedError("no such thing; ask for another")
        if name == "broken":
            raise RuntimeError("a mistake")
        if name == "nan":
            return {"value": float("nan")}
        if name == "waits":
            self.go_on.wait(20)
        if name == "endless":
            try:
                for number in range(2000):
                    waiting.step("working", number, 2000)
                    time.sleep(0.01)
            finally:
                self.cancelled.set()
        waiting.step("first", 1, 2)
        waiting.step("second", 2, 2)
        return {"name": name}


@pytest.fixture
def explorer() -> Invented:
    return Invented()


@pytest.fixture
def address(explorer: Invented) -> Iterator[str]:
    app = Starlette(routes=[questions_route(explorer)])
    with served_app(RequestCheck(app)) as url:
        yield url.removeprefix("http://")
        explorer.go_on.set()


def send(
    address: str, body: bytes, method: str = "POST", **headers: str
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, "/explore/api", body, {"content-type": "application/json", **named})
    return connection.getresponse()


def opened(study: str) -> bytes:
    return json.dumps({"ask": "open", "study": study}).encode()


def lines(response: http.client.HTTPResponse) -> list[dict[str, Any]]:
    assert response.status == 200
    return [json.loads(line) for line in response.read().splitlines()]


def test_progress_comes_before_the_answer(address: str) -> None:
    response = send(address, opened("good"))
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert lines(response) == [
        {"progress": "first", "done": 1, "of": 2},
        {"progress": "second", "done": 2, "of": 2},
        {"answer": {"name": "good"}},
    ]


def test_what_has_no_answer_says_why(address: str) -> None:
    assert lines(send(address, opened("refused"))) == [
        {"refused": "no such thing; ask for another"}
    ]
    for name in ("broken", "nan"):  # a mistake in the program is no answer either
        (line,) = lines(send(address, opened(name)))
        assert line["refused"].startswith("the program failed: ")
    assert lines(send(address, opened("good")))[-1] == {"answer": {"name": "good"}}


def test_questions_are_refused_before_work(address: str, explorer: Invented) -> None:
    long = json.dumps({"ask": "prompt", "study": "s", "text": "x" * (MAX_CHARACTERS + 1)})
    for status, body, headers, what in (
        (415, opened("s"), {"content_type": "text/plain"}, "application/json"),
        (413, b"[" + b" " * MAX_BODY + b"]", {}, f"at most {MAX_BODY} bytes"),
        (400, b"", {}, "question"),
        (400, b"{", {}, "question"),
        (400, b'{"ask": "open"}', {}, "study: Field required"),
        (400, b'{"ask": "open", "study": 3}', {}, "study: "),
        (400, b'{"ask": "open", "study": "s", "more": 1}', {}, "more: "),
        (
            400,
            b'{"ask": "heads", "study": "s", "text": "t", "layer": "0", "position": 0}',
            {},
            "layer",
        ),
        (
            400,
            b'{"ask": "heads", "study": "s", "text": "t", "layer": -1, "position": 0}',
            {},
            "layer",
        ),
        (400, b'{"ask": "prompt", "study": "s", "text": ""}', {}, "text: "),
        (400, long.encode(), {}, "text: "),
    ):
        response = send(address, body, **headers)
        assert response.status == status, body[:80]
        assert what in json.loads(response.read())["refused"]
    for status, method, headers in (
        (405, "GET", {}),
        (403, "POST", {"host": "evil.example"}),
        (403, "POST", {"origin": "https://evil.example"}),
        (403, "POST", {"sec_fetch_site": "cross-site"}),
    ):
        assert send(address, opened("s"), method, **headers).status == status
    assert explorer.begun == []


def test_work_ends_when_the_browser_goes_away(address: str, explorer: Invented) -> None:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST", "/explore/api", opened("endless"), {"content-type": "application/json"}
    )
    response = connection.getresponse()
    assert json.loads(response.readline()) == {"progress": "working", "done": 0, "of": 2000}
    response.close()
    connection.close()
    assert explorer.cancelled.wait(10)
    assert lines(send(address, opened("good")))[-1] == {"answer": {"name": "good"}}


def test_a_question_that_nobody_waits_for_is_not_begun(address: str, explorer: Invented) -> None:
    first = threading.Thread(target=lambda: send(address, opened("waits")).read())
    first.start()
    while not explorer.begun:
        time.sleep(0.01)
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST", "/explore/api", opened("abandoned"), {"content-type": "application/json"}
    )
    connection.getresponse().close()
    connection.close()
    time.sleep(0.2)
    explorer.go_on.set()
    first.join()
    assert lines(send(address, opened("good")))[-1] == {"answer": {"name": "good"}}
    assert explorer.begun == ["waits", "good"]


def test_no_more_questions_wait_than_there_are_places(
    address: str, explorer: Invented, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [
        threading.Thread(target=lambda: send(address, opened("waits")).read())
        for _ in range(explorer_app.MAX_WAITING)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    status = 0
    while status != 503 and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request(
            "POST", "/explore/api", opened("waits"), {"content-type": "application/json"}
        )
        status = connection.getresponse().status
        connection.close()
    assert status == 503
    explorer.go_on.set()
    for thread in threads:
        thread.join()
    assert lines(send(address, opened("good")))[-1] == {"answer": {"name": "good"}}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = (
    VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=8), VALUES, max_size=3)
)
KEYS = ("study", "text", "layer", "root", "paths", "edits", "position")


@settings(deadline=None)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, ANY)),
    st.sampled_from(["open", "prompt", "dfa", "parts", "what_if", "keep", "", 3, None]),
)
def test_any_json_is_a_question_or_an_error(fields: dict[str, Any], ask: object) -> None:
    content = json.dumps({"ask": ask, **fields}).encode()
    refused = ""
    try:
        assert read_question(content).ask == ask
    except QuestionError as error:  # as right as an answer
        refused = str(error)
    assert refused.isprintable()
