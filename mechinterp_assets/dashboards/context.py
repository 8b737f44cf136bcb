"""What all pages of a layer have in common besides the layer's tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.dashboards.rendering import provenance_rows
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.storage.provenance import Provenance


@dataclass(frozen=True)
class LayerContext:
    """What every page of a layer has besides its tables.

    Attributes:
        layer: layer.
        model: name of the model, for display.
        provenance: shown on every page; its study names the site.
        texts: of the vocabulary.
        details: more lines for the provenance block (architecture, sizes).
        study_href: address of the study's index as seen from the layer's index.
        heads_href: address of the folder of head pages as seen from there, with a slash at its end;
            None where there are none: heads are then linked to the layer's index.
    """

    layer: int
    model: str
    provenance: Provenance
    texts: TokenTexts
    details: Mapping[str, str] = field(default_factory=dict)
    study_href: str = "../index.html"
    heads_href: str | None = None

    @property
    def values(self) -> dict[str, object]:
        """Template values that all pages share."""
        return {
            "study": self.provenance.study,
            "layer": self.layer,
            "provenance": provenance_rows(self.provenance, self.model, self.details),
        }

    def head_link(self, up: str = "") -> Callable[[int], str]:
        """Address of a head's page, from a page of the layer that is `up` below the index."""

        def link(head: int) -> str:
            if self.heads_href is None:
                return f"{up}index.html#head-{head}"
            return f"{up}{self.heads_href}{head_page(self.layer, head)}"

        return link


def shown_name(source: str) -> str:
    """Name of a model for a page that may be published: a folder's name, not its place."""
    return Path(source).name if Path(source).is_absolute() else source


def sae_details(sae: Mapping[str, object]) -> dict[str, str]:
    """Line about the SAE for the provenance block, from its row of attention_sae."""
    return {"SAE": f"{sae['architecture']}, {sae['d_sae']} features"}
