"""Example texts: tokens in running text, coloured by activation and by attribution of the source.

Belongs here: which tokens of a sequence are shown and how they are marked. Colours: style.css, by
a1..a9 activation, p1..p5 and n1..n5 positive and negative DFA by source, d the destination.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mechinterp_assets.dashboards.charts import number, signed
from mechinterp_assets.dashboards.tokens import TokenTexts

ACTIVATION_LEVELS = 9
DFA_LEVELS = 5
MARKED_SHARE = 0.08  # sources below this share of the largest |DFA| stay unmarked
FAR_SHARE = 0.25  # sources outside the window are shown from this share on
FAR_SOURCES = 3
FAR_CONTEXT = 2


def strong_sources(dfa: NDArray[np.floating]) -> list[tuple[int, float]]:
    """(position, attribution) of sources with a marked share of the largest |DFA|, in its order."""
    size = np.abs(dfa)
    marked = np.flatnonzero(
        size >= max(MARKED_SHARE * float(size.max()), np.finfo(size.dtype).tiny)
    )
    marked = marked[np.argsort(-size[marked], kind="stable")]
    return list(zip(marked.tolist(), dfa[marked].tolist(), strict=True))


def example_text(
    token_ids: NDArray[np.integer],
    position: int,
    window_start: int,
    activations: Sequence[float],
    sources: Sequence[tuple[int, float]],
    maximum: float,
    texts: TokenTexts,
) -> Markup:
    """A window around an example, with strong sources outside it in front.

    Args:
        token_ids: [length] the whole sequence.
        position: destination: where the feature is active.
        window_start: position of the first token of the window.
        activations: of the feature over the window.
        sources: of `strong_sources`; empty without attribution.
        maximum: activation drawn in the strongest colour.
        texts: of the vocabulary.
    """
    marks: dict[int, tuple[str, str]] = {}
    for i, activation in enumerate(activations, window_start):
        if activation > 0:
            level = math.ceil(ACTIVATION_LEVELS * min(1.0, activation / maximum))
            marks[i] = (f"a{level}", number(activation))
    spans = [(window_start, window_start + len(activations))]
    largest = abs(sources[0][1]) if sources else 0.0
    far = 0
    for source, value in sources:
        level = math.ceil(DFA_LEVELS * abs(value) / largest)
        name = f"{'p' if value > 0 else 'n'}{level}"
        title = f"DFA {signed(value)}"
        if source in marks:
            name, title = f"{marks[source][0]} {name}", f"{marks[source][1]}, {title}"
        marks[source] = (name, title)
        if source < window_start and abs(value) >= FAR_SHARE * largest and far < FAR_SOURCES:
            spans.append((max(0, source - FAR_CONTEXT), source + FAR_CONTEXT + 1))
            far += 1
    name, title = marks.get(position, ("", ""))
    marks[position] = (f"{name} d".strip(), title)
    return marked_text(sorted(spans), marks, token_ids, texts)


def sources_in_words(
    token_ids: NDArray[np.integer],
    sources: Sequence[tuple[int, float]],
    position: int,
    texts: TokenTexts,
    n: int = 2,
) -> Markup:
    """The strongest sources in words: token, distance to the destination, attribution."""
    parts = []
    for source, value in sources[:n]:
        where = f"{position - source} back" if source < position else "itself"
        label = escape(texts.labels[int(token_ids[source])])
        parts.append(f'<bdi class="token">{label}</bdi> {where} ({signed(value)})')
    return Markup(", ".join(parts))


def marked_text(
    spans: list[tuple[int, int]],
    marks: dict[int, tuple[str, str]],
    token_ids: NDArray[np.integer],
    texts: TokenTexts,
) -> Markup:
    """Ascending, possibly overlapping spans of a text, an ellipsis where tokens are left out.

    Args:
        spans: (first position, one past the last).
        marks: position -> (CSS classes, hover text after the position, may be empty).
        token_ids: [length] the whole sequence.
        texts: of the vocabulary.
    """
    parts = []
    at = 0
    running = texts.running
    for start, end in spans:
        if start > at:
            parts.append("<u> … </u>" if at else "<u>… </u>")
        first = max(start, at)
        for i, token in enumerate(token_ids[first:end].tolist(), first):
            space, text = running[token]
            if i in marks:
                name, title = marks[i]
                hover = f"{i}: {title}" if title else str(i)
                quoted = f'"{name}"' if " " in name else name
                parts.append(f'{space}<b class={quoted} title="{hover}">{text}</b>')
            else:
                parts.append(space + text)
        at = max(at, end)
    if at < len(token_ids):
        parts.append("<u> …</u>")
    return Markup("".join(parts))
