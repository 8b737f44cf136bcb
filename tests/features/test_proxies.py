"""When proxies hold, and the counts behind specificity, sensitivity and expected-value plots."""

import re
import time

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.attribution.intervals import interval_tables
from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.proxies import (
    AnyByInduction,
    InTokens,
    MatchesContext,
    NextByInduction,
    PromotedByInduction,
    Proxy,
    ProxyError,
    TokenProxy,
)
from mechinterp_assets.features.proxy_examples import best_features, proxy_examples
from mechinterp_assets.features.specificity import compare_with_proxies
from tests.features.planted import BOS, WORDS, active, corpus, fired, random_case
from tests.statistics.clustered_reference import share_interval


def where(proxy: TokenProxy, tokens: CorpusTokens) -> list[tuple[int, int]]:
    cells = np.flatnonzero(proxy.holds(tokens, WORDS))
    return [divmod(int(cell), tokens.context) for cell in cells]


def test_tokens() -> None:
    tokens = corpus("abca", "bb.a")
    assert where(InTokens("x", ("a", "c")), tokens) == [(0, 1), (0, 3), (0, 4), (1, 4)]


def test_regex_sees_the_window_up_to_the_token_and_from_the_last_bos() -> None:
    tokens = corpus("abcab", "xa.bc")
    assert where(MatchesContext("x", "ab$"), tokens) == [(0, 2), (0, 5)]
    assert where(MatchesContext("x", "ab", window=3), tokens) == [(0, 2), (0, 3), (0, 5)]
    assert where(MatchesContext("x", "^b"), tokens) == [(1, 4), (1, 5)]
    assert where(MatchesContext("x", "^bc", window=2), tokens) == [(0, 3), (1, 5)]
    assert where(MatchesContext("x", "<bos>"), tokens) == []


@pytest.mark.parametrize("pattern", ["ab", "a.?b$", "^[ab]+c?$", "(a|b)(c|d)$", "b{2}"])
def test_regex_against_python(pattern: str) -> None:
    tokens, _ = random_case(7, letters=4)
    window = 5
    expected = []
    for row, (ids, read) in enumerate(
        zip(
            tokens.token_ids.reshape(-1, tokens.context),
            tokens.read.reshape(-1, tokens.context),
            strict=True,
        )
    ):
        for position in np.flatnonzero(read):
            text = ""
            for back in range(position, max(position - window, 0), -1):
                if ids[back] == BOS:
                    break
                text = WORDS[ids[back]] + text
            if re.search(pattern, text):
                expected.append((row, int(position)))
    assert where(MatchesContext("x", pattern, window), tokens) == expected


def test_an_expression_that_explodes_elsewhere_is_linear_here() -> None:
    """(a+)+$ on a long run of a takes exponential time by backtracking: 2^60 steps, never done."""
    tokens = corpus("a" * 60 + "b")
    started = time.process_time()
    assert len(where(MatchesContext("x", "^(a+)+$", window=61), tokens)) == 60
    assert time.process_time() - started < 30


@pytest.mark.parametrize("seed", range(3))
def test_induction_proxies_against_their_definition(seed: int) -> None:
    tokens, _ = random_case(seed, letters=4)
    ids = tokens.token_ids.reshape(-1, tokens.context)
    read = tokens.read.reshape(-1, tokens.context)
    follows: dict[tuple[int, int], set[int]] = {}
    for row in range(len(ids)):
        for i in np.flatnonzero(read[row]):
            for j in range(i):
                if read[row, j] and read[row, j + 1] and ids[row, j] == ids[row, i]:
                    follows.setdefault((row, int(i)), set()).add(int(ids[row, j + 1]))
    assert where(AnyByInduction("x"), tokens) == sorted(follows)
    for letter in "abc":
        expected = sorted(at for at, next_ in follows.items() if WORDS.index(letter) in next_)
        assert where(NextByInduction("x", letter), tokens) == expected


def test_counts_against_a_loop() -> None:
    tokens, frame = random_case(8)
    promoted = {feature: feature % 4 + 1 for feature in range(5)}  # feature 5 has none
    proxies: list[Proxy] = [
        InTokens("letters", ("a", "b")),
        MatchesContext("context", "a.$"),
        PromotedByInduction("own"),
        InTokens("never", ("z",)),
    ]
    result = compare_with_proxies([frame], proxies, tokens, WORDS, promoted, n_intervals=4)
    for row in result.proxies.iter_rows(named=True):
        proxy = next(p for p in proxies if p.name == row["proxy"])
        if isinstance(proxy, PromotedByInduction):
            proxy = NextByInduction("own", WORDS[promoted[row["feature"]]])
        assert isinstance(proxy, TokenProxy)
        true = set(where(proxy, tokens))
        places = fired(frame, row["feature"])
        both = [value for place, value in places.items() if place in true]
        assert (row["n_true"], row["n_active"]) == (len(true), len(places))
        assert (row["n_active_true"], row["n_silent_true"]) == (len(both), len(true) - len(both))
        assert row["activation_sum"] == pytest.approx(sum(places.values()))
        assert row["activation_sum_true"] == pytest.approx(sum(both))
        assert row["n_tokens"] == tokens.n_tokens
    own = result.proxies.filter(pl.col("proxy") == "own")
    assert own["feature"].to_list() == [0, 1, 2, 3, 4]
    never = result.proxies.filter(pl.col("proxy") == "never")
    assert never["sensitivity_low"].null_count() == never.height
    assert (never["specificity_low"] == 0).all()
    assert (never["mass_specificity_low"] == 0).all()


