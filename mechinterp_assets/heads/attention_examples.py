"""Where each head attends most strongly in a text: examples for people to look at.

Belongs here: choosing, per head, a few destinations with the strongest attention and keeping their
rows of the pattern. Does not belong here: scores of patterns (files of scores/), pages.

Examples of the largest attention show a head at its most decided, not on average: head_scores says
what it does over all tokens.
"""

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.model.language_model import LanguageModel

EXAMPLES = 6
FIRST_DESTINATION = 8  # before it there is little to choose from

EXAMPLES_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "rank": pl.Int32,
    "sequence": pl.Int64,
    "destination": pl.Int32,
    "source": pl.Int32,
    "attention": pl.Float32,
    "destination_token": pl.String,
    "source_token": pl.String,
    "attention_row": pl.List(pl.Float32),
}


class StrongestAttention:
    """Per head and sequence, the pair (destination, source) with the largest attention.

    Sources are positions before the destination that hold no BOS, so neither position 0 nor the
    destination itself; destinations hold no BOS and are at least `first_destination`.

    Args:
        n_layers: layers.
        n_heads: heads per layer.
        is_bos: [sequence, position] True where a token is BOS; position 0 counts as one.
        first_destination: earliest destination.
        top: examples kept per head, each of another sequence.
    """

    def __init__(
        self, n_layers: int, n_heads: int, is_bos: Tensor, *, first_destination: int, top: int
    ) -> None:
        self._ordinary = ~is_bos
        self._ordinary[:, 0] = False
        self._first, self._top = first_destination, top
        self._seen = [0] * n_layers
        self._kept: list[list[list[tuple[float, int, int, int, Tensor]]]] = [
            [[] for _ in range(n_heads)] for _ in range(n_layers)
        ]

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add the next batch of one layer's patterns [batch, head, destination, source]."""
        start = self._seen[layer]
        self._seen[layer] += len(pattern)
        ordinary = self._ordinary[start : self._seen[layer]].to(pattern.device)
        length = pattern.shape[-1]
        position = torch.arange(length, device=pattern.device)
        allowed = ordinary[:, None, :] & ordinary[:, :, None]
        allowed &= (position < position[:, None]) & (position[:, None] >= self._first)
        values = pattern.float().masked_fill(~allowed[:, None], -1.0).flatten(2)
        best, place = values.max(dim=2)
        for i, sequence in enumerate(range(start, self._seen[layer])):
            for head, kept in enumerate(self._kept[layer]):
                value = float(best[i, head])
                if value < 0 or (len(kept) == self._top and value <= kept[-1][0]):
                    continue
                destination, source = divmod(int(place[i, head]), length)
                row = pattern[i, head, destination, : destination + 1].float().cpu().clone()
                kept.append((value, sequence, destination, source, row))
                kept.sort(key=lambda example: (-example[0], example[1]))
                del kept[self._top :]

    def frame(self, sequences: list[int], token_ids: Tensor, texts: list[str]) -> pl.DataFrame:
        """Rows of the table head_attention_examples (without study).

        Args:
            sequences: number of each sequence in the corpus.
            token_ids: [sequence, position].
            texts: of the vocabulary.
        """
        rows = [
            {
                "layer": layer,
                "head": head,
                "rank": rank,
                "sequence": sequences[sequence],
                "destination": destination,
                "source": source,
                "attention": value,
                "destination_token": texts[int(token_ids[sequence, destination])],
                "source_token": texts[int(token_ids[sequence, source])],
                "attention_row": row.numpy().astype(np.float32).tolist(),
            }
            for layer, heads in enumerate(self._kept)
            for head, kept in enumerate(heads)
            for rank, (value, sequence, destination, source, row) in enumerate(kept)
        ]
        return pl.DataFrame(rows, schema=EXAMPLES_SCHEMA)


def head_attention_examples(
    model: LanguageModel,
    sequences: pl.DataFrame,
    *,
    top: int = EXAMPLES,
    first_destination: int = FIRST_DESTINATION,
    batch_size: int = 8,
) -> pl.DataFrame:
    """The strongest attention of every head in some sequences: raw weights' patterns.

    Args:
        model: model.
        sequences: rows of tokenized_corpus: sequence, token_ids, of equal length.
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
    found = StrongestAttention(
        model.config.n_layers,
        model.config.n_heads,
        token_ids == model.bos_token_id,
        first_destination=first_destination,
        top=top,
    )
    accumulate_patterns(model, token_ids, [found], batch_size=batch_size)
    return found.frame(sequences["sequence"].to_list(), token_ids, model.token_strings())
