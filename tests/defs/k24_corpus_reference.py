"""K24's statistics of features over a corpus, written down again from the paper: token by token
over the stored text and activations, float64, without the code that makes the tables.

Section 3.3, Fig. 2: specificity, expected value, false negatives of a proxy. App. F: pass rate of
induction features. Section 3.3 and Fig. 11: how long a feature of local context stays on, what ends
it, how far back it reads. App. E.3, G, H, Fig. 12: share of the variance of a feature's
pre-activation by head and by source token above an activation. App. M: families of a head's top
features.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

Place = tuple[int, int]  # sequence, position


@dataclass(frozen=True)
class Text:
    """Sequences as token ids; document: of every token read, in the order they were read."""

    ids: dict[int, list[int]]
    document: dict[Place, int]
    strings: list[str]
    bos: int

    @classmethod
    def of_tables(cls, corpus: pl.DataFrame, strings: list[str], bos: int, n_tokens: int) -> "Text":
        """Not position 0 and not BOS; a BOS ends a document."""
        ids: dict[int, list[int]] = {}
        document: dict[Place, int] = {}
        rows = corpus.sort("sequence").select("sequence", "documents", "token_ids").iter_rows()
        for sequence, documents, token_ids in rows:
            if len(document) == n_tokens:
                break
            ids[sequence] = token_ids
            owner = iter(documents)
            now = next(owner)
            for position in range(1, len(token_ids)):
                if token_ids[position] == bos:
                    now = next(owner, now)
                elif len(document) < n_tokens:
                    document[sequence, position] = now
        return cls(ids, document, strings, bos)

    def token(self, place: Place) -> int:
        return self.ids[place[0]][place[1]]

    def window(self, place: Place, size: int) -> str:
        """The text of the last tokens up to a place, from the last BOS on."""
        sequence, position = place
        words: list[str] = []
        while position > 0 and len(words) < size and self.ids[sequence][position] != self.bos:
            words.append(self.strings[self.ids[sequence][position]])
            position -= 1
        return "".join(reversed(words))

    def by_document(self, terms: Sequence[tuple[Place, float, float]]) -> list[tuple[float, float]]:
        """(part, whole) summed over the terms (place, part, whole) of each document."""
        found: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for place, part, whole in terms:
            found[self.document[place]][0] += part
            found[self.document[place]][1] += whole
        return [(part, whole) for part, whole in found.values()]


def runs(text: Text, active: dict[Place, float]) -> list[tuple[int, Place, int | None]]:
    """Stretches of active tokens: length, last place, and the token read behind it, if there is."""
    found, length = [], 0
    for place in sorted(active):
        sequence, position = place
        length = length + 1 if (sequence, position - 1) in active else 1
        behind = (sequence, position + 1)
        if behind not in active:
            found.append((length, place, text.token(behind) if behind in text.document else None))
    return found


def due_by_induction(text: Text, token: int) -> Iterator[list[Place]]:
    """Per sequence with a token at least twice: the places before its occurrences.

    An occurrence right behind a BOS has no place before it at which features are read.
    """
    for sequence, ids in text.ids.items():
        before = [
            (sequence, position - 1)
            for position in range(1, len(ids))
            if ids[position] == token
            and (sequence, position) in text.document
            and (sequence, position - 1) in text.document
        ]
        if len(before) > 1:
            yield before


def strongest_source(text: Text, example: dict[str, Any]) -> int:
    """Position of the largest DFA among those of tokens that are read."""
    candidates = [
        source
        for source in range(1, example["position"] + 1)
        if (example["sequence"], source) in text.document
    ]
    return max(candidates, key=lambda source: example["dfa_by_source"][source])


def variance_shares(
    model: LanguageModel,
    sae: SparseAutoencoder,
    layer: int,
    feature: int,
    text: Text,
    places: list[Place],
    main_source: int | None,
) -> dict[int | str, float]:
    """cov(part, total) / var(total) over places by head, and of sources of one token."""
    config, w = model.config, sae.W_enc[:, feature].double().view(model.config.n_heads, -1)
    parts: dict[int | str, list[float]] = defaultdict(list)
    by_sequence: dict[int, list[int]] = defaultdict(list)
    for sequence, position in places:
        by_sequence[sequence].append(position)
    names = [f"blocks.{layer}.attn.hook_{name}" for name in ("pattern", "v")]
    for sequence, positions in by_sequence.items():
        ids = text.ids[sequence]
        with torch.no_grad():
            _, cache = model.raw.run_with_cache(
                torch.tensor([ids]), names_filter=lambda name: name in names
            )
        pattern, v = (cache[name][0].double() for name in names)
        group = config.n_heads // v.shape[1]
        for position in positions:
            sums: dict[int | str, float] = {}
            main = 0.0
            for head in range(config.n_heads):
                sums[head] = 0.0
                for source in range(position + 1):
                    value = v[source, head // group] @ w[head]
                    dfa = float(pattern[head, position, source] * value)
                    sums[head] += dfa
                    # The token itself is a class of its own, and so is BOS.
                    if 0 < source < position and ids[source] == main_source != text.bos:
                        main += dfa
            for name, value in sums.items():
                parts[name].append(value)
            parts["main_source_token"].append(main)
    total = sum(np.array(parts[head]) for head in range(config.n_heads))
    spread = total - total.mean()
    return {
        name: float(((np.array(of) - np.mean(of)) * spread).sum() / (spread**2).sum())
        for name, of in parts.items()
    }


def families_of(measures: pl.DataFrame) -> dict[int, set[str]]:
    """feature -> families of which it passes every required measure."""
    passed: dict[tuple[int, str], bool] = {}
    columns = ("feature", "family", "required", "meets_threshold")
    for feature, family, required, meets in measures.select(columns).iter_rows():
        if required:
            passed[feature, family] = passed.get((feature, family), True) and meets is True
    found: dict[int, set[str]] = defaultdict(set)
    for (feature, family), whole in passed.items():
        if whole:
            found[feature].add(family)
    return found


def top_features(attribution: pl.DataFrame, alive: set[int], head: int) -> list[int]:
    """The ten features that fired with the largest attribution to a head."""
    own = [
        (-share, feature)
        for feature, of, share in attribution.select("feature", "head", "attribution").iter_rows()
        if of == head and share is not None and feature in alive
    ]
    return [feature for _, feature in sorted(own)[:10]]


def shared(features: list[int], families: dict[int, set[str]]) -> Counter[str]:
    """How many of some features belong to each family."""
    return Counter(family for feature in features for family in families.get(feature, ()))
