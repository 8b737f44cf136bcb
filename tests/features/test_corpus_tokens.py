"""Which tokens were read, where tokens occur, and access to sparse activations."""

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.sparse_activations import feature_blocks
from tests.features.planted import BOS, active, corpus, random_case, sparse


def test_bos_and_what_comes_after_the_last_token_read_are_left_out() -> None:
    tokens = corpus("ab.c", "abab", n_tokens=5)
    assert tokens.n_tokens == 5
    assert tokens.read.reshape(2, 5).tolist() == [
        [False, True, True, False, True],
        [False, True, True, False, False],
    ]
    assert tokens.read_per_row.tolist() == [3, 2]


def test_occurrences_and_next_same_against_a_scan() -> None:
    tokens, _ = random_case(0)
    read = np.flatnonzero(tokens.read).tolist()
    for token in range(7):
        assert tokens.occurrences(token).tolist() == [
            cell for cell in read if tokens.token_ids[cell] == token
        ]
    for cell in range(len(tokens.token_ids)):
        later = [
            other
            for other in read
            if cell in read
            and other > cell
            and other // tokens.context == cell // tokens.context
            and tokens.token_ids[other] == tokens.token_ids[cell]
        ]
        assert tokens.next_same[cell] == (later[0] if later else -1)


def test_fires_is_membership() -> None:
    tokens, frame = random_case(1)
    activations = sparse(frame, tokens)
    cells = np.arange(len(tokens.token_ids))[::-1]
    for index, feature in enumerate(activations.features):
        own = frame.filter(pl.col("feature") == feature)
        places = set(
            (own["sequence"].to_numpy() * tokens.context + own["position"].to_numpy()).tolist()
        )
        assert activations.fires(index, cells).tolist() == [int(c) in places for c in cells]


def test_unsorted_frames_are_sorted() -> None:
    tokens, frame = random_case(2)
    one = sparse(frame, tokens)
    other = sparse(frame.sample(fraction=1, shuffle=True, seed=1), tokens)
    assert np.array_equal(one.cell, other.cell)
    assert np.array_equal(one.activation, other.activation)


def test_blocks_hold_whole_features_and_everything_once() -> None:
    _, frame = random_case(3)
    counts = frame.group_by("feature").agg(pl.len().alias("n_active"))
    blocks = list(
        feature_blocks(
            counts,
            lambda a, b: frame.filter(pl.col("feature").is_between(a, b)),
            rows=max(counts["n_active"].to_list()) + 30,
        )
    )
    assert len(blocks) > 1
    assert pl.concat(blocks).equals(frame)
    seen = [set(block["feature"]) for block in blocks]
    assert sum(map(len, seen)) == counts.height
    assert list(feature_blocks(counts.clear(), lambda a, b: frame)) == []


def test_activations_of_another_corpus_are_refused() -> None:
    tokens = corpus("ab", "cd")
    for place in [(5, 1), (0, 0), (0, 9)]:
        with pytest.raises(ValueError, match="none of the tokens read"):
            sparse(active({place: 1.0}), tokens)


def test_a_corpus_smaller_than_the_pass_is_refused() -> None:
    frame = pl.DataFrame({"sequence": [0], "token_ids": [[BOS, 1, 2]]})
    with pytest.raises(ValueError, match="read over 9 tokens, the corpus given has 2"):
        CorpusTokens.of_pass(frame, left_out=(BOS,), n_tokens=9)
