"""Where each head attends in a text: examples for people to look at.

Belongs here: choosing, per head, a few destinations by the attention to their strongest source, and
keeping their rows of the pattern. Does not belong here: scores of patterns (files of scores/),
pages.

The strongest alone are alike: almost every head attends with probability 1 somewhere. So half of a
head's examples are the strongest, of different source tokens and documents, and half are spread
over all destinations by quantiles of that attention, which shows what the head does on most of
them. head_scores has means.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.corpora.token_documents import Separator, token_documents
from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.model.language_model import LanguageModel

EXAMPLES = 12
STRONGEST_SHARE = 0.1  # of the destinations, among which the strongest are chosen
FIRST_DESTINATION = 8  # before it there is little to choose from

EXAMPLES_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "rank": pl.Int32,
    "selection": pl.String,
    "attention_quantile": pl.Float64,
    "sequence": pl.Int64,
    "destination": pl.Int32,
    "source": pl.Int32,
    "attention": pl.Float32,
    "destination_token": pl.String,
    "source_token": pl.String,
    "attention_row": pl.List(pl.Float32),
}


@dataclass(frozen=True)
class _Chosen:
    """An example: its place among the n destinations, from the strongest on."""

    selection: str
    quantile: float
    sequence: int
    destination: int


class StrongestSources:
    """The strongest source of every destination, of every head.

    Sources are positions before the destination that hold no BOS, so neither position 0 nor the
    destination itself; destinations hold no BOS and are at least `first_destination`.

    Args:
        n_layers: layers.
        n_heads: heads per layer.
        is_bos: [sequence, position] True where a token is BOS; position 0 counts as one.
        first_destination: earliest destination.
    """

    def __init__(
        self, n_layers: int, n_heads: int, is_bos: Tensor, *, first_destination: int
    ) -> None:
        self._ordinary = ~is_bos
        self._ordinary[:, 0] = False
        self._first = first_destination
        shape = (n_layers, n_heads, *is_bos.shape)
        self.attention = np.full(shape, -1.0, dtype=np.float32)
        """[layer, head, sequence, destination] of the strongest pair; -1 where there is none."""
        self.source = np.zeros(shape, dtype=np.int32)
        """Its source, of equals the first."""
        self._seen = [0] * n_layers

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add the next batch of one layer's patterns [batch, head, destination, source]."""
        own = slice(self._seen[layer], self._seen[layer] + len(pattern))
        self._seen[layer] = own.stop
        ordinary = self._ordinary[own].to(pattern.device)
        position = torch.arange(pattern.shape[-1], device=pattern.device)
        allowed = ordinary[:, None, :] & ordinary[:, :, None]
        allowed &= (position < position[:, None]) & (position[:, None] >= self._first)
        best, place = pattern.float().masked_fill(~allowed[:, None], -1.0).max(dim=3)
        self.attention[layer, :, own] = best.transpose(0, 1).cpu().numpy()
        self.source[layer, :, own] = place.transpose(0, 1).cpu().numpy()


class _Rows:
    """Rows of the patterns at chosen destinations."""

    def __init__(self, n_layers: int, chosen: dict[tuple[int, int], list[_Chosen]]) -> None:
        self._chosen, self._seen = chosen, [0] * n_layers
        self.found: dict[tuple[int, int, int], Tensor] = {}
        """By layer, head and sequence."""

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add the next batch of one layer's patterns [batch, head, destination, source]."""
        start = self._seen[layer]
        self._seen[layer] += len(pattern)
        for head in range(pattern.shape[1]):
            for one in self._chosen[layer, head]:
                if start <= one.sequence < self._seen[layer]:
                    row = pattern[one.sequence - start, head, one.destination]
                    kept = row[: one.destination + 1].float().cpu().clone()
                    self.found[layer, head, one.sequence] = kept


