"""Top features of heads against a slow recomputation; clusters that were planted are found."""

import numpy as np
import polars as pl
import pytest
import torch

from mechinterp_assets.attribution.head_attribution import feature_head_attribution
from mechinterp_assets.heads.head_features import head_features
from mechinterp_assets.heads.polysemanticity import (
    PROXY_SCHEMA,
    clusters,
    cosine_similarity,
    effective_features,
    effective_number,
    head_polysemanticity_proxy,
    ngram_profiles,
    profile_similarity,
)
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.storage.declarations import polars_schema, table_spec

N_HEADS, D_HEAD, N_FEATURES, N_TOKENS = 3, 64, 60, 1000
NO_NGRAMS = pl.DataFrame(
    schema={
        "feature": pl.Int32,
        "ngram_size": pl.Int32,
        "rank": pl.Int32,
        "token_ids": pl.List(pl.Int32),
        "text": pl.String,
        "active_share": pl.Float64,
        "n_occurrences": pl.Int64,
    }
)


# Feature i fired on 1 + i tokens.
ALIVE = pl.DataFrame(
    {
        "feature": range(N_FEATURES),
        "n_active": range(1, N_FEATURES + 1),
        "n_tokens": [N_TOKENS] * N_FEATURES,
    }
)


def layer_tables(W_dec: np.ndarray) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Attribution, statistics (every third feature is dead), logit effects."""
    attribution = feature_head_attribution(torch.from_numpy(W_dec), N_HEADS)
    n_active = [0 if f % 3 == 0 else 10 + f for f in range(len(W_dec))]
    statistics = pl.DataFrame(
        {
            "feature": pl.Series(range(len(W_dec)), dtype=pl.Int32),
            "n_active": n_active,
            "density": [n / 1000 for n in n_active],
        }
    )
    effects = pl.DataFrame(
        [
            {"feature": f, "extreme": d, "rank": r, "token": f"{d}{f}.{r}"}
            for f in range(len(W_dec))
            for d in ("top", "bottom")
            for r in range(5)
        ],
        schema_overrides={"feature": pl.Int32},
    )
    return attribution, statistics, effects


def ngrams_of(profiles: dict[int, dict[tuple[int, ...], float]]) -> pl.DataFrame:
    rows = [
        {
            "feature": feature,
            "ngram_size": len(ids),
            "rank": rank,
            "token_ids": list(ids),
            "text": " ".join(map(str, ids)),
            "active_share": share,
            "n_occurrences": N_TOKENS // 10 if ids == (1,) else 0,
        }
        for feature, profile in profiles.items()
        for rank, (ids, share) in enumerate(profile.items())
    ]
    return pl.DataFrame(rows, schema=NO_NGRAMS.schema)


@pytest.fixture(scope="module")
def W_dec() -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(0).normal(size=(N_FEATURES, N_HEADS * D_HEAD))
    rows[7] = 0
    return rows


def test_top_features_equal_a_slow_recomputation(W_dec: np.ndarray) -> None:
    attribution, statistics, effects = layer_tables(W_dec)
    ngrams = ngrams_of({1: {(4,): 0.5, (5,): 0.25, (6,): 0.1, (9,): 0.05}, 2: {(4, 5): 0.5}})
    found = head_features(attribution, statistics, ngrams, effects, layer=4, top=10)
    assert found.schema == polars_schema(table_spec("head_features"))
    for head in range(N_HEADS):
        share = {}
        for f, row in enumerate(W_dec):
            norms = [np.sqrt((row[k * D_HEAD : (k + 1) * D_HEAD] ** 2).sum()) for k in range(3)]
            if sum(norms) > 0:
                share[f] = norms[head] / sum(norms)
        ranked = sorted(share, key=lambda f: (-share[f], f))
        alive = [f for f in ranked if f % 3]
        rows = found.filter(pl.col("head") == head)
        assert set(rows["feature"]) == {*ranked[:10], *alive[:10]}
        for row in rows.iter_rows(named=True):
            feature = row["feature"]
            assert ranked[row["rank"]] == feature
            assert row["attribution"] == pytest.approx(share[feature], rel=1e-9)
            assert row["is_alive"] == (feature % 3 != 0)
            assert row["alive_rank"] == (alive.index(feature) if feature % 3 else None)
            assert row["promoted_tokens"] == [f"top{feature}.{r}" for r in range(3)]
    first = head_features(attribution, statistics, ngrams, effects, layer=4, top=N_FEATURES)
    one = first.filter(pl.col("feature") == 1).row(0, named=True)
    assert one["frequent_tokens"] == ["4", "5", "6"]
    assert one["frequent_tokens_share"] == pytest.approx(0.85)
    two = first.filter(pl.col("feature") == 2).row(0, named=True)
    assert two["frequent_tokens"] == []
    assert two["frequent_tokens_share"] is None
    assert 7 not in first["feature"]


def test_head_features_refuse_what_does_not_fit(W_dec: np.ndarray) -> None:
    attribution, statistics, effects = layer_tables(W_dec)
    with pytest.raises(ValueError, match="top is 0"):
        head_features(attribution, statistics, NO_NGRAMS, effects, layer=0, top=0)
    with pytest.raises(ValueError, match="statistics lack features"):
        head_features(attribution, statistics.head(20), NO_NGRAMS, effects, layer=0)


# ---- the proxy -----------------------------------------------------------------------------------


def test_similarities_and_effective_numbers_by_hand() -> None:
    cosine = cosine_similarity(np.array([[2.0, 0.0], [3.0, 3.0], [0.0, 0.0], [-1.0, 0.0]]))
    half = 0.5**0.5
    assert cosine == pytest.approx(
        np.array([[1, half, 0, -1], [half, 1, 0, -half], [0, 0, 1, 0], [-1, -half, 0, 1]])
    )
    overlap = profile_similarity(np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]))
    assert overlap == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))
    assert effective_number(np.array([5.0, 5.0])) == pytest.approx(2)
    assert effective_features(np.ones((4, 4))) == pytest.approx(1)
    assert effective_features(np.eye(4)) == pytest.approx(4)
    assert effective_features(np.kron(np.eye(2), np.ones((3, 3)))) == pytest.approx(2)


def test_clusters_are_joined_by_their_mean_similarity() -> None:
    """A chain of similar neighbours whose ends differ is not one cluster."""
    chain = np.array([[1, 0.6, 0.1], [0.6, 1, 0.6], [0.1, 0.6, 1]])
    assert clusters(chain, 0.5).tolist() in ([0, 0, 1], [0, 1, 1])
    assert clusters(chain, 0.35).tolist() == [0, 0, 0]
    assert clusters(chain, 0.61).tolist() == [0, 1, 2]
    assert clusters(np.full((3, 3), 0.5), 0.5).tolist() == [0, 0, 0]
    assert clusters(np.eye(1), 0.5).tolist() == [0]
    assert clusters(np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.5).tolist() == [0, 1]


def planted(kinds: list[int], seed: int) -> np.ndarray:
    """Decoder rows whose slice at head 1 is one of a few directions plus a little noise."""
    random = np.random.default_rng(seed)
    rows: np.ndarray = random.normal(size=(N_FEATURES, N_HEADS, D_HEAD))
    directions = random.normal(size=(max(kinds) + 1, D_HEAD))
    for feature, kind in enumerate(kinds):
        rows[feature, 1] = 3 * directions[kind] + 0.3 * random.normal(size=D_HEAD)
    return rows.reshape(N_FEATURES, -1)


def proxy(
    W_dec: np.ndarray, ngrams: pl.DataFrame = NO_NGRAMS, seed: int = 0
) -> dict[tuple[int, str], dict[str, object]]:
    frame = head_polysemanticity_proxy(
        W_dec,
        {0: list(range(10)), 1: list(range(10)), 2: [3]},
        ALIVE,
        ngrams,
        layer=2,
        n_heads=N_HEADS,
        settings=HeadSettings(similarity_draws=20, seed=seed),
    )
    assert frame.schema == PROXY_SCHEMA == polars_schema(table_spec("head_polysemanticity_proxy"))
    return {(row["head"], row["measure"]): row for row in frame.to_dicts()}


def test_three_planted_kinds_of_slices_are_three_clusters() -> None:
    kinds = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    rows = proxy(planted(kinds, 1))
    assert {head for head, _ in rows} == {0, 1}  # head 2 has a single feature
    found = rows[1, "decoder_slice"]
    assert found["n_clusters"] == 3
    assert found["clusters"] == kinds
    assert found["largest_share"] == pytest.approx(0.4)
    shares = np.array([0.4, 0.3, 0.3])
    assert found["effective_clusters"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert 2.5 < float(str(found["effective_features"])) < 3.5
    assert rows[1, "either"]["n_clusters"] == 3
    assert rows[1, "ngrams"]["n_clusters"] == 10
    # Drawn from the 20 sparsest features, half of which are planted.
    assert float(str(found["null_n_clusters"])) > 5
    assert found["share_of_null_below"] == 0
    # The other head's slices of the same features are random.
    assert rows[0, "decoder_slice"]["n_clusters"] == 10


def test_random_slices_are_as_many_clusters_as_features() -> None:
    for seed in range(3):
        W_dec = np.random.default_rng(seed).normal(size=(N_FEATURES, N_HEADS * D_HEAD))
        row = proxy(W_dec)[0, "decoder_slice"]
        assert row["n_clusters"] == 10
        assert row["null_n_clusters"] == 10
        assert row["null_n_clusters_sd"] == 0
        assert row["effective_clusters"] == pytest.approx(10)
        assert row["share_of_null_below"] == 0


def test_features_of_the_same_text_are_one_cluster(W_dec: np.ndarray) -> None:
    same = {f: {(1,): 0.6, (2,): 0.3, (5, 1): 0.4} for f in range(5)}
    other = {f: {(10 + f,): 0.9, (f, 10 + f): 0.5} for f in range(5, N_FEATURES)}
    row = proxy(W_dec, ngrams_of({**same, **other}))[0, "ngrams"]
    assert row["clusters"] == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert row["mean_similarity"] == pytest.approx(10 / 45)


def test_frequent_tokens_make_no_features_alike() -> None:
    """Token 1 is a tenth of the text: features that fire on it a tenth of the time ignore it."""
    ngrams = ngrams_of({0: {(1,): 0.1, (7,): 0.4}, 1: {(1,): 0.1, (8,): 0.4}, 2: {(1,): 0.6}})
    assert ngram_profiles(ngrams, N_TOKENS) == {
        0: {(7,): pytest.approx(0.4)},
        1: {(8,): pytest.approx(0.4)},
        2: {(1,): pytest.approx(0.5)},
    }


def test_null_features_have_the_densities_of_the_heads(W_dec: np.ndarray) -> None:
    """The densest features alone share a text: a head of dense features is no exception."""
    shared = {f: {(2,): 0.9} if f >= 30 else {(100 + f,): 0.9} for f in range(N_FEATURES)}
    frame = head_polysemanticity_proxy(
        W_dec,
        {0: list(range(50, 60)), 1: list(range(10))},
        ALIVE,
        ngrams_of(shared),
        layer=0,
        n_heads=N_HEADS,
        settings=HeadSettings(similarity_draws=20),
    )
    rows = {row["head"]: row for row in frame.filter(pl.col("measure") == "ngrams").to_dicts()}
    assert (rows[0]["n_clusters"], rows[0]["null_n_clusters"]) == (1, 1)
    assert (rows[1]["n_clusters"], rows[1]["null_n_clusters"]) == (10, 10)


def test_the_null_has_a_seed_and_mistakes_are_refused(W_dec: np.ndarray) -> None:
    W = planted([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], 5)
    assert proxy(W, seed=1) == proxy(W, seed=1)
    assert proxy(W, seed=1) != proxy(W, seed=2)
    with pytest.raises(ValueError, match="cannot be split into 5 heads"):
        head_polysemanticity_proxy(W_dec, {0: [1, 2]}, ALIVE, NO_NGRAMS, layer=0, n_heads=5)
    with pytest.raises(ValueError, match=r"features \[600\] are not in W_dec"):
        head_polysemanticity_proxy(W_dec, {0: [1, 600]}, ALIVE, NO_NGRAMS, layer=0, n_heads=3)
    with pytest.raises(ValueError, match=r"features \[59\] never fired"):
        head_polysemanticity_proxy(
            W_dec, {0: [1, 59]}, ALIVE.head(59), NO_NGRAMS, layer=0, n_heads=3
        )
    with pytest.raises(ValueError, match="slice_similarity"):
        HeadSettings(slice_similarity=0)
    with pytest.raises(ValueError, match="similarity_draws"):
        HeadSettings(similarity_draws=1)
