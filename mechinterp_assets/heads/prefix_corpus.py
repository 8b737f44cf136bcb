"""Induction by prefix length on real text: which pairs are induction cases, and who attends there.

Belongs here: finding the cases of tokenized text by the length of their match, attention to them
over a corpus, and the cases a head attends to. Does not belong here: random sequences
(prefix_induction.py), edits of cases (prefix_intervention.py).

A pair (destination i, source s) with 1 <= s < i is an induction case where the token at s - 1 is
the token at i: what followed it before stands at s. Its prefix length is the number of tokens that
match, going back from i and from s - 1 together, capped at the longest. Every other pair, that of a
token with itself included, has prefix length 0.

BOS takes no part, by position and by id: pairs with BOS at either end do not count, and BOS matches
nothing. A match that runs back into a BOS on both sides is left out, since a model sees one more
token match there than is counted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.corpora.token_documents import numbered_documents
from mechinterp_assets.heads.datasets import DatasetError, check_first_token
from mechinterp_assets.heads.pattern_pass import accumulate_patterns
from mechinterp_assets.heads.prefix_induction import LONGEST_PREFIX
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.statistics.bootstrap import cluster_bootstrap
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

ATTENDS = 0.3  # A above which a head attends to a source (K24 section 4.2)
_PATTERN_ELEMENTS = 2**23  # of one layer in a batch

PREFIX_CORPUS_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "prefix_length": pl.Int32,
    "n": pl.Int64,
    "n_documents": pl.Int64,
    "mean_attention": pl.Float64,
    "attention_ci_low": pl.Float64,
    "attention_ci_high": pl.Float64,
    "n_attended": pl.Int64,
    "attended_rate": pl.Float64,
    "attended_rate_ci_low": pl.Float64,
    "attended_rate_ci_high": pl.Float64,
    "attended_share": pl.Float64,
    "attended_share_ci_low": pl.Float64,
    "attended_share_ci_high": pl.Float64,
    "attention_share": pl.Float64,
    "attention_share_ci_low": pl.Float64,
    "attention_share_ci_high": pl.Float64,
    "n_next": pl.Int64,
    "source_is_next_rate": pl.Float64,
    "dataset": pl.String,
}


@dataclass(frozen=True)
class AttendedCases:
    """Induction cases of prefix length >= 2 that a head attends to, one entry per head and case.

    layer, head, sequence, destination, source, [entry] int64; attention [entry] float64, above
    ATTENDS. In the order of layer, head, sequence, destination, source.
    """

    layer: NDArray[np.int64]
    head: NDArray[np.int64]
    sequence: NDArray[np.int64]
    destination: NDArray[np.int64]
    source: NDArray[np.int64]
    attention: NDArray[np.float64]


@dataclass(frozen=True)
class PrefixCorpus:
    """The frame prefix_induction_corpus, and the cases that heads attend to."""

    frame: pl.DataFrame
    attended: AttendedCases


def prefix_lengths(token_ids: Tensor, bos_token_id: int, longest: int = LONGEST_PREFIX) -> Tensor:
    """Prefix length of every pair [sequence, destination, source] int8, -1 where it does not count.

    token_ids [sequence, position], BOS at position 0. Memory: a few bytes per pair.
    """
    ordinary = token_ids != bos_token_id
    ordinary[:, 0] = False
    both = ordinary[:, :, None] & ordinary[:, None, :]
    neither = ~ordinary[:, :, None] & ~ordinary[:, None, :]
    # Over pairs (i, j) of tokens that may match; the case's source is j + 1.
    same = (token_ids[:, :, None] == token_ids[:, None, :]) & both
    matching, matched = same, same.to(torch.int8)
    into_bos = torch.zeros_like(same)
    for back in range(1, longest):
        earlier, bos = torch.zeros_like(same), torch.zeros_like(same)
        earlier[:, back:, back:] = same[:, :-back, :-back]
        bos[:, back:, back:] = neither[:, :-back, :-back]
        into_bos |= matching & bos
        matching = matching & earlier
        matched += matching
    found = torch.zeros_like(matched)
    found[:, :, 1:] = matched[:, :, :-1].masked_fill(into_bos[:, :, :-1], -1)
    size = token_ids.shape[1]
    found[:, torch.arange(size), torch.arange(size)] = 0
    causal = torch.ones(size, size, dtype=torch.bool, device=token_ids.device).tril()
    return found.masked_fill(~(both & causal), -1)


def prefix_corpus(
    model: LanguageModel,
    token_ids: Tensor,
    *,
    documents: NDArray[np.int64] | None = None,
    text_name: str = "text",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> PrefixCorpus:
    """Attention of every head to the induction sources of a text, by prefix length.

    token_ids [sequence, position], each sequence with BOS first. documents [sequence, position]:
    document of each token (corpora/token_documents.py); None: every sequence is one. Raw weights.
    One row per head and prefix length 0 .. LONGEST_PREFIX; shares over a head's rows sum to 1.
    Intervals: 95%, over documents, whose pairs are not independent; a pair is of its destination's
    document. Counts: clustered_shares.py, sums of attention: percentile bootstrap. Memory: one
    layer's patterns of one batch at a time, and sums of every document.
    Raises DatasetError for text that does not fit.
    """
    _check_text(model, token_ids)
    n_sequences, length = token_ids.shape
    batch = _PATTERN_ELEMENTS // (model.config.n_heads * length**2)
    batch = max(1, min(64, batch))
    statistic = _PrefixAttention(model, token_ids, documents, batch)
    accumulate_patterns(model, token_ids, [statistic], batch_size=batch)
    pairs, sums = statistic.pairs, statistic.attention
    counts = np.broadcast_to(pairs[:, None, None, :], sums.shape)
    hits = statistic.attended_pairs
    everywhere = np.broadcast_to(hits.sum(axis=3, keepdims=True), hits.shape)
    whole = np.broadcast_to(sums.sum(axis=3, keepdims=True), sums.shape)
    intervals = {
        "attention": cluster_bootstrap(sums, counts, n_bootstrap=n_bootstrap, seed=seed),
        "attention_share": cluster_bootstrap(sums, whole, n_bootstrap=n_bootstrap, seed=seed),
        "attended_rate": _share_interval(hits, counts),
        "attended_share": _share_interval(hits, everywhere),
    }
    total, attended = sums.sum(axis=0), hits.sum(axis=0)
    n_pairs, n_next = pairs.sum(axis=0), statistic.next_pairs
    layer, head, prefix = np.indices(total.shape)

    def per_length(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.broadcast_to(values, total.shape).ravel())

    with np.errstate(invalid="ignore", divide="ignore"):
        frame = pl.DataFrame(
            {
                "layer": layer.ravel(),
                "head": head.ravel(),
                "prefix_length": prefix.ravel(),
                "n": per_length(n_pairs.astype(np.int64)),
                "n_documents": per_length((pairs > 0).sum(axis=0)),
                "mean_attention": (total / n_pairs).ravel(),
                "n_attended": attended.astype(np.int64).ravel(),
                "attended_rate": (attended / n_pairs).ravel(),
                "attended_share": (attended / attended.sum(axis=2, keepdims=True)).ravel(),
                "attention_share": (total / total.sum(axis=2, keepdims=True)).ravel(),
                "n_next": per_length(n_next.astype(np.int64)),
                "source_is_next_rate": per_length(statistic.next_hits / n_next),
                "dataset": [f"{text_name} ({n_sequences} x {length}) {model.sequence_start}"]
                * prefix.size,
                **{
                    f"{name}_ci_{end}": bound.ravel()
                    for name, bounds in intervals.items()
                    for end, bound in zip(("low", "high"), bounds, strict=True)
                },
            },
            schema_overrides=PREFIX_CORPUS_SCHEMA,
        ).select(*PREFIX_CORPUS_SCHEMA)
        frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None))
    return PrefixCorpus(frame, statistic.attended())


# ---- private -------------------------------------------------------------------------------------


def _share_interval(
    part: NDArray[np.float64], whole: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval over documents of sum part / sum whole, both [document, ...]."""
    documents, *shape = part.shape
    size = int(np.prod(shape))
    shares = ClusteredShares.of_clusters(
        np.tile(np.arange(size), documents), size, part.ravel(), whole.ravel()
    )
    low, high = shares.interval()
    return low.reshape(shape), high.reshape(shape)


