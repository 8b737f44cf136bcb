"""A stretch of text with a weight on some tokens, for a notebook and as plain text.

Belongs here: how tokens with activations or attention look outside the dashboards. Token text is
anything that stands in a corpus: `dashboards/tokens.py` makes it visible and harmless.
"""

from collections.abc import Sequence
from html import escape

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.tokens import running_label, running_text

_WEIGHT = "217,119,6"  # as in the dashboards: activation or attention
_MARK = "border:1.5px solid currentColor;border-radius:3px"


def marked_html(
    tokens: Sequence[str], weights: Sequence[float], largest: float, marked: int | None = None
) -> str:
    """HTML in one line: the larger a weight, the stronger its token's colour.

    Args:
        tokens: texts of the tokens.
        weights: of each token; nothing is drawn up to 0.
        largest: weight with the strongest colour.
        marked: index of the token with a frame around it.
    """
    parts = []
    for i, (token, weight) in enumerate(zip(tokens, weights, strict=True)):
        space, text = running_text(token)
        style = ""
        if weight > 0 and largest > 0:
            style = f"background:rgba({_WEIGHT},{min(1.0, weight / largest) * 0.65:.2f})"
        if i == marked:
            style = f"{style};{_MARK}" if style else _MARK
        if style:
            title = f" title='{escape(number(weight))}'" if weight else ""
            text = f"<span style='{style}'{title}>{text}</span>"
        parts.append(space + text)
    return "".join(parts)


def marked_text(tokens: Sequence[str], weights: Sequence[float], marked: int | None = None) -> str:
    """Plain text in one line: `{token|weight}` where a weight is positive, `**` around the marked.

    Invisible characters are drawn, so that no token can break the line or hide what follows.
    """
    parts = []
    for i, (token, weight) in enumerate(zip(tokens, weights, strict=True)):
        space, text = running_label(token)
        if weight > 0:
            text = f"{{{text}|{number(weight)}}}"
        if i == marked:
            text = f"**{text}**"
        parts.append(space + text)
    return "".join(parts).strip()
