"""Attention examples as text: the destination boxed, sources shaded by their attention.

Belongs here: which tokens of a sequence are shown and how strongly they are marked.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.examples import ACTIVATION_LEVELS, marked_text
from mechinterp_assets.dashboards.tokens import TokenTexts

MARKED = 0.02  # sources with less attention stay unmarked
FAR = 0.1  # sources outside the window are shown from this attention on
FAR_SOURCES, FAR_CONTEXT = 3, 3
BEFORE, AFTER = 20, 4  # tokens around the destination
NAMED = 2  # sources named in words


def attention_text(
    token_ids: NDArray[np.integer],
    destination: int,
    attention: Sequence[float],
    texts: TokenTexts,
) -> Markup:
    """A window around the destination, with strong sources outside it in front.

    Args:
        token_ids: [length] the whole sequence.
        destination: position that attends.
        attention: [destination + 1] its row of the pattern; full attention has the strongest shade.
        texts: of the vocabulary.
    """
    marks = {
        source: (f"a{math.ceil(ACTIVATION_LEVELS * min(1.0, weight))}", number(weight))
        for source, weight in enumerate(attention)
        if weight >= MARKED
    }
    start = max(0, destination - BEFORE)
    spans = [(start, min(len(token_ids), destination + AFTER + 1))]
    far = [s for s in np.argsort(-np.asarray(attention), kind="stable").tolist() if s < start]
    spans += [
        (max(0, s - FAR_CONTEXT), s + FAR_CONTEXT + 1)
        for s in far[:FAR_SOURCES]
        if attention[s] >= FAR
    ]
    name, title = marks.get(destination, ("", ""))
    marks[destination] = (f"{name} d".strip(), title)
    return marked_text(sorted(spans), marks, token_ids, texts)


def attention_in_words(
    token_ids: NDArray[np.integer],
    destination: int,
    attention: Sequence[float],
    texts: TokenTexts,
) -> Markup:
    """The destination and its strongest sources, one at least: token, distance, attention."""

    def label(position: int) -> str:
        return f'<bdi class="token">{escape(texts.labels[int(token_ids[position])])}</bdi>'

    parts: list[str] = []
    for source in np.argsort(-np.asarray(attention), kind="stable").tolist()[:NAMED]:
        if parts and attention[source] < MARKED:
            break
        where = "itself" if source == destination else f"{destination - source} back"
        where = "position 0" if source == 0 else where
        parts.append(f"{label(source)} {where} ({number(attention[source])})")
    return Markup(f"{label(destination)} attends to {', '.join(parts)}")
