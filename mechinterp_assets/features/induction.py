"""Induction features: which heads write them, and whether they fire where their token is due.

Belongs here: the selection by weights and the behaviour heuristic of K24 (section 3.3, appendix on
induction features). Both are run on every feature: those hardly written by induction heads are the
control group.

B is the token whose logit the feature raises most. An example is a sequence that has B at least
twice; in each, B is due by induction at every occurrence but the first. Two rates:

- per_occurrence: of all occurrences of B that are due, the share on whose preceding token the
  feature is active: K24's pass rate.
- per_sequence: of all examples, the share in which the feature is silent on the token before the
  first B and active on the token before every later B: stricter, and ours.

The paper does not say whether the token before must be the same each time (A B ... A -> B):
`same_prefix` counts only occurrences of the bigram A B whose A repeats.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import Cells, CorpusTokens
from mechinterp_assets.features.measures import Measured
from mechinterp_assets.features.sparse_activations import SparseActivations
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

MAX_EXAMPLES = 200
CONTROL_BELOW = 0.1
GROUPS = ("selected", "between", "weak", "control")
Counted = Literal["per_occurrence", "per_sequence"]
BEHAVIOUR = tuple(
    f"induction_{counted}{prefix}"
    for counted in get_args(Counted)
    for prefix in ("", "_same_prefix")
)


def induction_attribution(
    head_attribution: pl.DataFrame, induction_heads: list[int], features: NDArray[np.int64]
) -> tuple[Measured, Measured]:
    """Head attribution of features to the induction heads of their layer (K24 eq. 2).

    First the largest to one of them, by which features are selected; then the sum over all of
    them, by which the control group is drawn. 0 in a layer without induction heads; NaN for a zero
    decoder row. n: induction heads of the layer.

    Args:
        head_attribution: frame feature_head_attribution of the layer.
        induction_heads: heads of the layer with the role.
        features: features wanted, ascending.
    """
    wide = head_attribution.sort("feature", "head").filter(
        pl.col("feature").is_in(features.tolist())
    )
    shares = wide["attribution"].to_numpy().reshape(len(features), wide["head"].n_unique())
    n = np.full(len(features), len(induction_heads), dtype=np.int64)
    if not induction_heads:
        nothing = Measured(features, np.where(np.isnan(shares[:, 0]), np.nan, 0.0), n)
        return nothing, nothing
    among = shares[:, induction_heads]
    best = np.nan_to_num(among, nan=-1.0).argmax(axis=1)
    largest = Measured(
        features,
        among[np.arange(len(features)), best],
        n,
        head=np.array(induction_heads, dtype=np.int64)[best],
    )
    return largest, Measured(features, among.sum(axis=1), n)


@dataclass(frozen=True)
class _Examples:
    """Examples of one token B: the cells before its occurrences, example by example.

    cells [occurrence]; starts [example]: where each example begins in `cells`; its first entry is
    the token before the first B. document [occurrence].
    """

    cells: Cells
    starts: NDArray[np.int64]
    document: NDArray[np.int64]

    def passed(
        self, active: NDArray[np.bool_], counted: Counted
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[document] how many pass, and of how many, given whether the feature is active at cells.

        A sequence of several documents counts to the one that its example begins in.
        """
        due = np.ones(len(active), dtype=bool)
        due[self.starts] = False
        if counted == "per_occurrence":
            passed, document = active[due], self.document[due]
        elif len(self.starts):
            passed = np.logical_and.reduceat(active == due, self.starts)
            document = self.document[self.starts]
        else:
            passed, document = active[:0], self.document[:0]
        found, place = np.unique(document, return_inverse=True)
        n = len(found)
        return np.bincount(place[passed], minlength=n), np.bincount(place, minlength=n)


