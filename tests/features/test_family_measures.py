"""Context, n-gram and source measures: planted features, slow references, nulls."""

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.features.context import (
    density_where_active,
    near_dfa_share,
    run_end_token_share,
    run_length,
    source_distance,
)
from mechinterp_assets.features.families import MEASURES, LayerTables, feature_families
from mechinterp_assets.features.ngrams import ngram_overlap
from mechinterp_assets.features.source_relations import (
    LogitTokens,
    SourceExamples,
    negative_share,
    promoted_names,
    promotes_source_token,
    promotes_successor,
    repeats_current_token,
    suppresses_source_token,
)
from mechinterp_assets.features.successors import successor, successor_classes
from tests.features.planted import WORDS, active, corpus, fired, random_case, sparse
from tests.statistics.clustered_reference import share_interval


def test_runs_and_density_by_hand() -> None:
    tokens = corpus("abcd.efg", "hijklmno", "pqrstuvw")
    places = {(0, p): 1.0 for p in (1, 2, 3, 6)} | {(1, p): 1.0 for p in (1, 2)}
    activations = sparse(active(places), tokens)
    runs = run_length(activations, tokens)
    # 1-3, 6 in the first sequence (BOS stands at 5), 1-2 in the second; 15 tokens read in both.
    assert (runs.value.tolist(), runs.n.tolist()) == ([2.0], [3])
    density = density_where_active(activations, tokens)
    assert density.value.tolist() == [6 / 15]
    assert density.null_value is not None
    assert density.null_value.tolist() == [6 / 23]
    assert runs.null_value is not None
    assert runs.null_value.tolist() == [pytest.approx(15 / 9)]


def test_a_run_does_not_cross_sequences_or_features() -> None:
    tokens = corpus("ab", "ab")
    activations = sparse(active({(0, 2): 1.0, (1, 1): 1.0}, {(1, 2): 1.0}), tokens)
    assert run_length(activations, tokens).value.tolist() == [1.0, 1.0]


