"""Pages about whole studies, made from the lake when somebody asks for them: traced circuits,
training, comparisons.

Belongs here: which tables each needs. What pages show is in `dashboards/`, how they are served in
`app/dashboard_app.py`.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from mechinterp_assets.dashboards.comparison_page import (
    SAE_TABLES,
    STUDY_TABLES,
    render_comparisons,
    render_sae_comparison,
    render_study_comparison,
)
from mechinterp_assets.dashboards.live.head_pages import NEEDED as HEAD_TABLES
from mechinterp_assets.dashboards.live.kept import Kept, model_name, sites_of
from mechinterp_assets.dashboards.places import (
    experiments_folder,
    heads_folder,
    trace_folder,
    training_folder,
)
from mechinterp_assets.dashboards.prompts_page import render_prompts
from mechinterp_assets.dashboards.queries import statements
from mechinterp_assets.dashboards.trace_page import render_trace
from mechinterp_assets.dashboards.training_page import TABLES as TRAINING_TABLES
from mechinterp_assets.dashboards.training_page import render_training
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

KEPT_PAGES = 64
_NO_PROMPTS = {"prompt_set": pl.String, "prompt_number": pl.Int32}
TRACE_TABLES = ("trace_graph", "trace_nodes", "trace_roots", "attention_slices")
# Tables of which one makes the page of experiments worth a link.
EXPERIMENT_TABLES = (
    "intervention_experiments",
    "circuit_faithfulness",
    "component_reuse_faithfulness",
    "prefix_induction",
    "qk_feature_pairs",
)

# The roots of a task with the prompts in which their pair fires: those that are traced.
_ROOTS = """
SELECT
    r.layer,
    r.head,
    r.source_role AS source,
    count(DISTINCT s.prompt) AS n_prompts,
    count(DISTINCT s.prompt) FILTER (s.path_multiplicity > 0) AS n_firing
FROM trace_roots AS r
LEFT JOIN attention_slices AS s
    ON s.study = r.study AND s.task = r.task AND s.layer = r.layer AND s.head = r.head
    AND s.source_role = r.source_role AND s.is_root
WHERE r.study = $study AND r.task = $task AND r.layer IS NOT NULL
GROUP BY r.layer, r.head, r.source_role
ORDER BY r.layer DESC, r.head
"""


class LiveStudyPages:
    """Pages of the studies in a lake, each as of the lake's latest state; safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._pages: Kept[str | None] = Kept(lake, KEPT_PAGES)
        self._folders: Kept[set[str]] = Kept(lake, KEPT_PAGES)

    def trace(self, study: str, task: str) -> str | None:
        """HTML of the traced circuit of a task; None where nothing of it was traced."""
        return self._pages.get(("trace", study, task), lambda: self._trace(study, task))

    def training(self, study: str) -> str | None:
        """HTML of how a study's SAEs were trained; None where none was."""
        return self._pages.get(("training", study), lambda: self._training(study))

    def comparisons(self) -> str | None:
        """HTML of the list of what can be compared; None for a lake without tables."""
        return self._pages.get(("comparisons",), self._comparisons)

    def comparison(self, name: str, other: str) -> str | None:
        """HTML of two studies or two SAEs side by side; None where one of them has no tables."""
        return self._pages.get(("compare", name, other), lambda: self._comparison(name, other))

    def prompts(self, study: str, sets: Mapping[str, Sequence[str]]) -> str:
        """HTML of a study's own prompts.

        sets: texts by set, as they stand now.
        """
        made, href = pl.DataFrame(schema=_NO_PROMPTS), ""
        if self._lake.catalog_state() is not None:
            if self._lake.exists("prompt_tokens", study):
                made = self._lake.sql(statements()["prompts"], {"study": study})
            if sites_of(self._lake, "feature_statistics", study):
                href = f"../{study}/index.html"
        return render_prompts(study, sets, made, study_href=href)

    def folders(self, study: str) -> set[str]:
        """Names of the folders of a study's pages that are made on request and have something."""
        return self._folders.get((study,), lambda: self._found_folders(study)) or set()

    def has_comparisons(self) -> bool:
        """Whether there is a list of comparisons."""
        return self._lake.catalog_state() is not None and bool(
            self._lake.partitions("language_model")
        )

    # ---- private ---------------------------------------------------------------------------------

    def _found_folders(self, study: str) -> set[str]:
        found: set[str] = set()
        if not self._lake.exists("language_model", study):
            return found
        if sites_of(self._lake, "sae_training_log", study):
            found.add(training_folder(study))
        if all(self._lake.exists(table, study) for table in HEAD_TABLES):
            found.add(heads_folder(study))
        if any(self._lake.exists(table, study) for table in EXPERIMENT_TABLES):
            found.add(experiments_folder(study))
        if all(self._lake.exists(table, study) for table in TRACE_TABLES):
            tasks = self._lake.read("trace_graph", study).select("task").unique().collect()
            found |= {trace_folder(study, task) for task in tasks["task"].to_list()}
        return found

    def _trace(self, study: str, task: str) -> str | None:
        if not all(self._lake.exists(table, study) for table in TRACE_TABLES):
            return None
        model = model_name(self._lake, study)
        frames = {
            table: self._lake.read(table, study).filter(task=task).collect()
            for table in TRACE_TABLES[:2]
        }
        if model is None or frames["trace_graph"].is_empty():
            return None
        # Made by another version of this program, with fewer columns: the page of then is shown.
        for table, frame in frames.items():
            needed = [column.name for column in table_spec(table).columns if not column.nullable]
            if any(frame[name].null_count() for name in needed):
                return None
        roots = self._lake.sql(_ROOTS, {"study": study, "task": task})
        return render_trace(
            frames["trace_graph"],
            frames["trace_nodes"].filter(trace_rule=frames["trace_graph"]["trace_rule"][0]),
            roots,
            self._lake.current("trace_graph", study).provenance,
            model,
            "",
            task=task,
        )

    def _training(self, study: str) -> str | None:
        sites = sites_of(self._lake, "sae_training_log", study)
        model = model_name(self._lake, study)
        if not sites or model is None:
            return None
        pages = {parse_site(key)[1] for key in sites_of(self._lake, "feature_statistics", study)}
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
        sites = sorted(self._lake.partitions("attention_sae"))
        with self._lake.connect() as con:
            return render_comparisons(lambda text: con.sql(text).pl(), studies, sites)

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