def test_intervals_against_a_loop_over_documents() -> None:
    tokens, frame = random_case(8)
    promoted = {feature: feature % 4 + 1 for feature in range(5)}
    proxies: list[Proxy] = [InTokens("letters", ("a", "b")), PromotedByInduction("own")]
    result = compare_with_proxies([frame], proxies, tokens, WORDS, promoted, n_intervals=3)
    assert 40 < tokens.n_documents < tokens.n_tokens / 3
    document = tokens.document.reshape(-1, tokens.context)
    histogram = result.histogram.partition_by("proxy", "feature", as_dict=True)
    for row in result.proxies.iter_rows(named=True):
        rule: TokenProxy = InTokens("letters", ("a", "b"))
        if row["proxy"] == "own":
            rule = NextByInduction("own", WORDS[promoted[row["feature"]]])
        true, places = set(where(rule, tokens)), fired(frame, row["feature"])
        bounds = [(0.0, np.inf)] + [
            (one["low"], one["high"])
            for one in histogram[row["proxy"], row["feature"]].iter_rows(named=True)
        ]
        for number, (low, high) in enumerate(bounds):
            within = {at: value for at, value in places.items() if low < value <= high}
            clusters = []
            for of in range(tokens.n_documents):
                own = [at for at in within if document[at] == of]
                clusters.append((len([at for at in own if at in true]), len(own)))
            found = (
                row
                if number == 0
                else histogram[row["proxy"], row["feature"]].row(number - 1, named=True)
            )
            assert found["n_active_documents"] == sum(n > 0 for _, n in clusters)
            expected = share_interval(clusters)
            assert (found["specificity_low"], found["specificity_high"]) == pytest.approx(
                expected, abs=1e-9
            )
        sensed, weighted = [], []
        for of in range(tokens.n_documents):
            due = [at for at in true if document[at] == of]
            sensed.append((len([at for at in due if at in places]), len(due)))
            own = {at: value for at, value in places.items() if document[at] == of}
            weight = sum(value for at, value in own.items() if at in true)
            weighted.append((weight, sum(own.values())))
        kish = sum(places.values()) ** 2 / sum(value**2 for value in places.values())
        for name, expected in (
            ("sensitivity", share_interval(sensed)),
            ("mass_specificity", share_interval(weighted, kish)),
        ):
            found_interval = (row[f"{name}_low"], row[f"{name}_high"])
            assert found_interval == pytest.approx(expected, abs=1e-9), name
        assert row["n_true_documents"] == sum(n > 0 for _, n in sensed)


def test_histogram_sums_to_the_counts_and_has_the_intervals_of_feature_intervals() -> None:
    tokens, frame = random_case(9)
    result = compare_with_proxies(
        [frame], [InTokens("letters", ("a", "c"))], tokens, WORDS, {}, n_intervals=7
    )
    sums = ["n_active", "n_active_true", "activation_sum", "activation_sum_true"]
    totals = result.histogram.group_by("feature").agg(pl.col(sums).sum()).sort("feature")
    for name in sums:
        assert totals[name].to_numpy() == pytest.approx(result.proxies[name].to_numpy())
    maxima = frame.group_by("feature").agg(pl.col("activation").max()).sort("feature")
    intervals = interval_tables(
        [frame], torch.from_numpy(maxima["activation"].to_numpy().copy()), n_intervals=7
    ).intervals
    for name in ("feature", "interval", "low", "high", "n_active"):
        assert result.histogram[name].to_list() == intervals[name].to_list(), name


def test_activations_on_an_edge_belong_to_the_interval_below() -> None:
    tokens = corpus("abcdefghij")
    places = {(0, p): p / 10 for p in range(1, 11)}
    result = compare_with_proxies(
        [active(places)], [AnyByInduction("x")], tokens, WORDS, {}, n_intervals=10
    )
    maxima = torch.tensor([1.0])
    intervals = interval_tables([active(places)], maxima, n_intervals=10).intervals
    assert result.histogram["n_active"].to_list() == intervals["n_active"].to_list()


