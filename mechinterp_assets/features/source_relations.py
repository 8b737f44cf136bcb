"""What a feature's strongest source has to do with its current token and with what it promotes.

Belongs here: measures over the top examples' direct feature attribution: duplicate token, name
mover, successor and suppression features (K24 section 3.3 and its appendices find them by hand; the
rules here are heuristics of this project, named as such in the table's comments).

The strongest source of an example is the position with the largest DFA, summed over heads, among
positions 1 .. D that hold no BOS; attention to BOS is mostly the sink. null_value is what a source
drawn uniformly from the same positions would give.
"""

import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.measures import Measured
from mechinterp_assets.features.successors import successor_classes
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

LOOKS_LIKE_A_NAME = re.compile(r" ?[A-Z][a-z]+")


@dataclass(frozen=True)
class SourceExamples:
    """Top examples of the features of a layer with their DFA by source.

    Attributes:
        features: [feature] int64, features wanted, ascending.
        group: [example] index into `features`, ascending.
        dfa: [example, position] float64, 0 beyond the destination.
        candidate: [example, position] bool, sources looked at: 1 .. D without BOS.
        distance: [example, position] int64, destination - position.
        token_ids: [example, position] int64 of the example's sequence.
        strongest: [example] position of the candidate with the largest DFA.
        destination: [example] int64.
        document: [example] int64, that of the destination.
    """

    features: NDArray[np.int64]
    group: NDArray[np.int64]
    dfa: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    distance: NDArray[np.int64]
    token_ids: NDArray[np.int64]
    strongest: NDArray[np.int64]
    destination: NDArray[np.int64]
    document: NDArray[np.int64]

    @classmethod
    def of_frame(
        cls, dfa: pl.DataFrame, tokens: CorpusTokens, features: NDArray[np.int64]
    ) -> "SourceExamples":
        """From the table feature_dfa of one layer; examples of other features are left out.

        Raises:
            ValueError: an example lies at a token that was not read.
        """
        frame = dfa.filter(pl.col("feature").is_in(features.tolist())).sort("feature", "rank")
        destination = frame["position"].to_numpy().astype(np.int64)
        cell = tokens.cells(frame["sequence"].to_numpy(), destination)
        row = tokens.row(cell)
        position = np.arange(tokens.context)
        values = np.zeros((len(frame), tokens.context))
        upto = position <= destination[:, None]
        lists = frame["dfa_by_source"]
        if not (lists.list.len().to_numpy() == destination + 1).all():
            raise ValueError(
                "dfa_by_source does not have one entry per position 0 .. D; pass feature_dfa as "
                "the asset writes it"
            )
        values[upto] = lists.explode().drop_nulls().to_numpy()
        candidate = upto & tokens.read.reshape(-1, tokens.context)[row]
        strongest = np.where(candidate, values, -np.inf).argmax(axis=1)
        return cls(
            features=features,
            group=np.searchsorted(features, frame["feature"].to_numpy().astype(np.int64)),
            dfa=values,
            candidate=candidate,
            distance=destination[:, None] - position,
            token_ids=tokens.token_ids.reshape(-1, tokens.context)[row],
            strongest=strongest,
            destination=destination,
            document=tokens.document[cell],
        )

    def mean_over_examples(
        self,
        value: NDArray[np.float64],
        expected: NDArray[np.float64],
        counted: NDArray[np.bool_],
    ) -> Measured:
        """Mean of a value and of its expectation over the counted examples of each feature."""
        group = self.group[counted]
        n = np.bincount(group, minlength=len(self.features))
        divisor = np.where(n > 0, n, np.nan)
        return Measured(
            feature=self.features,
            value=np.bincount(group, value, minlength=len(n)) / divisor,
            n=n,
            null_value=np.bincount(group, expected, minlength=len(n)) / divisor,
        )

    def share_of_examples(self, related: NDArray[np.bool_]) -> Measured:
        """Share of examples whose strongest source is among `related` [example, position]."""
        hit = related[np.arange(len(self.strongest)), self.strongest]
        size = len(self.features)
        n = np.bincount(self.group, minlength=size)
        expected = (related & self.candidate).sum(axis=1) / self.candidate.sum(axis=1)
        divisor = np.where(n > 0, n, np.nan)
        return Measured.share_of_text(
            self.features,
            ClusteredShares.of_terms(self.group, size, self.document, hit),
            null_value=np.bincount(self.group, expected, minlength=size) / divisor,
        )


