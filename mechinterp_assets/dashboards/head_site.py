"""The static site of a study's heads: an index and a page per head.

    <study>.heads/index.html
    <study>.heads/L03H07.html

Belongs here: which files there are, and writing them. Publishing a finished folder is the caller's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mechinterp_assets.dashboards.head_frames import HeadFrames
from mechinterp_assets.dashboards.head_page import HeadPages
from mechinterp_assets.dashboards.heads_index import heads_content
from mechinterp_assets.dashboards.layer_frames import SequenceTokens
from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template, write_page
from mechinterp_assets.dashboards.site import RenderedFolder
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.model.names import head_name
from mechinterp_assets.storage.provenance import Provenance


@dataclass(frozen=True)
class HeadContext:
    """What all pages of a study's heads have besides its tables.

    Attributes:
        model: name of the model, for display.
        provenance: of the head scores; its study names the site.
        texts: of the vocabulary.
        feature_link: address of a feature's page by (layer, feature) as seen from the folder of
            head pages; None where it has none.
        layer_hrefs: address of the index of each layer that has one.
        study_href: address of the study's index.
    """

    model: str
    provenance: Provenance
    texts: TokenTexts
    feature_link: Callable[[int, int], str | None]
    layer_hrefs: Mapping[int, str]
    study_href: str


class HeadRenderer:
    """Head pages of one study as HTML: the one way in which they are made.

    Args:
        context: of the study.
        frames: its tables.
        sequences: columns sequence and token_ids of all sequences with examples.

    Raises:
        ValueError: an example's sequence or token is missing.
    """

    def __init__(self, context: HeadContext, frames: HeadFrames, sequences: pl.DataFrame) -> None:
        tokens = SequenceTokens(sequences)
        tokens.require(pl.Series(frames.sequences(), dtype=pl.Int64))
        if tokens.largest >= len(context.texts):
            raise ValueError(
                f"token id {tokens.largest} has no text, there are {len(context.texts)}; "
                "pass the token strings of the model that the corpus was tokenized for"
            )
        self._context, self._frames = context, frames
        self.heads = frames.heads
        self._place = {at: i for i, at in enumerate(self.heads)}
        study = context.provenance.study
        self._pages = HeadPages(frames, study, tokens, context.texts, context.feature_link)
        self._shared = {
            "study": study,
            "study_href": context.study_href,
            "provenance": provenance_rows(context.provenance, context.model, {}),
        }

    def page(self, layer: int, head: int) -> str | None:
        """The page of one head; None for a head without scores."""
        place = self._place.get((layer, head))
        if place is None:
            return None
        return template("head.html").render(
            **self._shared,
            **page_parts("feature.js"),
            **self._pages.content(layer, head),
            layer_href=self._context.layer_hrefs.get(layer),
            previous=self._step(place - 1),
            next=self._step(place + 1),
        )

    def index(self) -> str:
        """The index of all heads."""
        return template("heads.html").render(
            **self._shared,
            **page_parts("tables.js", "heads.js"),
            **heads_content(self._frames, str(self._shared["study"])),
        )

    def _step(self, place: int) -> dict[str, str] | None:
        if not 0 <= place < len(self.heads):
            return None
        layer, head = self.heads[place]
        return {"href": head_page(layer, head), "name": head_name(layer, head)}


def render_heads(renderer: HeadRenderer, folder: Path) -> RenderedFolder:
    """Write the index and all head pages into `folder`, private to the caller until published."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_page(folder / "index.html", renderer.index())
    for layer, head in renderer.heads:
        text = renderer.page(layer, head)
        assert text is not None
        size += write_page(folder / head_page(layer, head), text)
    return RenderedFolder(0, len(renderer.heads) + 1, size)
