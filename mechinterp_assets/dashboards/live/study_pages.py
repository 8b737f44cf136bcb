"""Pages about whole studies, made from the lake when somebody asks for them: traced circuits,
training, comparisons.

Belongs here: which tables each needs, and noticing that the lake has changed. What pages show is in
`dashboards/`, how they are served in `app/dashboard_app.py`.
"""

from collections.abc import Callable
from threading import Lock

import polars as pl
from cachetools import LRUCache

from mechinterp_assets.dashboards.comparison_page import (
    SAE_TABLES,
    STUDY_TABLES,
    render_comparisons,
    render_sae_comparison,
    render_study_comparison,
)
from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.live.head_pages import NEEDED as HEAD_TABLES
from mechinterp_assets.dashboards.places import (
    experiments_folder,
    heads_folder,
    trace_folder,
    training_folder,
)
from mechinterp_assets.dashboards.trace_page import render_trace
from mechinterp_assets.dashboards.training_page import TABLES as TRAINING_TABLES
from mechinterp_assets.dashboards.training_page import render_training
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.sql_text import quote_text
from mechinterp_assets.studies.study import parse_site

KEPT_PAGES = 64
TRACE_TABLES = ("ioi_trace_graph", "ioi_trace_nodes", "ioi_trace_roots", "attention_slices")
# Tables of which one makes the page of experiments worth a link.
EXPERIMENT_TABLES = (
    "intervention_experiments",
    "circuit_faithfulness",
    "component_reuse_faithfulness",
    "prefix_induction",
    "qk_feature_pairs",
)
Query = Callable[[str], pl.DataFrame]

# The roots of a task with the prompts in which their pair fires: those that are traced.
_ROOTS = """
SELECT
    r.layer,
    r.head,
    r.source_role AS source,
    count(DISTINCT s.prompt) AS n_prompts,
    count(DISTINCT s.prompt) FILTER (s.path_multiplicity > 0) AS n_firing
FROM ioi_trace_roots AS r
LEFT JOIN attention_slices AS s
    ON s.study = r.study AND s.task = r.task AND s.layer = r.layer AND s.head = r.head
    AND s.source_role = r.source_role AND s.is_root
WHERE r.study = {study} AND r.task = {task} AND r.layer IS NOT NULL
GROUP BY r.layer, r.head, r.source_role
ORDER BY r.layer DESC, r.head
"""


