"""The induction heuristic: planted features, a slow reference, groups and their counts."""

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.families import MEASURES
from mechinterp_assets.features.induction import (
    Counted,
    induction_attribution,
    induction_behaviour,
    induction_test,
)
from mechinterp_assets.features.measures import Measured, measured_frame
from tests.features.planted import active, corpus, fired, random_case, sparse
from tests.statistics.clustered_reference import share_interval

B = 2  # the letter b


def slow(
    tokens: CorpusTokens,
    places: dict[tuple[int, int], float],
    token: int,
    counted: Counted,
    same_prefix: bool,
) -> list[tuple[int, int]]:
    """(passed, of how many) of every document, one sequence after the other."""
    passed, n = [0] * tokens.n_documents, [0] * tokens.n_documents
    document = tokens.document.reshape(-1, tokens.context)
    ids = tokens.token_ids.reshape(-1, tokens.context)
    read = tokens.read.reshape(-1, tokens.context)
    for row in range(len(ids)):
        before = [
            p - 1
            for p in range(1, tokens.context)
            if read[row, p] and read[row, p - 1] and ids[row, p] == token
        ]
        if same_prefix:
            groups: dict[int, list[int]] = {}
            for p in before:
                groups.setdefault(int(ids[row, p]), []).append(p)
            repeated = [g for g in groups.values() if len(g) > 1]
            before = min(repeated, key=lambda g: g[1]) if repeated else []
        if len(before) < 2:
            continue
        active_there = [(row, p) in places for p in before]
        if counted == "per_occurrence":
            for p, fires in zip(before[1:], active_there[1:], strict=True):
                n[document[row, p]] += 1
                passed[document[row, p]] += fires
        else:
            n[document[row, before[0]]] += 1
            passed[document[row, before[0]]] += not active_there[0] and all(active_there[1:])
    return list(zip(passed, n, strict=True))


def test_planted_features() -> None:
    """An induction feature, one that fires on every A, one elsewhere, one that misses one."""
    tokens = corpus("xabyabzab", "abcab", "bcbc", "aab")
    induction = {(0, 5): 1.0, (0, 8): 1.0, (1, 4): 1.0}
    every_a = {**induction, (0, 2): 1.0, (1, 1): 1.0, (3, 1): 1.0, (3, 2): 1.0}
    elsewhere = {(2, 1): 1.0}
    late = {(0, 5): 1.0, (1, 4): 1.0}
    activations = sparse(active(induction, every_a, elsewhere, late), tokens)
    whole = induction_behaviour(activations, np.full(4, B), tokens, counted="per_sequence")
    # "bcbc" has b twice, but the first right after BOS; "aab" has one b.
    assert whole.n.tolist() == [2, 2, 2, 2]
    assert whole.value.tolist() == [1.0, 0.0, 0.0, 0.5]
    due = induction_behaviour(activations, np.full(4, B), tokens, counted="per_occurrence")
    # b is due twice in the first and once in the second: what a feature does before the first b
    # is not asked.
    assert due.n.tolist() == [3, 3, 3, 3]
    assert due.x is not None
    assert due.x.tolist() == [3, 3, 0, 2]


