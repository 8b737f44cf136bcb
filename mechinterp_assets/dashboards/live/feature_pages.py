"""Feature pages made from the lake when somebody asks for one.

Belongs here: reading one feature's rows and keeping what was rendered. What a page shows is in
`dashboards/`, how it is served in `app/dashboard_app.py`. Pages are always those of the current
versions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal

import polars as pl
from cachetools import LRUCache

from mechinterp_assets.dashboards.collect import (
    HEAD_ROLES,
    NEEDED,
    OF_STUDY,
    OPTIONAL,
    all_names,
    edges_of_layer,
    layer_frames,
)
from mechinterp_assets.dashboards.context import LayerContext, sae_details, shown_name
from mechinterp_assets.dashboards.density import density_counts
from mechinterp_assets.dashboards.elsewhere_block import OTHER_LAYERS, elsewhere
from mechinterp_assets.dashboards.elsewhere_block import TABLES as ELSEWHERE
from mechinterp_assets.dashboards.feature_page import fired
from mechinterp_assets.dashboards.live.kept import Kept, sites_of
from mechinterp_assets.dashboards.places import feature_href, heads_folder
from mechinterp_assets.dashboards.queries import statements
from mechinterp_assets.dashboards.site import FeatureRenderer
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

KEPT_PAGES = 512
KEPT_VOCABULARIES = 4
KEPT_LAYERS = 64
_SITE_TABLES = {
    "attention_sae",
    "feature_activations",
    *NEEDED.values(),
    *(table for table in OPTIONAL.values() if table not in OF_STUDY),
}
_STUDY_NEEDED = {"language_model", "vocabulary", "tokenized_corpus"}
_STUDY_TABLES = {*_STUDY_NEEDED, "head_scores", "trace_graph", *OF_STUDY}
# Data version by table, sorted; tables without data are left out.
_Versions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Layer:
    """What all pages of a layer share, as of some versions of its tables.

    Attributes:
        versions: data version by table.
        tables: current rows by table, lazily.
        context: of the layer.
        order: features that fired, ascending.
        density: features per bin of log10 density.
        names: tokens by which features are described.
        head_roles: rows of the view head_roles, if heads have been scored.
        ioi_edges: rows of trace_graph, if there is a trace.
    """

    versions: _Versions
    tables: Mapping[str, pl.LazyFrame]
    context: LayerContext
    order: Sequence[int]
    density: Mapping[float, int]
    names: pl.DataFrame | None
    head_roles: pl.DataFrame | None
    ioi_edges: pl.DataFrame | None


class LivePages:
    """Pages of any feature of any layer in a lake, the last `kept` of them in memory.

    Safe for threads. A page is made again as soon as one of the tables behind it has a new version.
    """

    def __init__(self, lake: Lake, kept: int = KEPT_PAGES) -> None:
        self._lake = lake
        # By site and state of the catalog; a new state often leaves a site's tables as they were.
        self._seen: LRUCache[tuple[str, tuple[int, int]], _Versions | None] = LRUCache(KEPT_LAYERS)
        self._layers: LRUCache[tuple[str, _Versions], _Layer] = LRUCache(KEPT_LAYERS)
        self._texts: LRUCache[str, TokenTexts] = LRUCache(KEPT_VOCABULARIES)
        self._pages: LRUCache[tuple[str, _Versions, int, str], str] = LRUCache(kept)
        self._elsewhere: Kept[_Versions] = Kept(lake, KEPT_LAYERS)
        self._lock = Lock()

    def covers(self, site: str) -> bool:
        """Whether the lake has what the pages of a site (`<study>.L<nn>`) need."""
        with self._lock:
            return self._layer(site) is not None

    def page(self, site: str, feature: int) -> str | None:
        """HTML of a feature's page; None for a site or feature that the lake does not have."""
        return self._kept_page(site, feature, "feature")

    def tree(self, site: str, feature: int) -> str | None:
        """HTML of the page of a feature's recursive attribution; None where it has no tree."""
        return self._kept_page(site, feature, "tree")

    def _kept_page(self, site: str, feature: int, kind: Literal["feature", "tree"]) -> str | None:
        with self._lock:
            layer = self._layer(site)
            if layer is None:
                return None
            study = parse_site(site)[0]
            others = self._elsewhere.get((site,), lambda: self._others(study)) or ()
            key = (site, (*layer.versions, *others), feature, kind)
            if key in self._pages:
                return self._pages[key]
        html = _render(layer, feature, kind, self._read_elsewhere)
        if html is not None:
            with self._lock:
                self._pages[key] = html
        return html

    def _layer(self, site: str) -> _Layer | None:
        """The layer as of now: looked at again when the lake's catalog has changed."""
        catalog = self._lake.catalog_state()
        if catalog is None:
            return None
        if (site, catalog) not in self._seen:
            self._seen[site, catalog] = self._versions(site)
        versions = self._seen[site, catalog]
        if versions is None:
            return None
        if (site, versions) not in self._layers:
            self._layers[site, versions] = self._read_layer(site, versions)
        return self._layers[site, versions]

    def _versions(self, site: str) -> _Versions | None:
        """Data version by table; None for what is no site, or one that lacks a needed table."""
        try:
            study, _ = parse_site(site)
        except ValueError:
            return None
        found = {
            table: self._lake.data_version(table, partition)
            for tables, partition in ((_SITE_TABLES, site), (_STUDY_TABLES, study))
            for table in sorted(tables)
            if self._lake.exists(table, partition)
        }
        needed = {*NEEDED.values(), *_STUDY_NEEDED, "attention_sae"}
        return tuple(sorted(found.items())) if needed <= found.keys() else None

    def _others(self, study: str) -> _Versions:
        """Data versions of what the block of other layers and documents shows."""
        sites = sites_of(self._lake, "feature_ngrams", study)
        wanted = [(table, study) for table in ELSEWHERE]
        wanted += [(table, key) for table in OTHER_LAYERS for key in sites]
        return tuple(
            (f"{table}/{key}", self._lake.data_version(table, key))
            for table, key in wanted
            if self._lake.exists(table, key)
        )

    def _read_elsewhere(self, study: str, layer: int, feature: int) -> dict[str, Any] | None:
        place = {"study": study, "layer": layer, "feature": feature}
        return elsewhere(lambda name: self._lake.sql(statements()[name], place), study)

    def _read_layer(self, site: str, versions: _Versions) -> _Layer:
        study, layer = parse_site(site)
        version_of = dict(versions)
        tables = {
            table: self._lake.read(table, study if table in _STUDY_TABLES else site)
            for table in version_of
        }
        statistics = tables["feature_statistics"].select("feature", "n_active", "log10_density")
        model = tables["language_model"].collect().row(0, named=True)
        sae = tables["attention_sae"].collect().row(0, named=True)
        frame = statistics.collect()
        edges = tables.get("trace_graph")
        provenance = self._lake.current("feature_statistics", site).provenance
        return _Layer(
            versions=versions,
            tables=tables,
            context=LayerContext(
                layer=layer,
                model=shown_name(model["weights_source"]),
                provenance=replace(provenance, corpus_version=version_of["tokenized_corpus"]),
                texts=self._vocabulary(tables["vocabulary"], version_of["vocabulary"]),
                details=sae_details(sae),
                study_href=f"../{study}/index.html",
                heads_href=f"../{heads_folder(study)}/",
            ),
            order=fired(frame),
            density=density_counts(frame),
            names=all_names(tables.get),
            head_roles=self._lake.sql(HEAD_ROLES, {"study": study, "layer": layer})
            if "head_scores" in version_of
            else None,
            ioi_edges=None if edges is None else edges_of_layer(edges.collect(), layer),
        )

    def _vocabulary(self, vocabulary: pl.LazyFrame, version: str) -> TokenTexts:
        if version not in self._texts:
            tokens = vocabulary.sort("token_id").select("token").collect()
            self._texts[version] = TokenTexts(tokens["token"].to_list())
        return self._texts[version]


# ---- private -------------------------------------------------------------------------------------


def _render(
    layer: _Layer,
    feature: int,
    kind: Literal["feature", "tree"],
    read_elsewhere: Callable[[str, int, int], dict[str, Any] | None],
) -> str | None:
    frames = layer_frames(
        layer.tables.get,
        layer.context.layer,
        [feature],
        whole=False,
        names=layer.names,
        head_roles=layer.head_roles,
        ioi_edges=layer.ioi_edges,
    )
    if frames.statistics.is_empty():
        return None
    wanted = frames.example_sequences().implode()
    sequences = (
        layer.tables["tokenized_corpus"]
        .filter(pl.col("sequence").is_in(wanted))
        .select("sequence", "token_ids")
        .collect()
    )
    study = layer.context.provenance.study

    def link(earlier: int, of: int) -> str:
        return f"../{feature_href(study, earlier, of)}"

    renderer = FeatureRenderer(layer.context, frames, sequences, layer.order, layer.density, link)
    if kind == "tree":
        return renderer.tree(feature)
    found = read_elsewhere(study, layer.context.layer, feature)
    return renderer.html(feature, served=True, elsewhere=found)
