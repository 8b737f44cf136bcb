"""Head pages made from the lake when somebody asks for one.

Belongs here: reading a study's tables of heads and noticing when they have changed. What a page
shows is in `dashboards/`, how it is served in `app/dashboard_app.py`.
"""

from threading import Lock

import polars as pl
from cachetools import LRUCache

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.head_frames import (
    FAMILY_TABLE,
    OF_SITE,
    OF_STUDY,
    SCORE_TABLES,
    head_frames,
)
from mechinterp_assets.dashboards.head_site import HeadContext, HeadRenderer
from mechinterp_assets.dashboards.live.kept import sites_of
from mechinterp_assets.dashboards.places import feature_href, layer_href
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

NEEDED = ("language_model", "vocabulary", "tokenized_corpus", "head_scores")


KEPT_STUDIES = 16
# Data versions by (table, partition), sorted.
_Versions = tuple[tuple[tuple[str, str], str], ...]


class LiveHeadPages:
    """Pages of all heads of the studies in a lake; safe for threads.

    A study is read when its first page is asked for, and again when one of its tables has a new
    version. Pages are rendered each time: they take milliseconds.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # By study and state of the catalog; a new state often leaves a study's tables as they were.
        self._seen: LRUCache[tuple[str, tuple[int, int]], _Versions | None] = LRUCache(KEPT_STUDIES)
        self._renderers: LRUCache[tuple[str, _Versions], HeadRenderer] = LRUCache(KEPT_STUDIES)
        self._lock = Lock()

    def page(self, study: str, layer: int, head: int) -> str | None:
        """HTML of a head's page; None for a study or head that the lake does not have."""
        found = self._renderer(study)
        return None if found is None else found.page(layer, head)

    def index(self, study: str) -> str | None:
        """HTML of the index of a study's heads; None without head scores."""
        found = self._renderer(study)
        return None if found is None else found.index()

    def _renderer(self, study: str) -> HeadRenderer | None:
        with self._lock:
            catalog = self._lake.catalog_state()
            if catalog is None:
                return None
            if (study, catalog) not in self._seen:
                self._seen[study, catalog] = self._versions(study)
            versions = self._seen[study, catalog]
            if versions is None:
                return None
            if (study, versions) not in self._renderers:
                self._renderers[study, versions] = self._read(study, versions)
            return self._renderers[study, versions]

    def _versions(self, study: str) -> _Versions | None:
        """Data versions of all tables that its pages read; None where a needed one is missing."""
        names = {(table, study) for table in (*NEEDED, *SCORE_TABLES, *OF_STUDY.values())}
        for table in (*OF_SITE.values(), FAMILY_TABLE, "feature_statistics"):
            names |= {(table, key) for key in sites_of(self._lake, table, study)}
        found = {
            place: self._lake.data_version(*place)
            for place in sorted(names)
            if self._lake.exists(*place)
        }
        return tuple(found.items()) if all((table, study) in found for table in NEEDED) else None

    def _read(self, study: str, versions: _Versions) -> HeadRenderer:
        places = [place for place, _ in versions]

        def read(table: str, site: str | None) -> pl.LazyFrame | None:
            place = (table, site or study)
            return self._lake.read(*place) if place in places else None

        def rows(table: str) -> pl.LazyFrame:
            return self._lake.read(table, study)

        sites = sorted({key for _, key in places if key != study})
        layers = {parse_site(key)[1] for table, key in places if table == "feature_statistics"}
        frames = head_frames(read, lambda query: self._lake.sql(query, {"study": study}), sites)
        sequences = rows("tokenized_corpus").filter(pl.col("sequence").is_in(frames.sequences()))
        tokens = rows("vocabulary").sort("token_id").select("token").collect()["token"].to_list()
        model = rows("language_model").collect().row(0, named=True)

        def feature_link(layer: int, feature: int) -> str | None:
            return feature_href(study, layer, feature) if layer in layers else None

        return HeadRenderer(
            HeadContext(
                model=shown_name(model["weights_source"]),
                provenance=self._lake.current("head_scores", study).provenance,
                texts=TokenTexts(tokens),
                feature_link=feature_link,
                layer_hrefs={layer: layer_href(study, layer) for layer in sorted(layers)},
                study_href=f"../{study}/index.html",
            ),
            frames,
            sequences.select("sequence", "token_ids").collect(),
        )
