"""The page of a study's experiments, made from the lake when somebody asks for it.

Belongs here: which tables it needs. What the page shows is in `dashboards/`, how it is served in
`app/dashboard_app.py`.
"""

from mechinterp_assets.dashboards.experiments_page import TABLES, render_experiments
from mechinterp_assets.dashboards.live.kept import Kept, model_name, sites_of
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

KEPT_PAGES = 32


class LiveExperimentPages:
    """Pages of all studies in a lake, each as of the lake's latest state; safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._pages: Kept[str | None] = Kept(lake, KEPT_PAGES)

    def page(self, study: str) -> str | None:
        """HTML of a study's page; None for a study that has none of what it shows."""
        return self._pages.get((study,), lambda: self._render(study))

    def _render(self, study: str) -> str | None:
        shown = [table for table in TABLES if self._lake.exists(table, study)]
        model = model_name(self._lake, study)
        if not shown or model is None:
            return None
        sites = sites_of(self._lake, "feature_statistics", study)
        self._lake.verify_tables(shown, study)
        with self._lake.connect() as con:
            return render_experiments(
                lambda text: con.sql(text).pl(),
                provenance=self._lake.current("language_model", study).provenance,
                model=model,
                study_href=f"../{study}/index.html",
                feature_layers={parse_site(key)[1] for key in sites},
            ).html