class _PrefixAttention:
    """Sums of attention by document and prefix length; batches come in the order of the text."""

    def __init__(
        self,
        model: LanguageModel,
        token_ids: Tensor,
        documents: NDArray[np.int64] | None,
        batch_size: int,
    ) -> None:
        layers, heads, lengths = model.config.n_layers, model.config.n_heads, LONGEST_PREFIX + 1
        n_sequences, length = token_ids.shape
        number, n = numbered_documents(documents, (n_sequences, length))
        self._documents = torch.from_numpy(number)
        self._here = np.zeros(0, dtype=np.int64)
        self._local = torch.zeros(0, dtype=torch.int64)
        self._token_ids, self._bos, self._size = token_ids, model.bos_token_id, batch_size
        self._first_layer_seen = -batch_size
        self._prefix = self._membership = torch.zeros(0)
        self.pairs = np.zeros((n, lengths))
        self.attention = np.zeros((n, layers, heads, lengths))
        self.attended_pairs = np.zeros((n, layers, heads, lengths))
        self.next_pairs = np.zeros(lengths)
        self.next_hits = np.zeros(lengths)
        self._cases: list[tuple[int, Tensor, Tensor]] = []

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add a batch of one layer's patterns [batch, head, destination, source]."""
        if layer == 0:
            self._start_batch(pattern.device)
        attention = pattern.float()
        attends = attention > ATTENDS
        self.attention[self._here, layer] += self._by_document(attention)
        self.attended_pairs[self._here, layer] += self._by_document(attends.float())
        long = (attends & (self._prefix >= 2)[:, None]).flatten(2)
        place = long.nonzero()
        place[:, 0] += self._first_layer_seen
        self._cases.append((layer, place.cpu(), attention.flatten(2)[long].double().cpu()))

    def _by_document(self, values: Tensor) -> NDArray[np.float64]:
        """Sums of values [batch, head, destination, source]: [document here, head, length]."""
        of_destination = torch.bmm(values.transpose(1, 2).flatten(0, 1), self._membership).double()
        summed = of_destination.new_zeros(len(self._here), *of_destination.shape[1:])
        found: NDArray[np.float64] = summed.index_add_(0, self._local, of_destination).cpu().numpy()
        return found

    def attended(self) -> AttendedCases:
        """The cases of prefix length >= 2 that some head attends to."""
        layer = np.concatenate([np.full(len(place), at) for at, place, _ in self._cases])
        place = np.concatenate([place.numpy() for _, place, _ in self._cases])
        attention = np.concatenate([values.numpy() for _, _, values in self._cases])
        sequence, head, pair = place.T
        destination, source = np.divmod(pair, self._token_ids.shape[1])
        order = np.lexsort((source, destination, sequence, head, layer))

        def column(values: NDArray[Any]) -> NDArray[np.int64]:
            return np.asarray(values[order], dtype=np.int64)

        return AttendedCases(
            layer=column(layer),
            head=column(head),
            sequence=column(sequence),
            destination=column(destination),
            source=column(source),
            attention=attention[order],
        )

    def _start_batch(self, device: torch.device) -> None:
        """Prefix lengths of the batch, and what needs no pattern."""
        self._first_layer_seen += self._size
        start = self._first_layer_seen
        ids = self._token_ids[start : start + self._size].to(device)
        self._prefix = prefix_lengths(ids, self._bos)
        lengths = torch.arange(LONGEST_PREFIX + 1, device=device, dtype=torch.int8)
        self._membership = (self._prefix.flatten(0, 1)[..., None] == lengths).float()
        documents = self._documents[start : start + len(ids)].flatten()
        self._here, number = np.unique(documents.numpy(), return_inverse=True)
        local = torch.from_numpy(number)
        self._local = local.to(device)
        counts = self._membership.sum(dim=1).double().cpu()
        summed = counts.new_zeros(len(self._here), counts.shape[1]).index_add_(0, local, counts)
        self.pairs[self._here] += summed.numpy()
        following = torch.full_like(ids, self._bos)
        following[:, :-1] = ids[:, 1:]
        known = (self._prefix >= 0) & (following != self._bos)[:, :, None]
        hit = known & (ids[:, None, :] == following[:, :, None])
        for pairs, total in ((known, self.next_pairs), (hit, self.next_hits)):
            counted = torch.bincount(self._prefix[pairs].long(), minlength=len(total))
            total += counted.cpu().numpy()


def _check_text(model: LanguageModel, token_ids: Tensor) -> None:
    if token_ids.ndim != 2 or not len(token_ids):
        raise DatasetError(
            f"text has shape {tuple(token_ids.shape)}; give token ids [sequence, position] with at "
            "least one sequence"
        )
    if token_ids.shape[1] > model.config.n_ctx:
        raise DatasetError(
            f"sequences of {token_ids.shape[1]} tokens do not fit the context of {model.source} "
            f"({model.config.n_ctx}); give shorter ones"
        )
    check_first_token(model, token_ids)