def choose(
    attention: np.ndarray, source_token: np.ndarray, document: np.ndarray, top: int
) -> list[_Chosen]:
    """Examples of one head, none with the sequence of another.

    The first half (rounded up) are `strongest`: of the tenth of the destinations with the largest
    attention. The others are `spread`: one in each of as many ranges of equal numbers of
    destinations. Preferred are, in this order, a source token and document that no earlier example
    has, such a source token, such a document; then what comes first: the strongest, or the nearest
    to the middle of its range; where a range has only sequences that are taken, what is nearest to
    its middle. Fewer where sequences run out.

    Args:
        attention: [sequence, destination] to the strongest source; below 0 where there is none.
        source_token: [sequence, destination] id of the token at that source.
        document: [sequence, destination] of the destination.
        top: examples at most.
    """
    flat = attention.ravel()
    order = np.argsort(-flat, kind="stable")[: int((flat >= 0).sum())]
    n = len(order)
    sequence = order // attention.shape[1]
    token, text = source_token.ravel()[order], document.ravel()[order]
    free = np.ones(n, dtype=bool)
    new_token, new_text = free.copy(), free.copy()
    found: list[_Chosen] = []

    def pick(selection: str, low: int, high: int, middle: float) -> None:
        """The best of places low to high, or of all where no sequence of theirs is left."""
        nearest = np.argsort(abs(np.arange(n) - middle), kind="stable")
        nearest = nearest[free[nearest]]
        inside = (nearest >= low) & (nearest < high)
        places = nearest[inside] if inside.any() else nearest[:1]
        if not len(places):
            return
        merit = 2 * new_token[places] + new_text[places] + (new_token & new_text)[places]
        at = int(places[int(merit.argmax())])
        destination = int(order[at] % attention.shape[1])
        found.append(_Chosen(selection, (n - at - 0.5) / n, int(sequence[at]), destination))
        free[sequence == sequence[at]] = False
        new_token[token == token[at]] = False
        new_text[text == text[at]] = False

    strongest = (top + 1) // 2
    for _ in range(strongest):
        pick("strongest", 0, int(STRONGEST_SHARE * n), 0)
    ends = np.linspace(0, n, top - strongest + 1).round().astype(int)
    for low, high in pairwise(ends.tolist()):
        pick("spread", low, high, (low + high - 1) / 2)
    return found


def head_attention_examples(
    model: LanguageModel,
    sequences: pl.DataFrame,
    *,
    top: int = EXAMPLES,
    first_destination: int = FIRST_DESTINATION,
    batch_size: int = 8,
) -> pl.DataFrame:
    """Examples of every head's attention in some sequences (`choose`): raw weights' patterns.

    Rows of the table head_attention_examples (without study). Two passes over the sequences.

    Args:
        model: model.
        sequences: rows of tokenized_corpus: sequence, documents, token_ids, of equal length.
        top: examples per head, at most one per sequence.
        first_destination: earliest destination that an example may have.
        batch_size: sequences per forward pass.

    Raises:
        ValueError: there is no sequence, or they are too short for a destination.
    """
    if sequences.is_empty():
        raise ValueError("no sequence to look at; pass rows of tokenized_corpus")
    token_ids = torch.tensor(sequences["token_ids"].to_list())
    if token_ids.shape[1] <= first_destination:
        raise ValueError(
            f"sequences of {token_ids.shape[1]} tokens have no destination from "
            f"{first_destination} on; pass longer ones"
        )
    config, bos = model.config, model.bos_token_id
    best = StrongestSources(
        config.n_layers, config.n_heads, token_ids == bos, first_destination=first_destination
    )
    accumulate_patterns(model, token_ids, [best], batch_size=batch_size)
    ids = token_ids.numpy()
    document = token_documents(sequences, Separator(bos, model.bos.prepended))
    chosen = {
        (layer, head): choose(
            best.attention[layer, head],
            np.take_along_axis(ids, best.source[layer, head], axis=1),
            document,
            top,
        )
        for layer in range(config.n_layers)
        for head in range(config.n_heads)
    }
    rows = _Rows(config.n_layers, chosen)
    accumulate_patterns(model, token_ids, [rows], batch_size=batch_size)
    numbers, texts = sequences["sequence"].to_list(), model.token_strings()
    found = []
    for (layer, head), examples in chosen.items():
        for one in examples:
            source = int(best.source[layer, head, one.sequence, one.destination])
            row = rows.found[layer, head, one.sequence]
            found.append(
                {
                    "layer": layer,
                    "head": head,
                    "selection": one.selection,
                    "attention_quantile": one.quantile,
                    "sequence": numbers[one.sequence],
                    "destination": one.destination,
                    "source": source,
                    "attention": float(row[source]),
                    "destination_token": texts[int(ids[one.sequence, one.destination])],
                    "source_token": texts[int(ids[one.sequence, source])],
                    "attention_row": row.tolist(),
                }
            )
    schema = {name: kind for name, kind in EXAMPLES_SCHEMA.items() if name != "rank"}
    frame = pl.DataFrame(found, schema=schema).sort(
        "layer", "head", "attention_quantile", descending=[False, False, True]
    )
    rank = pl.int_range(pl.len(), dtype=pl.Int32).over("layer", "head")
    return frame.with_columns(rank=rank).select(*EXAMPLES_SCHEMA)