def test_planted_ngram_is_found() -> None:
    tokens = corpus("abcabd", "xabcyb", "ab.cab")
    ends_ab = {(0, 2): 1.0, (0, 5): 2.0, (1, 3): 1.0, (2, 2): 1.0, (2, 6): 1.0}
    activations = sparse(active(ends_ab, {(1, 6): 1.0, **ends_ab}), tokens)
    best = ngram_overlap(activations, tokens, WORDS, (2, 3))
    assert best.text == ["ab", "ab"]
    assert best.value.tolist() == [1.0, 5 / 6]
    single = ngram_overlap(activations, tokens, WORDS, (1,))
    assert single.text == ["b", "b"]
    assert single.value.tolist() == [5 / 6, 1.0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ngram_overlap_against_all_ngrams(size: int) -> None:
    tokens, frame = random_case(5, letters=4)
    best = ngram_overlap(sparse(frame, tokens), tokens, WORDS, (size,))
    ends: dict[tuple[int, ...], set[int]] = {}
    for cell in range(size - 1, len(tokens.token_ids)):
        here = range(cell - size + 1, cell + 1)
        if all(tokens.read[c] for c in here):
            ends.setdefault(tuple(tokens.token_ids[c] for c in here), set()).add(cell)
    for feature in range(6):
        cells = {s * tokens.context + p for s, p in fired(frame, feature)}
        overlaps = {g: len(cells & e) / len(cells | e) for g, e in ends.items()}
        assert best.value[feature] == pytest.approx(max(overlaps.values()))
        assert best.text is not None
        gram = best.text[feature]
        assert gram is not None
        named = tuple(map(WORDS.index, gram))
        assert overlaps[named] == pytest.approx(max(overlaps.values()))
        assert best.x is not None
        assert best.x[feature] == len(cells & ends[named])


def examples_of(text: str, sources: dict[int, list[float]], features: list[int]) -> SourceExamples:
    """One example per feature at the end of `text`, with its DFA by source."""
    tokens = corpus(text)
    rows = [(f, 0, 0, len(text), sources[f]) for f in features]
    frame = pl.DataFrame(
        rows,
        schema=["feature", "rank", "sequence", "position", "dfa_by_source"],
        orient="row",
    )
    return SourceExamples.of_frame(frame, tokens, np.array(features))


def test_sources_by_hand() -> None:
    """a b a . a: sources 1, 2, 3, 5 count; BOS at 0 and 4 do not, whatever they contribute."""
    dfa = {
        0: [9.0, 3.0, 1.0, 0.0, 9.0, 0.0],  # strongest: the a at 1
        1: [0.0, 0.0, 2.0, -5.0, 0.0, 1.0],  # strongest: the b
        2: [0.0, -1.0, -2.0, -3.0, 0.0, 4.0],  # strongest: itself
    }
    examples = examples_of("aba.a", dfa, [0, 1, 2])
    assert examples.strongest.tolist() == [1, 2, 5]
    repeated = repeats_current_token(examples)
    assert repeated.value.tolist() == [1.0, 0.0, 0.0]
    assert repeated.null_value is not None
    assert repeated.null_value.tolist() == [0.5] * 3  # a at 1 and 3 of four sources
    near = near_dfa_share(examples)
    assert near.value.tolist() == [1.0, 1.0, 1.0]
    effects = LogitTokens(
        promoted=np.array([[1, 5], [1, 5], [1, 5]]),
        suppressed=np.array([[2], [2], [2]]),
        strongest_up=np.array([1.0, 1.0, -0.5]),
        strongest_down=np.array([-3.0, -1.0, -2.0]),
    )
    assert promotes_source_token(examples, effects).value.tolist() == [1.0, 0.0, 0.0]
    assert suppresses_source_token(examples, effects).value.tolist() == [0.0, 1.0, 0.0]
    assert negative_share(examples.features, effects).value.tolist() == [0.75, 0.5, 1.0]


def test_near_share_by_hand() -> None:
    """Distances 0..5 are near; negative contributions and BOS count neither way."""
    dfa = {0: [7.0, 1.0, 0.0, 0.0, -4.0, 0.0, 0.0, 0.0, 3.0]}
    near = near_dfa_share(examples_of("abcdefgh", dfa, [0]))
    assert near.value.tolist() == [0.75]
    assert near.null_value is not None
    assert near.null_value.tolist() == [6 / 8]


def test_names_and_successors() -> None:
    texts = ["<bos>", " Mary", " the", " Monday", "Tuesday", " 7", "8", " B", "c", " nine", "Ten"]
    effects = LogitTokens(
        promoted=np.array([[1, 2], [4, 6], [-1, -1]]),
        suppressed=np.array([[-1], [-1], [-1]]),
        strongest_up=np.full(3, np.nan),
        strongest_down=np.full(3, np.nan),
    )
    names = promoted_names(np.arange(3), effects, texts)
    assert names.value[:2].tolist() == [0.5, 0.5]
    assert np.isnan(names.value[2])
    classes = successor_classes(texts)
    pairs = {
        (texts[a], texts[b])
        for a in range(len(texts))
        for b in range(len(texts))
        if classes.following[a] >= 0 and classes.following[a] == classes.own[b]
    }
    assert pairs == {(" Monday", "Tuesday"), (" 7", "8"), (" B", "c"), (" nine", "Ten")}
    tokens = corpus("cx")  # token 3 is " Monday" in texts
    frame = pl.DataFrame(
        {
            "feature": [0, 1, 2],
            "rank": [0] * 3,
            "sequence": [0] * 3,
            "position": [2] * 3,
            "dfa_by_source": [[0.0, 1.0, 0.0]] * 3,
        }
    )
    found = promotes_successor(
        SourceExamples.of_frame(frame, tokens, np.arange(3)), effects, texts + [""] * 20
    )
    assert found.value.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Sunday", "monday"),
        ("December", "january"),
        ("99", "100"),
        ("007", None),
        ("a", None),
        (" I", "j"),
        ("Z", None),
        ("twelve", None),
        ("12345", None),
        ("", None),
        ("²", None),
    ],
)
def test_successor(text: str, expected: str | None) -> None:
    assert successor(text) == expected


