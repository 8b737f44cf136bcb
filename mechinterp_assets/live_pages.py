"""Feature pages made from the lake when somebody asks for one.

Belongs here: reading one feature's rows and keeping what was rendered. What a page shows is in
`dashboards/`, how it is served in `serve.py`. Pages are always those of the current versions.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import polars as pl

from mechinterp_assets.dashboards.collect import (
    HEAD_ROLES,
    NEEDED,
    OF_STUDY,
    OPTIONAL,
    edges_of_layer,
    layer_frames,
)
from mechinterp_assets.dashboards.context import LayerContext, sae_details, shown_name
from mechinterp_assets.dashboards.density import density_counts
from mechinterp_assets.dashboards.feature_page import fired
from mechinterp_assets.dashboards.site import FeatureRenderer
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.study import parse_site
from resources.lake import Lake, LakeError

KEPT_PAGES = 512
_SITE_TABLES = ("attention_sae", "feature_activations", *NEEDED.values(), *OPTIONAL.values())
_STUDY_TABLES = (
    "language_model",
    "vocabulary",
    "tokenized_corpus",
    "head_scores",
    "ioi_trace_graph",
    *OF_STUDY,
)

_Versions = tuple[str | None, ...]


@dataclass(frozen=True)
class _Layer:
    """What all pages of a layer share, as of some versions of its tables."""

    versions: _Versions
    context: LayerContext
    order: Sequence[int]
    density: dict[float, int]
    head_roles: pl.DataFrame | None
    ioi_edges: pl.DataFrame | None


class LivePages:
    """Pages of any feature of any layer in a lake, the last `kept` of them in memory.

    Safe for threads. A page is made again as soon as one of the tables behind it has a new version.
    """

    def __init__(self, lake: Lake, kept: int = KEPT_PAGES) -> None:
        self._lake, self._kept = lake, kept
        self._layers: dict[str, _Layer] = {}
        self._texts: OrderedDict[str, TokenTexts] = OrderedDict()
        self._pages: OrderedDict[tuple[str, int, _Versions], str] = OrderedDict()
        self._lock = Lock()

    def covers(self, site: str) -> bool:
        """Whether the lake has what the pages of a site (`<study>.L<nn>`) need."""
        try:
            study, _ = parse_site(site)
        except ValueError:
            return False
        return all(self._version(table, site) for table in NEEDED.values()) and all(
            self._version(table, study) for table in _STUDY_TABLES[:3]
        )

    def page(self, site: str, feature: int) -> str | None:
        """HTML of a feature's page; None for a site or feature that the lake does not have."""
        if not self.covers(site):
            return None
        study, _ = parse_site(site)
        versions = (
            *(self._version(table, site) for table in _SITE_TABLES),
            *(self._version(table, study) for table in _STUDY_TABLES),
        )
        key = (site, feature, versions)
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]
            layer = self._layers.get(site)
        if layer is None or layer.versions != versions:
            layer = self._layer(site, versions)
        html = self._render(site, layer, feature)
        with self._lock:
            self._layers[site] = layer
            if html is not None:
                self._pages[key] = html
            while len(self._pages) > self._kept:
                self._pages.popitem(last=False)
        return html

    def _render(self, site: str, layer: _Layer, feature: int) -> str | None:
        study, _ = parse_site(site)
        frames = layer_frames(
            self._reader(site),
            layer.context.layer,
            [feature],
            whole=False,
            head_roles=layer.head_roles,
            ioi_edges=layer.ioi_edges,
        )
        if frames.statistics.is_empty():
            return None
        wanted = frames.example_sequences().implode()
        sequences = (
            self._lake.read("tokenized_corpus", study)
            .filter(pl.col("sequence").is_in(wanted))
            .select("sequence", "token_ids")
            .collect()
        )
        renderer = FeatureRenderer(layer.context, frames, sequences, layer.order, layer.density)
        return renderer.html(feature)

    def _layer(self, site: str, versions: _Versions) -> _Layer:
        study, layer = parse_site(site)
        read = self._reader(site)
        statistics = self._lake.read("feature_statistics", site).select(
            "feature", "n_active", "log10_density"
        )
        model = self._lake.read("language_model", study).collect().row(0, named=True)
        sae = read("attention_sae")
        roles = self._version("head_scores", study) is not None
        edges = self._version("ioi_trace_graph", study) is not None
        frame = statistics.collect()
        context = LayerContext(
            layer=layer,
            model=shown_name(model["source"]),
            provenance=replace(
                self._lake.current("feature_statistics", site).provenance,
                corpus_version=self._version("tokenized_corpus", study),
            ),
            texts=self._vocabulary(study),
            details={} if sae is None else sae_details(sae.collect().row(0, named=True)),
            study_href=f"../{study}/index.html",
        )
        return _Layer(
            versions=versions,
            context=context,
            order=fired(frame),
            density=density_counts(frame),
            head_roles=self._lake.sql(HEAD_ROLES, {"study": study, "layer": layer})
            if roles
            else None,
            ioi_edges=edges_of_layer(self._lake.read("ioi_trace_graph", study).collect(), layer)
            if edges
            else None,
        )

    def _vocabulary(self, study: str) -> TokenTexts:
        version = self._version("vocabulary", study) or ""
        with self._lock:
            texts = self._texts.get(version)
        if texts is None:
            tokens = self._lake.read("vocabulary", study).sort("token_id").select("token")
            texts = TokenTexts(tokens.collect()["token"].to_list())
            with self._lock:
                self._texts[version] = texts
                while len(self._texts) > 4:
                    self._texts.popitem(last=False)
        return texts

    def _reader(self, site: str) -> Callable[[str], pl.LazyFrame | None]:
        study, _ = parse_site(site)

        def read(table: str) -> pl.LazyFrame | None:
            partition = study if table in OF_STUDY else site
            return self._lake.read(table, partition) if self._version(table, partition) else None

        return read

    def _version(self, table: str, partition: str) -> str | None:
        """Data version of a partition; None without one."""
        try:
            return self._lake.data_version(table, partition)
        except LakeError:
            return None
