"""The page of a study's experiments, made from the lake when somebody asks for it.

Belongs here: noticing that the lake has changed. What the page shows is in `dashboards/`, how it is
served in `app/dashboard_app.py`.
"""

from threading import Lock

from cachetools import LRUCache

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.experiments_page import TABLES, render_experiments
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

KEPT_PAGES = 32


class LiveExperimentPages:
    """Pages of all studies in a lake, each as of the lake's latest state; safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # By study and state of the catalog.
        self._pages: LRUCache[tuple[str, tuple[int, int]], str | None] = LRUCache(KEPT_PAGES)
        self._lock = Lock()

    def page(self, study: str) -> str | None:
        """HTML of a study's page; None for a study that has none of what it shows."""
        with self._lock:
            catalog = self._lake.catalog_state()
            if catalog is None:
                return None
            if (study, catalog) not in self._pages:
                self._pages[study, catalog] = self._render(study)
            return self._pages[study, catalog]

    def _render(self, study: str) -> str | None:
        shown = [table for table in TABLES if self._lake.exists(table, study)]
        if not shown or not self._lake.exists("language_model", study):
            return None
        model = self._lake.read("language_model", study).collect().row(0, named=True)
        layers = [parse_site(key) for key in self._lake.partitions("feature_statistics")]
        self._lake.verify_tables(shown, study)
        with self._lake.connect() as con:
            return render_experiments(
                lambda text: con.sql(text).pl(),
                provenance=self._lake.current("language_model", study).provenance,
                model=shown_name(model["weights_source"]),
                study_href=f"../{study}/index.html",
                feature_layers={layer for of, layer in layers if of == study},
            ).html
