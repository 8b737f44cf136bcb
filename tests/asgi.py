"""Web applications asked without a server, with any bytes in the address."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True)
class Answer:
    """What an application answered."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def ask(
    app: ASGIApp,
    target: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    port: int = 3000,
) -> Answer:
    """Send one request; `target` is as on the wire, Host is right unless `headers` has another.

    What the application raises is raised here.
    """
    given = {"host": f"127.0.0.1:{port}", **(headers or {})}
    path, _, query = target.partition("?")
    scope = {
        **_scope(path, query, given, port),
        "type": "http",
        "method": method,
        "http_version": "1.1",
        "scheme": "http",
    }
    sent = _exchange(app, scope, {"type": "http.request", "body": body, "more_body": False})
    start = next(message for message in sent if message["type"] == "http.response.start")
    return Answer(
        start["status"],
        Headers(raw=list(start["headers"])),
        b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body"),
    )


def connect(app: ASGIApp, target: str, headers: Mapping[str, str], port: int = 3000) -> str:
    """Open a websocket; the type of the first message that the application sends."""
    scope = {**_scope(target, "", headers, port), "type": "websocket", "scheme": "ws"}
    return str(_exchange(app, scope, {"type": "websocket.connect"})[0]["type"])


# ---- private -------------------------------------------------------------------------------------


def _scope(path: str, query: str, headers: Mapping[str, str], port: int) -> dict[str, Any]:
    return {
        "asgi": {"version": "3.0"},
        "path": unquote(path),
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", port),
    }


def _exchange(app: ASGIApp, scope: Scope, first: Message) -> list[Message]:
    sent: list[Message] = []
    received = iter([first])

    async def receive() -> Message:
        disconnect = "http.disconnect" if scope["type"] == "http" else "websocket.disconnect"
        return next(received, {"type": disconnect, "code": 1000})

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    return sent