@dataclass(frozen=True)
class LogitTokens:
    """Extreme tokens of features' logit effects.

    promoted, suppressed [feature, k] token ids, most extreme first; -1 fills rows of features
    without logit effects (a zero decoder row). strongest_up, strongest_down [feature] the effects
    of the first of each, NaN without.
    """

    promoted: NDArray[np.int64]
    suppressed: NDArray[np.int64]
    strongest_up: NDArray[np.float64]
    strongest_down: NDArray[np.float64]

    @classmethod
    def of_frame(cls, effects: pl.DataFrame, features: NDArray[np.int64]) -> "LogitTokens":
        """From the table feature_logit_effects of one layer, in the order of `features`."""
        wanted = effects.filter(pl.col("feature").is_in(features.tolist()))
        k = int(wanted["rank"].to_numpy().max(initial=0)) + 1
        place = np.searchsorted(features, wanted["feature"].to_numpy().astype(np.int64))
        rank = wanted["rank"].to_numpy()
        is_top = (wanted["extreme"] == "top").to_numpy()
        ids = np.full((2, len(features), k), -1, dtype=np.int64)
        ids[(~is_top).astype(int), place, rank] = wanted["token_id"].to_numpy()
        first = np.full((2, len(features)), np.nan)
        leading = rank == 0
        first[(~is_top[leading]).astype(int), place[leading]] = wanted["logit_effect"].to_numpy()[
            leading
        ]
        return cls(ids[0], ids[1], first[0], first[1])


def repeats_current_token(examples: SourceExamples) -> Measured:
    """Duplicate token: the strongest source is an earlier position with the current token."""
    current = examples.token_ids[np.arange(len(examples.destination)), examples.destination]
    earlier = examples.distance > 0
    return examples.share_of_examples(earlier & (examples.token_ids == current[:, None]))


def promotes_source_token(examples: SourceExamples, effects: LogitTokens) -> Measured:
    """Name mover: the strongest source is an earlier position whose token the feature promotes."""
    earlier = examples.distance > 0
    return examples.share_of_examples(earlier & _among(examples, effects.promoted))


def promoted_names(
    features: NDArray[np.int64], effects: LogitTokens, token_strings: list[str]
) -> Measured:
    """Name mover: share of the promoted tokens that look like names.

    Looks like a name: one capital letter followed by small ones, after at most one space. Many
    capitalised words do: the measure needs the other one of the family beside it.
    null_value: the share of the vocabulary that does.
    """
    named = np.array([bool(LOOKS_LIKE_A_NAME.fullmatch(text)) for text in token_strings] + [False])
    known = effects.promoted >= 0
    return Measured.share(
        features,
        named[effects.promoted].sum(axis=1),
        known.sum(axis=1),
        null_value=np.full(len(features), named[:-1].mean()),
    )


def promotes_successor(
    examples: SourceExamples, effects: LogitTokens, token_strings: list[str]
) -> Measured:
    """Successor: the feature promotes the successor of its strongest source's token."""
    classes = successor_classes(token_strings)
    promoted = np.where(effects.promoted >= 0, classes.own[effects.promoted], -1)
    following = classes.following[examples.token_ids]
    related = np.zeros(following.shape, dtype=bool)
    for rank in range(promoted.shape[1]):
        related |= following == promoted[examples.group, rank][:, None]
    return examples.share_of_examples(related & (following >= 0))


def negative_share(features: NDArray[np.int64], effects: LogitTokens) -> Measured:
    """Suppression: strongest negative logit effect / (strongest negative + strongest positive).

    Both by size; effects of the other sign count as 0. Above 0.5 the negative one dominates.
    """
    down, up = (-effects.strongest_down).clip(min=0), effects.strongest_up.clip(min=0)
    total = np.where(down + up > 0, down + up, np.nan)
    return Measured(features, down / total, n=np.where(np.isnan(total), 0, 2))


def suppresses_source_token(examples: SourceExamples, effects: LogitTokens) -> Measured:
    """Suppression: the feature suppresses the token of its strongest source."""
    return examples.share_of_examples(_among(examples, effects.suppressed))


# ---- private -------------------------------------------------------------------------------------


def _among(examples: SourceExamples, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[example, position] whether a token is among those listed for the example's feature."""
    related = np.zeros(examples.token_ids.shape, dtype=bool)
    for rank in range(listed.shape[1]):
        related |= examples.token_ids == listed[examples.group, rank][:, None]
    return related
