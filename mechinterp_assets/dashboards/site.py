"""The static site of feature dashboards: one folder per layer, one index per study.

    <study>/index.html                    render_study
    <study>/<layer>/index.html            render_layer
    <study>/<layer>/features/<n>.html
    <study>/<layer>/trees/<n>.html        features with a tree of recursive attribution

Belongs here: which files there are, and writing them. Publishing a finished folder is the caller's.
Pages are self-contained: they load nothing and work from a file system.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.context import LayerContext
from mechinterp_assets.dashboards.density import density_counts
from mechinterp_assets.dashboards.feature_page import FeaturePages, fired
from mechinterp_assets.dashboards.index_pages import layer_content, study_content
from mechinterp_assets.dashboards.layer_frames import LayerFrames, SequenceTokens
from mechinterp_assets.dashboards.places import effect_href
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template, write_page
from mechinterp_assets.dashboards.tree_page import FeatureLink, TreePages
from mechinterp_assets.storage.provenance import Provenance

# The layer's index links the features with a page; a server that makes any page says so here.
SOME_LINKED, ALL_LINKED = '<html lang="en" data-pages="some">', '<html lang="en" data-pages="all">'


@dataclass(frozen=True)
class RenderedFolder:
    """What was written.

    Attributes:
        n_features: features with a page of their own.
        n_pages: HTML files.
        bytes: their size.
    """

    n_features: int
    n_pages: int
    bytes: int


class FeatureRenderer:
    """Feature pages of one layer as HTML: the one way in which they are made.

    Args:
        context: of the layer.
        frames: tables of the layer, with at least the rows of the features to be rendered.
        sequences: columns sequence and token_ids of all sequences with examples.
        order: features with a page, ascending: what previous and next lead to.
        density: features of the whole layer per bin of log10 density.
        link: of features of earlier layers; by default they are not linked.

    Raises:
        ValueError: an example's sequence or token is missing.
    """

    def __init__(
        self,
        context: LayerContext,
        frames: LayerFrames,
        sequences: pl.DataFrame,
        order: Sequence[int],
        density: Mapping[float, int],
        link: FeatureLink = lambda layer, feature: None,
    ) -> None:
        tokens = SequenceTokens(sequences)
        tokens.require(frames.example_sequences())
        if tokens.largest >= len(context.texts):
            raise ValueError(
                f"token id {tokens.largest} has no text, there are {len(context.texts)}; "
                "pass the token strings of the model that the corpus was tokenized for"
            )
        self._context, self._order, self._linked = context, order, frozenset(order)
        self._pages = FeaturePages(
            frames,
            context.provenance.study,
            context.layer,
            tokens,
            context.texts,
            density,
            self._linked.__contains__,
        )
        self.trees = None if frames.rdfa is None else TreePages(frames.rdfa, context, tokens, link)

    def html(
        self, feature: int, *, served: bool = False, elsewhere: Mapping[str, Any] | None = None
    ) -> str:
        """The page of one feature.

        served: by a server, which has the explorer too and knows where else the feature fires
        (`elsewhere`, see elsewhere_block.py).
        """
        layer, study = self._context.layer, self._context.provenance.study
        after = bisect_right(self._order, feature)
        before = bisect_left(self._order, feature) - 1
        return template("feature.html").render(
            **self._context.values,
            **page_parts("feature.js"),
            **self._pages.content(feature),
            elsewhere=elsewhere,
            explorer_href=effect_href(study, layer, feature) if served else None,
            study_href=f"../{self._context.study_href}",
            head_href=self._context.head_link("../"),
            previous=self._order[before] if before >= 0 else None,
            next=self._order[after] if after < len(self._order) else None,
        )

    def tree(self, feature: int) -> str | None:
        """The page of a feature's recursive attribution; None where it has no tree."""
        return None if self.trees is None else self.trees.html(feature)


def render_layer(
    frames: LayerFrames,
    folder: Path,
    context: LayerContext,
    *,
    sequences: pl.DataFrame,
    features: Sequence[int] | None = None,
    evaluation: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RenderedFolder:
    """Write the index and the feature pages of one layer into `folder`.

    Args:
        frames: tables of the layer.
        folder: absent or empty; private to the caller until it publishes it.
        context: of the layer.
        sequences: columns sequence and token_ids (tokenized_corpus) of all sequences with examples.
        features: features that get a page; default all that fired. The index lists every feature.
        evaluation: row of sae_evaluation of the layer, shown on the index.
        progress: called after every hundredth page with pages done and pages in total.

    Raises:
        ValueError: the folder is not empty, a feature is unknown, or an example's sequence or token
            is missing. Raised before anything is written.
    """
    known = set(frames.statistics["feature"].to_list())
    shown = sorted(set(features)) if features is not None else fired(frames.statistics)
    if unknown := [f for f in shown if f not in known]:
        raise ValueError(f"features {unknown[:5]} are not in statistics (0..{len(known) - 1})")
    density = density_counts(frames.statistics)
    renderer = FeatureRenderer(context, frames, sequences, shown, density)
    _check_empty(folder)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    size, n_trees = 0, 0
    for i, feature in enumerate(shown):
        size += write_page(folder / "features" / f"{feature}.html", renderer.html(feature))
        if (tree := renderer.tree(feature)) is not None:
            (folder / "trees").mkdir(exist_ok=True)
            size += write_page(folder / "trees" / f"{feature}.html", tree)
            n_trees += 1
        if progress is not None and (i + 1) % 100 == 0:
            progress(i + 1, len(shown))
    index = template("layer.html").render(
        **context.values,
        **page_parts("layer.js"),
        **layer_content(frames, context, set(shown), evaluation or {}),
        study_href=context.study_href,
        head_href=context.head_link(),
        has_head_pages=context.heads_href is not None,
    )
    size += write_page(folder / "index.html", index)
    return RenderedFolder(len(shown), len(shown) + n_trees + 1, size)


def render_study(
    folder: Path,
    *,
    model: str,
    provenance: Provenance,
    statistics: pl.DataFrame,
    evaluation: pl.DataFrame | None = None,
    hrefs: Mapping[int, str] | None = None,
    description: str = "",
    details: Mapping[str, str] | None = None,
    related: Mapping[str, str] | None = None,
) -> RenderedFolder:
    """Write the index of a study, `folder`/index.html, over an older one if there is one.

    Args:
        folder: the study's folder; made if absent.
        model: name of the model, for display.
        provenance: shown on the page; its study names the site.
        statistics: feature_statistics of all layers (layer, n_active, log10_density suffice).
        evaluation: sae_evaluation, any of the layers.
        hrefs: address of each layer's index as seen from this page; default L00/index.html.
        description: of the study.
        details: more lines for the provenance block.
        related: titles and addresses of the study's other pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = template("study.html").render(
        **page_parts("study.js"),
        **study_content(statistics, evaluation, hrefs, provenance.study),
        study=provenance.study,
        description=description,
        related=related or {},
        provenance=provenance_rows(provenance, model, details or {}),
    )
    return RenderedFolder(0, 1, write_page(folder / "index.html", text))


# ---- private -------------------------------------------------------------------------------------


def _check_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give an empty folder, pages of an older run stay")
