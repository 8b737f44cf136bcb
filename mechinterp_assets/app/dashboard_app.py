"""The dashboards as a web application: the published folder, and pages from the lake on request.

Belongs here: which address gives which page, and what browsers may keep. Does not belong here: what
pages show (dashboards/), the ports that they are served on (serve.py), who may ask
(request_check.py).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mechinterp_assets.app.explorer_app import LINES, questions_route
from mechinterp_assets.app.kept_prompts import keep_prompt, prompts_now
from mechinterp_assets.app.known_studies import model_of
from mechinterp_assets.dashboards.explorer_page import explorer_page
from mechinterp_assets.dashboards.glossary_page import glossary_page
from mechinterp_assets.dashboards.live.experiment_pages import LiveExperimentPages
from mechinterp_assets.dashboards.live.explorer import LiveExplorer
from mechinterp_assets.dashboards.live.feature_pages import LivePages
from mechinterp_assets.dashboards.live.head_pages import LiveHeadPages
from mechinterp_assets.dashboards.live.study_pages import LiveStudyPages
from mechinterp_assets.dashboards.places import (
    COMPARISONS,
    EXPLORER,
    GLOSSARY,
    experiments_folder,
    head_page,
    heads_folder,
    prompts_folder,
    trace_folder,
    training_folder,
)
from mechinterp_assets.dashboards.site import ALL_LINKED, SOME_LINKED
from mechinterp_assets.dashboards.stand_in_pages import failed_page, not_found_page, unreadable_page
from mechinterp_assets.dashboards.studies_page import Failure, studies_page
from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.staleness.asked_for import observe_if_possible
from mechinterp_assets.staleness.reasons import freshness
from mechinterp_assets.storage.home import dashboard_folder, lake_folder, tensor_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.registry import load_registry
from mechinterp_assets.studies.study import Study


class _Name(Convertor[str]):
    """A study or a site, as folders may be called."""

    regex = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Number(Convertor[int]):
    """A layer, a head or a feature, within what columns of numbers hold."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("name", _Name())
register_url_convertor("number", _Number())


