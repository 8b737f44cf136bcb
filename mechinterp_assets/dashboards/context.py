"""What all pages of a layer have in common besides the layer's tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechinterp_assets.dashboards.rendering import provenance_rows
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.provenance import Provenance


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
    """

    layer: int
    model: str
    provenance: Provenance
    texts: TokenTexts
    details: Mapping[str, str] = field(default_factory=dict)
    study_href: str = "../index.html"

    @property
    def values(self) -> dict[str, object]:
        """Template values that all pages share."""
        return {
            "study": self.provenance.study,
            "layer": self.layer,
            "provenance": provenance_rows(self.provenance, self.model, self.details),
        }


def shown_name(source: str) -> str:
    """Name of a model for a page that may be published: a folder's name, not its place."""
    return Path(source).name if Path(source).is_absolute() else source


def sae_details(sae: Mapping[str, object]) -> dict[str, str]:
    """Line about the SAE for the provenance block, from its row of attention_sae."""
    return {"SAE": f"{sae['architecture']}, {sae['d_sae']} features"}
