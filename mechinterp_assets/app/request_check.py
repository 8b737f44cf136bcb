"""Who may ask the servers: pages that they serve themselves, and programs of this machine.

Belongs here: the check of Host and Origin in front of every request, and headers that keep other
sites out. Does not belong here: what is served.

The servers listen on the loopback address and ask for no password. What else reaches them is the
browser of whoever uses them, with a page of any site in it:

- Such a page can send requests, although it cannot read the answers. Browsers name the page's site
  in Origin; what could change something is refused when that is not the server's own.
- A site can give its own name the address 127.0.0.1 ("DNS rebinding") and then passes for the
  server's own. Browsers send that name in Host; names that nobody allowed are refused.
- A page can show the servers in a frame and lead clicks into it; frames are forbidden.

Requests of programs have no Origin and are answered.
"""

import os
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS_VARIABLE = "MECHINTERP_ALLOWED_HOSTS"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_READING = {"GET", "HEAD", "OPTIONS"}
_GRAPHQL = "/graphql"
# Pages of other sites can send the other types without asking first.
_GRAPHQL_TYPES = {"application/json", "application/graphql"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_FRAMES = "frame-ancestors 'self'"


class HostNameError(ValueError):
    """What HOSTS_VARIABLE names is no host; the message says what."""


def allowed_hosts() -> frozenset[str]:
    """Names in HOSTS_VARIABLE, which proxies and forwarded ports go by.

    Raises:
        HostNameError: something that is not a name or an address without a port.
    """
    named = os.environ.get(HOSTS_VARIABLE, "").lower().split(",")
    hosts = frozenset(name for part in named if (name := part.strip()))
    for name in hosts:
        found = _HOST.fullmatch(name)
        if found is None or found[2]:
            raise HostNameError(
                f"{HOSTS_VARIABLE} names {name!r}; write host names without scheme and port, such"
                " as lab.example.org,10.0.0.7"
            )
    return hosts


class RequestCheck:
    """ASGI middleware that answers only requests to `hosts` and the loopback names.

    Args:
        app: what is served.
        hosts: further names that Host may have and pages may come from.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, _with_headers(send))
            return
        if scope["type"] == "websocket":  # closed before it is accepted, which gives a 403
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        status, why = refused
        await PlainTextResponse(f"{why}\n", status)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request is refused."""
        headers = Headers(scope=scope)
        host = _host(",".join(headers.getlist("host")))
        if host is None or host[0] not in self._hosts | LOOPBACK_NAMES:
            return 403, (
                f"Host {_shown(headers.get('host', ''))} is not served here: open 127.0.0.1 or"
                f" localhost, or start the servers with this name in {HOSTS_VARIABLE}"
            )
        # A connection in which both sides then talk is as good as a request that changes things.
        changes = scope["type"] == "websocket" or scope["method"] not in _READING
        if changes and not self._is_own_page(headers, host):
            origin = headers.get("origin", headers.get("sec-fetch-site", ""))
            return 403, (
                f"a page of another site ({_shown(origin)}) may not send this; where a proxy stands"
                f" in front, start the servers with its name in {HOSTS_VARIABLE}"
            )
        if scope["type"] == "http" and scope["path"] == _GRAPHQL:
            return _graphql_refusal(scope["method"], headers)
        return None

    def _is_own_page(self, headers: Headers, host: tuple[str, str]) -> bool:
        """Whether a request comes from a page of the host that it goes to, or from no page."""
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        for origin in headers.getlist("origin"):
            scheme, _, name = origin.partition("://")
            source = _host(name) if scheme in ("http", "https") else None
            if source is None or (source != host and source[0] not in self._hosts):
                return False
        return True


# ---- private -------------------------------------------------------------------------------------


def _host(text: str) -> tuple[str, str] | None:
    """Name and port of `name:port`."""
    found = _HOST.fullmatch(text.lower())
    return None if found is None else (found[1], found[2] or "")


def _graphql_refusal(method: str, headers: Headers) -> tuple[int, str] | None:
    """Status and reason for GraphQL that a page of another site could send unasked.

    Pictures and links are enough for GET, and it would run mutations too.
    """
    if method == "GET" and "text/html" not in headers.get("accept", ""):
        return 405, "GraphQL is asked for with POST"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method == "POST" and kind not in _GRAPHQL_TYPES:
        return 415, f"GraphQL is sent as application/json, not as {_shown(kind)}"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.append("Content-Security-Policy", _NO_FRAMES)  # beside one that is there
        await send(message)

    return sent