def induction_behaviour(
    activations: SparseActivations,
    promoted: NDArray[np.int64],
    tokens: CorpusTokens,
    *,
    counted: Counted,
    same_prefix: bool = False,
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> Measured:
    """Pass rate of the induction heuristic, for every feature of `activations`.

    Occurrences of B right after BOS are left out: features are not read there. Of more than
    `max_examples` sequences a seeded random choice is taken, the same for all features of a B.

    Args:
        activations: of whole features.
        promoted: [feature of activations] id of B; -1: no logit effects, so no examples.
        tokens: the tokens that were read.
        counted: what a pass is counted by: occurrences of B that are due, or whole sequences.
        same_prefix: an example is a sequence in which a bigram A B occurs at least twice (of
            several, the one whose second occurrence comes first); only its occurrences count.
        max_examples: sequences looked at per feature.
        seed: of the choice of sequences.
    """
    if len(promoted) != len(activations.features):
        raise ValueError(
            f"{len(promoted)} promoted tokens for {len(activations.features)} features; give one "
            "per feature"
        )
    priority = np.random.default_rng(seed).permutation(len(tokens.sequences))
    # Of every feature and document: which feature, how many passed, and of how many.
    entries = [(np.zeros(0, dtype=np.int64),) * 3]
    order = np.argsort(promoted, kind="stable")
    bounds = np.flatnonzero(np.diff(promoted[order], prepend=-2, append=-2))
    for start, end in pairwise(bounds.tolist()):
        token = int(promoted[order[start]])
        if token < 0:
            continue
        examples = _examples(token, tokens, priority, same_prefix, max_examples)
        for index in order[start:end]:
            passed, n = examples.passed(activations.fires(index, examples.cells), counted)
            entries.append((np.full(len(n), index), passed, n))
    feature, *counts = (np.concatenate(column) for column in zip(*entries, strict=True))
    documents = ClusteredShares.of_clusters(feature, len(promoted), *counts)
    return Measured.share_of_text(activations.features, documents)


def induction_test(families: pl.DataFrame) -> pl.DataFrame:
    """Rows of the table induction_test (without study and layer): how each group fares.

    Selected: the attribution to one induction head passes its threshold. Control: attributions to
    all of them sum to less than 0.1. Weak: each is below 0.1, their sum is not (the paper's "less
    than 0.1" can be read as control, or as control and weak). Between: the rest.

    A feature is tested where it has enough examples, and passes where its rate does.

    Args:
        families: frame feature_families of one layer.
    """

    def of(measure: str, **columns: pl.Expr) -> pl.DataFrame:
        return families.filter(pl.col("measure") == measure).select("feature", **columns)

    grouped = (
        of("induction_attribution", selected=pl.col("meets_threshold"), largest=pl.col("value"))
        .join(of("induction_attribution_total", total=pl.col("value")), on="feature")
        .drop_nulls("total")
        .select(
            "feature",
            group=pl.when(pl.col("selected"))
            .then(pl.lit("selected"))
            .when(pl.col("total") < CONTROL_BELOW)
            .then(pl.lit("control"))
            .when(pl.col("largest") < CONTROL_BELOW)
            .then(pl.lit("weak"))
            .otherwise(pl.lit("between")),
        )
    )
    counted = (
        families.filter(pl.col("measure").is_in(BEHAVIOUR))
        .join(grouped, on="feature")
        .group_by("measure", "group")
        .agg(
            n_features=pl.len().cast(pl.Int64),
            n_tested=pl.col("meets_threshold").is_not_null().sum().cast(pl.Int64),
            n_passed=pl.col("meets_threshold").fill_null(False).sum().cast(pl.Int64),
        )
    )
    every = pl.DataFrame(
        {
            "measure": [measure for measure in BEHAVIOUR for _ in GROUPS],
            "group": [*GROUPS] * len(BEHAVIOUR),
        }
    )
    frame = every.join(
        counted, on=["measure", "group"], how="left", maintain_order="left"
    ).with_columns(pl.col("n_features", "n_tested", "n_passed").fill_null(0))
    low, high = clopper_pearson(frame["n_passed"].to_numpy(), frame["n_tested"].to_numpy())
    return frame.select(
        pl.col("group").alias("feature_group"),
        "measure",
        "n_features",
        "n_tested",
        "n_passed",
        passed_share=pl.col("n_passed") / pl.col("n_tested"),
        ci_low=pl.lit(pl.Series(low)),
        ci_high=pl.lit(pl.Series(high)),
    ).with_columns(pl.col("passed_share", "ci_low", "ci_high").fill_nan(None))


# ---- private -------------------------------------------------------------------------------------


def _examples(
    token: int,
    tokens: CorpusTokens,
    priority: NDArray[np.int64],
    same_prefix: bool,
    max_examples: int,
) -> _Examples:
    occurrences = tokens.occurrences(token)
    before = occurrences[(occurrences % tokens.context > 0)] - 1
    before = before[tokens.read[before]]
    row = tokens.row(before)
    key = row
    if same_prefix:
        # Group by (row, A); the stable sort keeps occurrences in order within a group.
        key = row * (int(tokens.token_ids.max()) + 1) + tokens.token_ids[before]
        order = np.argsort(key, kind="stable")
        before, row, key = before[order], row[order], key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    lengths = np.diff(starts, append=len(key))
    repeated = lengths >= 2
    starts, lengths = starts[repeated], lengths[repeated]
    if same_prefix and len(starts):
        # One bigram per row: the first to come back.
        second = before[starts + 1]
        by_row = np.lexsort((second, row[starts]))
        starts, lengths = starts[by_row], lengths[by_row]
        first = np.diff(row[starts], prepend=-1) != 0
        starts, lengths = starts[first], lengths[first]
    if len(starts) > max_examples:
        chosen = np.sort(np.argsort(priority[row[starts]], kind="stable")[:max_examples])
        starts, lengths = starts[chosen], lengths[chosen]
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    total = int(lengths.sum())
    picked = np.arange(total) + np.repeat(starts - begins, lengths)
    cells = before[picked]
    return _Examples(cells, begins[: len(starts)], tokens.document[cells])