@pytest.mark.parametrize("counted", ["per_occurrence", "per_sequence"])
@pytest.mark.parametrize("same_prefix", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_against_a_slow_reference(seed: int, same_prefix: bool, counted: Counted) -> None:
    tokens, frame = random_case(seed, sequences=60, letters=3)
    activations = sparse(frame, tokens)
    promoted = np.array([1, 2, 3, 1, 2, -1])
    result = induction_behaviour(
        activations, promoted, tokens, counted=counted, same_prefix=same_prefix
    )
    measure = next(one for one in MEASURES if one.name == "induction_per_occurrence")
    for row in measured_frame(measure, result).iter_rows(named=True):
        token, places = promoted[row["feature"]], fired(frame, row["feature"])
        documents = slow(tokens, places, token, counted, same_prefix) if token > 0 else []
        assert (row["x"], row["n"]) == tuple(sum(column[i] for column in documents) for i in (0, 1))
        assert row["n_documents"] == sum(n > 0 for _, n in documents)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(share_interval(documents), abs=1e-9)
    assert result.n[:5].min() > 10
    assert np.isnan(result.value[5])


def test_same_prefix_looks_at_one_bigram_only() -> None:
    """a b c b a b: b follows a, c, a; the feature fires before the third b alone."""
    tokens = corpus("abcbab")
    activations = sparse(active({(0, 5): 1.0}), tokens)
    rates: dict[tuple[Counted, bool], float] = {
        ("per_sequence", False): 0.0,
        ("per_sequence", True): 1.0,
        ("per_occurrence", False): 0.5,
        ("per_occurrence", True): 1.0,
    }
    for (counted, same_prefix), rate in rates.items():
        result = induction_behaviour(
            activations, np.array([B]), tokens, counted=counted, same_prefix=same_prefix
        )
        assert result.value.tolist() == [rate]


def test_example_limit_takes_a_seeded_choice() -> None:
    tokens = corpus(*["xabyab"] * 30)
    places = {(sequence, 5): 1.0 for sequence in range(15)}
    activations = sparse(active(places), tokens)
    result, again = (
        induction_behaviour(
            activations, np.array([B]), tokens, counted="per_sequence", max_examples=10, seed=3
        )
        for _ in range(2)
    )
    assert result.n.tolist() == [10]
    assert 0 < result.value[0] < 1
    assert result.value == again.value


def test_attribution_is_the_largest_and_the_sum_over_induction_heads() -> None:
    frame = pl.DataFrame(
        {
            "feature": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "head": [0, 1, 2] * 3,
            "attribution": [0.7, 0.2, 0.1, 0.3, 0.3, 0.4, None, None, None],
        }
    )
    features = np.array([0, 1, 2])
    largest, total = induction_attribution(frame, [1, 2], features)
    assert largest.value[:2].tolist() == [0.2, 0.4]
    assert largest.head is not None
    assert largest.head[:2].tolist() == [1, 2]
    assert total.value[:2] == pytest.approx([0.3, 0.7])
    assert np.isnan(largest.value[2])
    assert np.isnan(total.value[2])
    none, _ = induction_attribution(frame, [], features[:2])
    assert none.value.tolist() == [0.0, 0.0]


def test_groups_and_counts() -> None:
    """Published counts come out when the features are made to give them: 450/586 and 3/500."""
    measures = {measure.name: measure for measure in MEASURES}
    n = 586 + 500 + 10 + 7
    features = np.arange(n)
    largest = np.concatenate(
        [np.full(586, 0.6), np.full(500, 0.05), np.full(10, 0.09), np.full(7, 0.1)]
    )
    total = np.concatenate(
        [np.full(586, 0.8), np.full(500, 0.09), np.full(10, 0.3), np.full(7, 0.1)]
    )
    passed = np.zeros(n, dtype=np.int64)
    passed[:450], passed[586:589] = 70, 61
    examples = np.full(n, 100)
    examples[-5:] = 4  # of the last group: too few to judge
    frame = pl.concat(
        [
            measured_frame(
                measures["induction_attribution"], Measured(features, largest, np.full(n, 2))
            ),
            measured_frame(
                measures["induction_attribution_total"], Measured(features, total, np.full(n, 2))
            ),
            measured_frame(
                measures["induction_per_occurrence"],
                Measured.share(features, np.minimum(passed, examples), examples),
            ),
        ]
    )
    test = induction_test(frame)
    rows = {
        row["feature_group"]: row
        for row in test.filter(pl.col("measure") == "induction_per_occurrence").to_dicts()
    }
    assert (rows["selected"]["n_passed"], rows["selected"]["n_tested"]) == (450, 586)
    assert (rows["control"]["n_passed"], rows["control"]["n_tested"]) == (3, 500)
    assert (rows["weak"]["n_features"], rows["weak"]["n_passed"]) == (10, 0)
    assert (rows["between"]["n_features"], rows["between"]["n_tested"]) == (7, 2)
    assert rows["selected"]["ci_low"] < 450 / 586 < rows["selected"]["ci_high"]
    assert test.height == 16


def test_a_rate_of_exactly_the_threshold_does_not_pass() -> None:
    measures = {measure.name: measure for measure in MEASURES}
    rate = Measured.share(np.array([0, 1, 2]), [60, 61, 4], [100, 100, 4])
    frame = measured_frame(measures["induction_per_occurrence"], rate)
    assert frame["meets_threshold"].to_list() == [False, True, None]
    selection = Measured(np.array([0, 1]), np.array([0.6, 0.599]), np.array([1, 1]))
    frame = measured_frame(measures["induction_attribution"], selection)
    assert frame["meets_threshold"].to_list() == [True, False]
