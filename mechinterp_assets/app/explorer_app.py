"""Questions of the explorer over HTTP, which are answered as lines of JSON.

Belongs here: limits of what is read, one question after another on a thread of their own, progress
lines, cancelling when the browser goes away. Does not belong here: the page (dashboard_app.py),
answers (dashboards/live/), who may ask (request_check.py).

POST /explore/api with a question (explorer_questions.py) as application/json is answered with
application/x-ndjson: {"progress": what, "done": n, "of": n} while it is worked on, then one line
{"answer": ...} or {"refused": why}. What is refused before work starts has the status that fits.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import BoundedSemaphore, Event
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mechinterp_assets.dashboards.live.explorer import (
    Asked,
    CancelledError,
    LiveExplorer,
    RefusedError,
)
from mechinterp_assets.dashboards.live.explorer_questions import QuestionError, read_question
from mechinterp_assets.dashboards.places import EXPLORER

logger = logging.getLogger(__name__)

MAX_BODY = 256 * 2**10
MAX_WAITING = 16
_JSON = "application/json"
LINES = "application/x-ndjson"


def questions_route(explorer: LiveExplorer) -> Route:
    """Questions at /explore/api."""
    return Route(f"/{EXPLORER}/api", _Api(explorer).ask, methods=["POST"])


# ---- private -------------------------------------------------------------------------------------


class _Api:
    """Questions, answered in the order in which they come."""

    def __init__(self, explorer: LiveExplorer) -> None:
        self._explorer = explorer
        # One thread: a model, its hooks and the processor's cores are no use to two at once.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._places = BoundedSemaphore(MAX_WAITING)

    async def ask(self, request: Request) -> Response:
        """Answer one question."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON:
            return _refusal(415, f"questions are sent as {_JSON}")
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _refusal(413, f"a question has at most {MAX_BODY} bytes")
        try:
            question = read_question(body)
        except QuestionError as error:
            return _refusal(400, str(error))
        if not self._places.acquire(blocking=False):
            return _refusal(503, f"{MAX_WAITING} questions wait already; ask again later")
        loop, cancelled = asyncio.get_running_loop(), Event()
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()

        def put(line: dict[str, Any] | None) -> None:
            # Strict JSON: a page must not be shown NaN as if it were a number.
            content = None if line is None else _line(line)
            with suppress(RuntimeError):  # the server has stopped: nobody waits
                loop.call_soon_threadsafe(lines.put_nowait, content)

        def say(what: str, done: int, of: int) -> None:
            put({"progress": what, "done": done, "of": of})

        def work() -> None:
            waiting = Asked(say, cancelled)
            try:
                if not cancelled.is_set():
                    put({"answer": self._explorer.answer(question, waiting)})
            except RefusedError as error:
                put({"refused": str(error)})
            except CancelledError:
                pass

        def ended(future: "Future[None]") -> None:
            self._places.release()
            put(None)

        future: Future[None] = self._thread.submit(work)
        future.add_done_callback(ended)
        return StreamingResponse(_stream(future, lines, cancelled), media_type=LINES)


async def _body(request: Request) -> bytes | None:
    """The body, None where it is larger than MAX_BODY: no more of it is read."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


async def _stream(
    future: "Future[None]", lines: "asyncio.Queue[bytes | None]", cancelled: Event
) -> AsyncIterator[bytes]:
    """Lines until the work is done. Ends early where the browser goes away, and ends the work."""
    try:
        while (line := await lines.get()) is not None:
            yield line
        if (error := future.exception()) is not None:
            logger.error("a question of the explorer failed", exc_info=error)
            yield _line({"refused": f"the program failed: {error!r}"[:500]})
    finally:
        cancelled.set()


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _refusal(status: int, why: str) -> Response:
    return JSONResponse({"refused": why}, status_code=status)
