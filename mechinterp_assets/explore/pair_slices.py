"""The attention score of one pair of positions: by singular vector of Omega, and by writer.

Belongs here: reading single pairs off a row of scores. Does not belong here: the terms themselves
(circuits/score_model.py, circuits/score_terms.py) and the choice of slices (circuits/slices.py).

Slices are those of Omega = W_Q W_K^T of raw weights with the norms' gains folded in, as ACC has
them; in models with absolute positions tables attention_slices and trace_edges number the
slices of processed weights with biases, so that numbers need not agree.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.score_model import ScoreModel, ScoreRun
from mechinterp_assets.circuits.score_terms import (
    KINDS,
    HeadReader,
    RowTerms,
    ScoreWriters,
)
from mechinterp_assets.circuits.slices import SIDES, select_slices

SLICES_SCHEMA = pl.Schema(
    {
        "slice": pl.Int32(),
        "singular_value": pl.Float64(),
        "term": pl.Float64(),
        "selected": pl.Boolean(),
    }
)
WRITERS_SCHEMA = pl.Schema(
    {
        "side": pl.String(),
        "writer": pl.String(),
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "read_position": pl.Int32(),
        "value": pl.Float64(),
    }
)


@dataclass(frozen=True)
class PairSlices:
    """Score and attention of a pair; score is before a cap and before the softmax.

    slices: slice, singular_value, term, selected (S of FC24, signed: select_slices); terms
    sum to score.
    """

    score: float
    attention: float
    slices: pl.DataFrame
    _terms: RowTerms
    _writers: ScoreWriters
    _source: int

    def writers(self, which: list[int] | None = None) -> pl.DataFrame:
        """Who wrote what these slices (None: the selected ones) carry, on either side: side
        (destination, source), writer, layer, head, read_position (the token that a head had read),
        value. Values of a side sum to the terms of these slices. Writer "offset": biases of queries
        and keys.
        """
        chosen = (
            self.slices.filter(pl.col("selected"))["slice"].to_list() if which is None else which
        )
        frames = [
            self._of_side(side, torch.tensor(sorted(set(chosen)), dtype=torch.int64))
            for side in range(len(SIDES))
        ]
        return pl.concat(frames).sort(pl.col("value").abs(), descending=True, maintain_order=True)

    def _of_side(self, side: int, chosen: Tensor) -> pl.DataFrame:
        terms, s = self._terms.sides[side], self._source
        if terms.key is not None:
            value = terms.value[:, chosen] @ terms.key[chosen, s]
        else:
            value = terms.value[:, chosen].sum(-1)
        writer, token = (part.cpu().numpy() for part in (terms.writer, terms.token))
        kind = np.array(KINDS)[self._writers.kind[writer]]
        return pl.DataFrame(
            {
                "side": [SIDES[side]] * len(writer),
                "writer": kind,
                "layer": self._writers.layer[writer],
                "head": self._writers.head[writer],
                "read_position": token,
                "value": value.cpu().numpy(),
            },
            schema_overrides=WRITERS_SCHEMA,
        ).with_columns(
            pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name)
            for name in ("layer", "head", "read_position")
        )


class ScoredPrompt:
    """A prompt token_ids [position] in the form that scores are split in; run when first asked."""

    def __init__(self, model: ScoreModel, token_ids: Tensor) -> None:
        self._model, self._ids = model, token_ids[None]
        self._readers: dict[tuple[int, int], HeadReader] = {}

    @cached_property
    def run(self) -> ScoreRun:
        """The prompt's forward pass; it takes as long as a few others."""
        return self._model.run(self._ids, self._model.model.config.n_layers)

    def pair(self, layer: int, head: int, destination: int, source: int) -> PairSlices:
        """One pair. Raises CircuitError where the model's scores have no such form."""
        if (layer, head) not in self._readers:
            self._readers[layer, head] = HeadReader(self._model, layer, head)
        run, reader = self.run, self._readers[layer, head]
        row = reader.row(run, 0, destination, only_source=source)
        first = row.sides[0]
        assert first.key is not None
        terms = first.value.sum(0) * first.key[:, source]
        frame = pl.DataFrame(
            {
                "slice": range(len(terms)),
                "singular_value": reader.sigma.tolist(),
                "term": terms.tolist(),
                "selected": select_slices(terms[None])[0].tolist(),
            },
            schema=SLICES_SCHEMA,
        ).sort(pl.col("term").abs(), descending=True, maintain_order=True)
        return PairSlices(
            float(row.row[source]),
            float(run.pattern[layer][0, head, destination, source]),
            frame,
            row,
            ScoreWriters.before(run, layer),
            source,
        )