class LiveStudyPages:
    """Pages of the studies in a lake, each as of the lake's latest state; safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # By what the page is of and the state of the catalog.
        self._pages: LRUCache[tuple[tuple[str, ...], tuple[int, int]], str | None] = LRUCache(
            KEPT_PAGES
        )
        self._folders: LRUCache[tuple[str, tuple[int, int]], set[str]] = LRUCache(KEPT_PAGES)
        self._lock = Lock()

    def trace(self, study: str, task: str) -> str | None:
        """HTML of the traced circuit of a task; None where nothing of it was traced."""
        return self._page(("trace", study, task), lambda: self._trace(study, task))

    def training(self, study: str) -> str | None:
        """HTML of how a study's SAEs were trained; None where none was."""
        return self._page(("training", study), lambda: self._training(study))

    def comparisons(self) -> str | None:
        """HTML of the list of what can be compared; None for a lake without tables."""
        return self._page(("comparisons",), self._comparisons)

    def comparison(self, name: str, other: str) -> str | None:
        """HTML of two studies or two SAEs side by side; None where one of them has no tables."""
        return self._page(("compare", name, other), lambda: self._comparison(name, other))

    def folders(self, study: str) -> set[str]:
        """Names of the folders of a study's pages that are made on request and have something."""
        catalog = self._lake.catalog_state()
        if catalog is None or not self._lake.exists("language_model", study):
            return set()
        with self._lock:
            if (study, catalog) not in self._folders:
                self._folders[study, catalog] = self._found_folders(study)
            return self._folders[study, catalog]

    def has_comparisons(self) -> bool:
        """Whether there is a list of comparisons."""
        return self._lake.catalog_state() is not None and bool(
            self._lake.partitions("language_model")
        )

    # ---- private ---------------------------------------------------------------------------------

    def _page(self, key: tuple[str, ...], render: Callable[[], str | None]) -> str | None:
        with self._lock:
            catalog = self._lake.catalog_state()
            if catalog is None:
                return None
            if (key, catalog) not in self._pages:
                self._pages[key, catalog] = render()
            return self._pages[key, catalog]

    def _found_folders(self, study: str) -> set[str]:
        found = set()
        if self._sites("sae_training_log", study):
            found.add(training_folder(study))
        if all(self._lake.exists(table, study) for table in HEAD_TABLES):
            found.add(heads_folder(study))
        if any(self._lake.exists(table, study) for table in EXPERIMENT_TABLES):
            found.add(experiments_folder(study))
        if all(self._lake.exists(table, study) for table in TRACE_TABLES):
            tasks = self._lake.read("ioi_trace_graph", study).select("task").unique().collect()
            found |= {trace_folder(study, task) for task in tasks["task"].to_list()}
        return found

    def _sites(self, table: str, study: str | None = None) -> list[str]:
        keys = self._lake.partitions(table)
        return [key for key in keys if study is None or parse_site(key)[0] == study]

    def _model(self, study: str) -> str | None:
        if not self._lake.exists("language_model", study):
            return None
        row = self._lake.read("language_model", study).collect().row(0, named=True)
        return shown_name(row["weights_source"])

    def _trace(self, study: str, task: str) -> str | None:
        if not all(self._lake.exists(table, study) for table in TRACE_TABLES):
            return None
        model = self._model(study)
        frames = {
            table: self._lake.read(table, study).filter(task=task).collect()
            for table in TRACE_TABLES[:2]
        }
        if model is None or frames["ioi_trace_graph"].is_empty():
            return None
        # Made by another version of this program, with fewer columns: the page of then is shown.
        for table, frame in frames.items():
            needed = [column.name for column in table_spec(table).columns if not column.nullable]
            if any(frame[name].null_count() for name in needed):
                return None
        roots = self._lake.sql(_ROOTS.format(study=quote_text(study), task=quote_text(task)))
        return render_trace(
            frames["ioi_trace_graph"],
            frames["ioi_trace_nodes"].filter(trace_rule=frames["ioi_trace_graph"]["trace_rule"][0]),
            roots,
            self._lake.current("ioi_trace_graph", study).provenance,
            model,
            "",
            task=task,
        )

    def _training(self, study: str) -> str | None:
        sites, model = self._sites("sae_training_log", study), self._model(study)
        if not sites or model is None:
            return None
        pages = {parse_site(key)[1] for key in self._sites("feature_statistics", study)}
        self._lake.verify_tables(TRAINING_TABLES, study)
        with self._lake.connect() as con:
            return render_training(
                lambda text: con.sql(text).pl(),
                provenance=self._lake.current("sae_training_log", sites[0]).provenance,
                model=model,
                study_href=f"../{study}/index.html",
                has_layer=pages,
            )

    def _comparisons(self) -> str | None:
        studies = sorted(self._lake.partitions("language_model"))
        if not studies:
            return None
        self._lake.verify_tables(["sae_matching"])
        with self._lake.connect() as con:
            return render_comparisons(
                lambda text: con.sql(text).pl(), studies, sorted(self._sites("attention_sae"))
            )

    def _comparison(self, name: str, other: str) -> str | None:
        names = (name, other)
        of_sites = all(self._lake.exists("attention_sae", one) for one in names)
        if not of_sites and not all(self._lake.exists("language_model", one) for one in names):
            return None
        for one in names:
            tables = SAE_TABLES if of_sites else STUDY_TABLES
            self._lake.verify_tables(tables, parse_site(one)[0] if of_sites else one)
        with self._lake.connect() as con:

            def query(text: str) -> pl.DataFrame:
                frame: pl.DataFrame = con.sql(text).pl()
                return frame

            if of_sites:
                return render_sae_comparison(query, parse_site(name), parse_site(other))
            return render_study_comparison(query, name, other)