def test_frame_has_every_measure_of_every_feature_and_does_not_depend_on_blocks() -> None:
    tokens, frame = random_case(6)
    features = range(6)
    head = pl.DataFrame(
        {"feature": np.repeat(features, 2), "head": [0, 1] * 6, "attribution": [0.5] * 12}
    )
    effects = pl.DataFrame(
        {
            "feature": np.repeat(features, 2),
            "extreme": ["top", "bottom"] * 6,
            "rank": [0] * 12,
            "token_id": [1, 2] * 6,
            "logit_effect": [1.0, -1.0] * 6,
        }
    )
    firsts = frame.group_by("feature", maintain_order=True).first()
    dfa = firsts.select(
        "feature",
        pl.lit(0).alias("rank"),
        "sequence",
        "position",
        pl.Series(
            "dfa_by_source", [np.arange(p + 1.0).tolist() for p in firsts["position"].to_list()]
        ),
    )
    tables = LayerTables(tokens, WORDS, head, effects, dfa, induction_heads=[1])
    whole = feature_families([frame], tables)
    split = feature_families(
        [frame.filter(pl.col("feature") < 2), frame.filter(pl.col("feature") >= 2)], tables
    )
    assert whole.equals(split)
    assert whole.height == 6 * len(MEASURES)
    assert set(whole["measure"]) == {measure.name for measure in MEASURES}
    counted = whole.drop_nulls("x")
    assert (counted["x"] / counted["n"] == counted["value"]).all() or (
        (counted["n"] == 0) == counted["value"].is_null()
    ).all()
    assert feature_families([], tables).height == 0


def test_runs_end_at_a_marker() -> None:
    """Two runs end before c and one before d; one ends with its sequence and has no end."""
    tokens = corpus("abcab", "aabc", "abd", "xxab")
    ending = {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0, (1, 3): 1.0, (2, 2): 1.0, (3, 4): 1.0}
    alone = {(3, 4): 1.0}
    texts = ["<bos>", *"abcdefghijklmnopqrstuvwxyz"]
    result = run_end_token_share(sparse(active(ending, alone), tokens), tokens, texts)
    assert result.x is not None
    assert (result.x.tolist(), result.n.tolist()) == ([2, 0], [3, 0])
    assert result.text == ["c", None]
    assert result.null_value is not None
    n_c = (tokens.token_ids[tokens.read] == 3).sum()
    assert result.null_value[0] == n_c / tokens.n_tokens
    assert np.isnan(result.value[1])


def test_intervals_against_a_loop_over_documents() -> None:
    """Terms of every share, one by one: (document, whether it counts)."""
    tokens, frame = random_case(3, letters=4)
    size, document = tokens.context, tokens.document
    activations = sparse(frame, tokens)
    found = {
        "density": density_where_active(activations, tokens),
        "end": run_end_token_share(activations, tokens, WORDS),
        "overlap": ngram_overlap(activations, tokens, WORDS, (1, 2)),
    }
    for feature in range(6):
        cells = {s * size + p for s, p in fired(frame, feature)}
        rows = {cell // size for cell in cells}
        terms = {
            "density": [
                (document[cell], cell in cells)
                for cell in np.flatnonzero(tokens.read).tolist()
                if cell // size in rows
            ],
            "end": [
                (document[cell], WORDS[tokens.token_ids[cell + 1]] == found["end"].text[feature])
                for cell in cells
                if (cell + 1) % size > 0 and tokens.read[cell + 1] and cell + 1 not in cells
            ],
        }
        gram = found["overlap"].text[feature]
        ends = {
            cell
            for cell in range(len(gram), len(tokens.token_ids))
            if all(tokens.read[cell - i] for i in range(len(gram)))
            and "".join(WORDS[tokens.token_ids[cell - i]] for i in range(len(gram)))[::-1] == gram
        }
        terms["overlap"] = [(document[at], at in cells & ends) for at in cells | ends]
        for name, of in terms.items():
            clusters = [
                (sum(hit for d, hit in of if d == one), sum(d == one for d, _ in of))
                for one in range(tokens.n_documents)
            ]
            shares = found[name].documents
            low, high = shares.interval()
            assert shares.n_clusters[feature] == sum(n > 0 for _, n in clusters), name
            assert (shares.part[feature], shares.whole[feature]) == (
                sum(hit for _, hit in of),
                len(of),
            )
            assert (low[feature], high[feature]) == pytest.approx(
                share_interval(clusters), abs=1e-9
            ), name


def test_distance_of_the_strongest_source() -> None:
    dfa = {0: [7.0, 0.1, 0.9, 0.0, 0.0, 0.2]}
    examples = examples_of("abcde", dfa, [0])
    result = source_distance(examples)
    assert result.value.tolist() == [3.0]
    # Sources 1 to 5 of an example at 5.
    assert result.null_value is not None
    assert result.null_value.tolist() == [2.0]
