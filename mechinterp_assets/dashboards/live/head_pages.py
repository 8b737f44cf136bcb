"""Head pages made from the lake when somebody asks for one.

Belongs here: reading a study's tables of heads and noticing when they have changed. What a page
shows is in `dashboards/`, how it is served in `serve.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import polars as pl

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.head_frames import (
    FAMILY_TABLE,
    OF_SITE,
    OF_STUDY,
    SCORE_TABLES,
    head_frames,
)
from mechinterp_assets.dashboards.head_site import HeadContext, HeadRenderer
from mechinterp_assets.dashboards.places import feature_href, layer_href
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

_NEEDED = ("language_model", "vocabulary", "tokenized_corpus", "head_scores")


@dataclass(frozen=True)
class _Study:
    """Data versions by (table, partition), and the renderer made from them."""

    versions: Mapping[tuple[str, str], str]
    renderer: HeadRenderer


class LiveHeadPages:
    """Pages of all heads of the studies in a lake; safe for threads.

    A study is read when its first page is asked for, and again when one of its tables has a new
    version. Pages are rendered each time: they take milliseconds.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._catalog: tuple[int, int] | None = None
        self._studies: dict[str, _Study | None] = {}
        self._previous: dict[str, _Study | None] = {}
        self._lock = Lock()

    def page(self, study: str, layer: int, head: int) -> str | None:
        """HTML of a head's page; None for a study or head that the lake does not have."""
        found = self._study(study)
        return None if found is None else found.renderer.page(layer, head)

    def index(self, study: str) -> str | None:
        """HTML of the index of a study's heads; None without head scores."""
        found = self._study(study)
        return None if found is None else found.renderer.index()

    def _study(self, study: str) -> _Study | None:
        with self._lock:
            catalog = self._lake.catalog_state()
            if catalog != self._catalog:
                self._catalog, self._previous, self._studies = catalog, self._studies, {}
            if study not in self._studies:
                versions = self._versions(study)
                old = self._previous.get(study)
                if versions is None:
                    self._studies[study] = None
                elif old is not None and old.versions == versions:
                    self._studies[study] = old
                else:
                    self._studies[study] = _Study(versions, self._read(study, versions))
            return self._studies[study]

    def _versions(self, study: str) -> dict[tuple[str, str], str] | None:
        """Data versions of all tables that its pages read; None where a needed one is missing."""
        if self._catalog is None:
            return None
        names = {(table, study) for table in (*_NEEDED, *SCORE_TABLES, *OF_STUDY.values())}
        for table in (*OF_SITE.values(), FAMILY_TABLE, "feature_statistics"):
            names |= {
                (table, key) for key in self._lake.partitions(table) if parse_site(key)[0] == study
            }
        found = {
            place: self._lake.data_version(*place)
            for place in sorted(names)
            if self._lake.exists(*place)
        }
        return found if all((table, study) in found for table in _NEEDED) else None

    def _read(self, study: str, versions: Mapping[tuple[str, str], str]) -> HeadRenderer:
        def read(table: str, site: str | None) -> pl.LazyFrame | None:
            place = (table, site or study)
            return self._lake.read(*place) if place in versions else None

        def rows(table: str) -> pl.LazyFrame:
            return self._lake.read(table, study)

        sites = sorted({key for _, key in versions if key != study})
        layers = {parse_site(key)[1] for table, key in versions if table == "feature_statistics"}
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
