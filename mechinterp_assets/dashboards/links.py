"""Names of heads and features in texts and pictures as links: L2H3 and L2F7.

Belongs here: finding the names and putting links around them, on pages in a folder of the root. A
name has digits alone beside its letters, and the text around it is escaped first.
"""

import html
import re
from collections.abc import Collection

from markupsafe import Markup, escape

from mechinterp_assets.dashboards.places import feature_href, head_href

_NAME = re.compile(r"\bL(\d{1,4})([HF])(\d{1,9})\b")
# A label of a picture: the element's start with its hover text, and what is drawn.
_LABEL = re.compile(r"(<text[^>]*>(?:<title>[^<]*</title>)?)([^<]*)")


class Links:
    """Links to a study's heads and features.

    Args:
        study: whose they are.
        layers: layers with pages of their features; others have no links.
    """

    def __init__(self, study: str, layers: Collection[int]) -> None:
        self._study, self._layers = study, frozenset(layers)

    def text(self, text: object) -> Markup:
        """The text, escaped, with links."""
        return Markup(self._linked(str(escape(text))))

    def picture(self, picture: Markup) -> Markup:
        """An SVG with links in its labels."""
        return Markup(_LABEL.sub(lambda match: match[1] + self._linked(match[2]), str(picture)))

    def feature(self, layer: int, feature: int) -> str:
        """Address of a feature's page; empty where its layer has none."""
        return feature_href(self._study, layer, feature) if layer in self._layers else ""

    # ---- private ---------------------------------------------------------------------------------

    def _linked(self, escaped: str) -> str:
        return _NAME.sub(self._link, escaped)

    def _link(self, match: re.Match[str]) -> str:
        layer, number = int(match[1]), int(match[3])
        address = (
            head_href(self._study, layer, number)
            if match[2] == "H"
            else self.feature(layer, number)
        )
        return f'<a href="{html.escape(address)}">{match[0]}</a>' if address else match[0]