def test_chosen_features_only_and_blocks_do_not_matter() -> None:
    tokens, frame = random_case(10)
    proxies: list[Proxy] = [InTokens("one", ("a",)), InTokens("two", ("b",))]
    whole = compare_with_proxies([frame], proxies, tokens, WORDS, {}, only={"one": [2, 4]})
    parts = [frame.filter(pl.col("feature") < 3), frame.filter(pl.col("feature") >= 3)]
    split = compare_with_proxies(parts, proxies, tokens, WORDS, {}, only={"one": [2, 4]})
    assert whole.proxies.equals(split.proxies)
    assert whole.histogram.equals(split.histogram)
    chosen = whole.proxies.filter(pl.col("proxy") == "one")
    assert chosen["feature"].to_list() == [2, 4]
    assert whole.proxies.filter(pl.col("proxy") == "two").height == 6
    assert compare_with_proxies([frame], [], tokens, WORDS, {}).proxies.height == 0


def test_planted_feature_is_found_specific_and_sensitive() -> None:
    tokens = corpus("abxab", "abyab", "cab")
    by_induction = {(0, 4): 2.0, (1, 4): 1.0}
    mixed = {**by_induction, (0, 1): 1.0}
    result = compare_with_proxies(
        [active(by_induction, mixed)], [NextByInduction("b due", "b")], tokens, WORDS, {}
    ).proxies
    assert result["n_true"].to_list() == [2, 2]
    assert result["n_active_true"].to_list() == [2, 2]
    assert result["n_active"].to_list() == [2, 3]
    assert result["n_silent_true"].to_list() == [0, 0]
    assert result["activation_sum_true"].to_list() == [3.0, 3.0]


def test_tokens_that_are_none_are_refused_with_a_hint() -> None:
    texts = ["<bos>", " Mary", "the"]
    with pytest.raises(ProxyError, match=r"'Mary' is not one token.*' Mary'"):
        InTokens("names", ("Mary",)).check(texts)
    with pytest.raises(ProxyError, match=r"' the' is not one token.*'the'"):
        NextByInduction("x", " the").check(texts)
    with pytest.raises(ProxyError, match="does not compile"):
        MatchesContext("x", "(").check(texts)
    tokens, frame = random_case(11)
    with pytest.raises(ProxyError, match="zebra"):
        compare_with_proxies([frame], [InTokens("x", ("zebra",))], tokens, WORDS, {})


@pytest.mark.parametrize("count", [3, 1000])
def test_disagreements_are_those_of_a_loop(count: int) -> None:
    tokens, frame = random_case(8)
    promoted = {feature: feature % 4 + 1 for feature in range(5)}
    proxies: list[Proxy] = [InTokens("letters", ("a", "b")), PromotedByInduction("own")]
    chosen = {"letters": [0, 5], "own": [1]}
    found = proxy_examples(frame, proxies, chosen, tokens, WORDS, promoted, count=count, seed=0)
    assert set(found["proxy"]) == {"letters", "own"}
    for (name, feature, error), rows in found.group_by("proxy", "feature", "error_kind"):
        proxy = proxies[0] if name == "letters" else NextByInduction("own", WORDS[promoted[1]])
        assert isinstance(proxy, TokenProxy)
        true, places = set(where(proxy, tokens)), fired(frame, int(str(feature)))
        wrong = true - set(places) if error == "false_negative" else set(places) - true
        got = set(zip(rows["sequence"], rows["position"], strict=True))
        assert got <= wrong
        assert len(got) == rows.height == min(count, len(wrong))
        assert rows["n_errors"].unique().to_list() == [len(wrong)]
        for row in rows.iter_rows(named=True):
            place = (row["sequence"], row["position"])
            assert row["activation"] == pytest.approx(places.get(place, 0.0))
            ids = tokens.token_ids.reshape(-1, tokens.context)[row["sequence"]]
            text = ""
            for back in range(row["position"], max(row["position"] - 16, 0), -1):
                if ids[back] == BOS:
                    break
                text = WORDS[ids[back]] + text
            assert row["text"] == text
    expected = {("letters", 0), ("letters", 5), ("own", 1)}
    assert set(found.select("proxy", "feature").iter_rows()) == expected


def test_examples_are_kept_of_the_features_that_fit_best() -> None:
    tokens = corpus("abababab")
    exact = {(0, position): 1.0 for position in (1, 3, 5, 7)}  # every a
    half = {(0, 1): 1.0, (0, 3): 1.0}
    never = {(0, 2): 1.0}
    frame = active(half, never, exact)
    proxies = compare_with_proxies([frame], [InTokens("a", ("a",))], tokens, WORDS, {}).proxies
    assert best_features(proxies, 1) == {"a": [2]}
    assert best_features(proxies, 9) == {"a": [0, 2]}
    assert best_features(proxies, 0) == {}
