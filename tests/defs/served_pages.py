"""Pages of the dashboards' application, asked for without a server."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.routing import Match

from mechinterp_assets.app.dashboard_app import dashboard_app


def served_pages() -> Callable[[str], tuple[int, str]]:
    """A function from a path to the status and text that the application's route answers with."""
    app = dashboard_app()

    def get(path: str) -> tuple[int, str]:
        scope = {"type": "http", "path": path, "method": "GET", "headers": [], "root_path": ""}
        for route in app.routes:
            match, found = route.matches(scope)
            if match is Match.FULL and "endpoint" in found:
                answer = found["endpoint"](Request({**scope, **found}))
                return answer.status_code, bytes(answer.body).decode()
        raise AssertionError(path)

    return get