class _PublishedFiles(StaticFiles):
    """The folder; a path that cannot name a file is one that does not exist."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except (ValueError, OSError):  # a NUL in it, or longer than the file system takes
            raise HTTPException(404) from None


def dashboard_app(
    *,
    dagster_port: int | None = None,
    failures: Callable[[Lake], Sequence[Failure]] = lambda _: (),
) -> Starlette:
    """The dashboards folder as a read-only web application, with pages from the lake.

    A layer's published folder has pages of its most active features, for reading without a server.
    Here every feature has one: pages are made on request, and the layer's index links all of them.
    Pages of heads and of experiments are made on request too, so that they follow every table that
    they show. The first page lists the studies of the files as they are when it is asked for.

    Args:
        dagster_port: where Dagster's pages are served, on the host that the request names; None
            where they are not. Under a path of Dagster's own address they are at its root.
        failures: what failed in a lake and was not made since.
    """
    folder = dashboard_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lake = Lake(lake_folder())
    pages, heads, experiments = LivePages(lake), LiveHeadPages(lake), LiveExperimentPages(lake)
    explorer = LiveExplorer(lake, Tensors(tensor_folder()), load_registry, model_of, _keep)
    of_studies = LiveStudyPages(lake)
    files = _PublishedFiles(directory=folder, html=True, follow_symlink=True)

    def studies(request: Request) -> Response:
        registry = load_registry()
        published = {page.parent.name for page in folder.glob("*/index.html")} | {
            GLOSSARY,
            EXPLORER,
        }
        if of_studies.has_comparisons():
            published.add(COMPARISONS)
        for study in registry.studies:
            published |= of_studies.folders(study)
        every = registry.studies.values()
        published |= {prompts_folder(study.study) for study in every if _has_prompts(study)}
        observe_if_possible(lake, registry.studies.values())
        states = {} if lake.is_empty() else freshness(lake)
        page = studies_page(
            registry,
            published,
            states,
            failures=failures(lake),
            dagster_href=_dagster_href(request, dagster_port),
        )
        return HTMLResponse(page)

    started = time.time_ns()

    def answer(request: Request, live: Callable[[], str | None], file: Path) -> Response:
        """A page from the lake, or without one the published file."""
        # What a page shows changes with the lake, how it is made with this program. Looked at
        # first: a page that a write overtakes must not pass for the newer one.
        state = (started, *(lake.catalog_state() or ()))
        if _is_known(request, state):
            return _not_modified(state)
        page = live()
        return _file(request, file, folder) if page is None else _html(page, state)

    def feature(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        file = folder / site / "features" / f"{number}.html"
        return answer(request, lambda: pages.page(site, number), file)

    def tree(request: Request) -> Response:
        site, number = request.path_params["site"], request.path_params["feature"]
        file = folder / site / "trees" / f"{number}.html"
        return answer(request, lambda: pages.tree(site, number), file)

    def index(request: Request) -> Response:
        site = request.path_params["site"]
        every = (SOME_LINKED, ALL_LINKED) if pages.covers(site) else None
        return _file(request, folder / site / "index.html", folder, every)

    def head(request: Request) -> Response:
        study, layer, number = (request.path_params[name] for name in ("study", "layer", "head"))
        file = folder / heads_folder(study) / head_page(layer, number)
        return answer(request, lambda: heads.page(study, layer, number), file)

    def head_index(request: Request) -> Response:
        study = request.path_params["study"]
        return answer(
            request, lambda: heads.index(study), folder / heads_folder(study) / "index.html"
        )

    def experiment_page(request: Request) -> Response:
        study = request.path_params["study"]
        file = folder / experiments_folder(study) / "index.html"
        return answer(request, lambda: experiments.page(study), file)

    def trace(request: Request) -> Response:
        study, task = request.path_params["study"], request.path_params.get("task", "ioi")
        file = folder / trace_folder(study, task) / "index.html"
        return answer(request, lambda: of_studies.trace(study, task), file)

    def training(request: Request) -> Response:
        study = request.path_params["study"]
        file = folder / training_folder(study) / "index.html"
        return answer(request, lambda: of_studies.training(study), file)

    def prompts(request: Request) -> Response:
        # Of files too, which people write: never a page that a browser has.
        study = load_registry().studies.get(request.path_params["study"])
        if study is None:
            return _not_found(request)
        try:
            sets = prompts_now(study)
        except ExploreError as error:
            return HTMLResponse(unreadable_page(f"{request.scope['root_path']}/", str(error)))
        return HTMLResponse(of_studies.prompts(study.study, sets))

    def glossary(request: Request) -> Response:
        return answer(request, glossary_page, folder / GLOSSARY / "index.html")

    def explore(request: Request) -> Response:
        return answer(request, explorer_page, folder / EXPLORER / "index.html")

    def comparisons(request: Request) -> Response:
        return answer(request, of_studies.comparisons, folder / COMPARISONS / "index.html")

    def comparison(request: Request) -> Response:
        name, other = request.path_params["name"], request.path_params["other"]
        file = folder / COMPARISONS / name / other / "index.html"
        return answer(request, lambda: of_studies.comparison(name, other), file)

    return Starlette(
        routes=[
            *_with_index("/", studies),
            *_with_index(f"/{EXPLORER}/", explore),
            questions_route(explorer),
            *_with_index(f"/{GLOSSARY}/", glossary),
            *_with_index(f"/{COMPARISONS}/", comparisons),
            *_with_index(f"/{COMPARISONS}/{{name:name}}/{{other:name}}/", comparison),
            *_with_index("/{study:name}.prompts/", prompts),
            *_with_index("/{study:name}.training/", training),
            *_with_index("/{study:name}.trace/", trace),
            *_with_index("/{study:name}.trace.{task:name}/", trace),
            *_with_index("/{study:name}.experiments/", experiment_page),
            Route("/{study:name}.heads/L{layer:number}H{head:number}.html", head),
            *_with_index("/{study:name}.heads/", head_index),
            Route("/{site:name}/features/{feature:number}.html", feature),
            Route("/{site:name}/trees/{feature:number}.html", tree),
            *_with_index("/{site:name}/", index),
            Mount("/", app=files),
        ],
        # Compressed lines would wait for one another.
        middleware=[
            Middleware(
                GZipMiddleware, exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, LINES)
            )
        ],
        exception_handlers={
            404: lambda request, _: _not_found(request),
            500: lambda request, _: _failed(request),
        },
    )


def _keep(study: Study, text: str) -> str:
    """Keep a prompt; what then makes its tables."""
    file = keep_prompt(study.study, text)
    return f"kept in {file}; `mechinterp materialize {study.study}` makes its tables"


def _has_prompts(study: Study) -> bool:
    """Whether there is a page of its prompts, also one that says what is wrong with a file."""
    try:
        return bool(prompts_now(study))
    except ExploreError:
        return True


def _with_index(path: str, endpoint: Callable[[Request], Response]) -> list[Route]:
    """Routes of a folder's page, with and without the name of its file."""
    return [Route(path, endpoint), Route(f"{path}index.html", endpoint)]


def _dagster_href(request: Request, port: int | None) -> str | None:
    """Address of Dagster's pages for a page at the root of the dashboards."""
    if request.scope["root_path"]:
        return "/"
    return None if port is None else f"{request.url.scheme}://{request.url.hostname}:{port}/"


def _file(
    request: Request, path: Path, folder: Path, replaced: tuple[str, str] | None = None
) -> Response:
    """A page of the folder, with one text replaced, or 404; nothing outside the folder."""
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        return _not_found(request)
    found = path.stat()
    state = (found.st_ino, found.st_mtime_ns, replaced is not None)
    if _is_known(request, state):
        return _not_modified(state)
    text = path.read_text()
    return _html(text if replaced is None else text.replace(*replaced, 1), state)


def _not_found(request: Request) -> Response:
    return HTMLResponse(not_found_page(f"{request.scope['root_path']}/"), status_code=404)


def _failed(request: Request) -> Response:
    return HTMLResponse(failed_page(f"{request.scope['root_path']}/"), status_code=500)


def _headers(state: tuple[int, ...]) -> dict[str, str]:
    """A tag of what a page shows, which browsers ask about each time.

    Weak: gzip sends the same page in other bytes.
    """
    tag = "-".join(format(part, "x") for part in state)
    return {"ETag": f'W/"{tag}"', "Cache-Control": "no-cache"}


def _is_known(request: Request, state: tuple[int, ...]) -> bool:
    """Whether the browser has the page as of `state`."""
    known = request.headers.get("if-none-match", "").split(",")
    return _headers(state)["ETag"] in map(str.strip, known)


def _not_modified(state: tuple[int, ...]) -> Response:
    return Response(status_code=304, headers=_headers(state))


def _html(text: str, state: tuple[int, ...]) -> Response:
    return HTMLResponse(text, headers=_headers(state))
