"""An automatic proxy of how many things a head does: clusters among the features it writes most.

Belongs here: likeness of two features (by what the head writes for them, by the text they fire on),
clusters of a head's top features, and the same of features drawn at random. This is a proxy, and
its tables say so: K24 Table 3 (monosemantic 9.7%, minor exception 5.5%, bisemantic 2.7%,
polysemantic 81.9% of GPT-2 small's heads) was judged by people; their labels are labels/heads.py.

Two features are alike
  decoder_slice  cosine of the head's slices of their decoder rows: the head writes alike for both;
  ngrams         weighted Jaccard index (sum of minima over sum of maxima) of their n-gram profiles:
                 they fire on the same text. The profile is the listed n-grams (n = 1, 2, 3) with
                 the share of the feature's activity that ends in each, less the share of all tokens
                 that do: what any feature would have of a frequent token says nothing;
  either         the larger of the two, each divided by its threshold.
Clusters are those of average linkage, cut where the mean likeness of two clusters falls below the
threshold. Decoder rows of one SAE compete, so those that live in one head tend towards orthogonal
slices: decoder_slice alone calls nearly every head polysemantic. Features of one head are also
denser than most, and dense features fire on the same frequent text. So beside each number stands
that of features drawn from the same layer with about the same densities.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from mechinterp_assets.heads.settings import HeadSettings

DENSITY_WINDOW = 0.05  # null features lie within this share of the ranks by density, either way
MEASURES = ("decoder_slice", "ngrams", "either")

PROXY_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "measure": pl.String,
    "similarity_threshold": pl.Float64,
    "n_compared": pl.Int32,
    "mean_similarity": pl.Float64,
    "n_clusters": pl.Int32,
    "effective_clusters": pl.Float64,
    "effective_features": pl.Float64,
    "largest_share": pl.Float64,
    "null_n_clusters": pl.Float64,
    "null_n_clusters_sd": pl.Float64,
    "null_effective_clusters": pl.Float64,
    "null_effective_features": pl.Float64,
    "null_mean_similarity": pl.Float64,
    "share_of_null_below": pl.Float64,
    "n_draws": pl.Int32,
    "clusters": pl.List(pl.Int32),
    "features": pl.List(pl.Int32),
}

Array = NDArray[np.float64]


def cosine_similarity(vectors: Array) -> Array:
    """Cosines [..., n, n] of vectors [..., n, d]; 0 with a zero vector, 1 with itself."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return _with_unit_diagonal(unit @ np.swapaxes(unit, -1, -2))


def profile_similarity(profiles: Array) -> Array:
    """Weighted Jaccard index [..., n, n] of non-negative profiles [..., n, m].

    Sum of minima over sum of maxima, 0 to 1; 0 with an empty profile, 1 with itself.
    """
    left, right = profiles[..., :, None, :], profiles[..., None, :, :]
    both, any_of = np.minimum(left, right).sum(-1), np.maximum(left, right).sum(-1)
    found = np.divide(both, any_of, out=np.zeros_like(both), where=any_of > 0)
    return _with_unit_diagonal(found)


def clusters(similarity: Array, threshold: float) -> NDArray[np.int32]:
    """Cluster [n] of each item, numbered from 0 in the order of their first items.

    Average linkage: clusters are joined while the mean similarity of their items is at least
    `threshold`.
    """
    n = len(similarity)
    if n < 2:
        return np.zeros(n, dtype=np.int32)
    pairs = squareform((similarity + similarity.T) / 2, checks=False)
    # Distances must not be negative; a shift of all of them changes no average linkage.
    largest = max(float(pairs.max()), threshold)
    tree = linkage(largest - pairs, "average")
    # fcluster joins up to and including its limit; the margin is for rounding of the means.
    found = fcluster(tree, largest - threshold + 1e-12, "distance")
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse]


def effective_number(sizes: Array) -> float:
    """exp of the entropy of shares sizes / sum: how many equally large parts they are like."""
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_features(similarity: Array) -> Array:
    """exp of the entropy of the eigenvalues of similarity / n [...]: threshold-free diversity.

    n for features with nothing in common, 1 for n times the same (Friedman & Dieng 2023, the Vendi
    score). similarity [..., n, n]: positive semidefinite with a diagonal of ones.
    """
    values = np.linalg.eigvalsh(similarity).clip(min=0) / similarity.shape[-1]
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    result: Array = np.exp(-(values * logs).sum(axis=-1))
    return result


def ngram_profiles(ngrams: pl.DataFrame, n_tokens: int) -> dict[int, dict[tuple[int, ...], float]]:
    """feature -> n-gram (token ids) -> its share of the activity beyond its share of all tokens.

    Args:
        ngrams: feature_ngrams: feature, token_ids, share, n_occurrences.
        n_tokens: tokens of the feature pass (feature_statistics.n_tokens).
    """
    found: dict[int, dict[tuple[int, ...], float]] = {}
    beyond = ngrams.with_columns(
        excess=pl.col("active_share") - pl.col("n_occurrences") / max(n_tokens, 1)
    ).filter(pl.col("excess") > 0)
    columns = (beyond[name].to_list() for name in ("feature", "token_ids", "excess"))
    for feature, ids, excess in zip(*columns, strict=True):
        found.setdefault(feature, {})[tuple(ids)] = excess
    return found


def head_polysemanticity_proxy(
    W_dec: Array,
    top_features: Mapping[int, list[int]],
    statistics: pl.DataFrame,
    ngrams: pl.DataFrame,
    *,
    layer: int,
    n_heads: int,
    settings: HeadSettings | None = None,
) -> pl.DataFrame:
    """Rows of the table head_polysemanticity_proxy of one layer: one per head and measure.

    The null of a head is sets of as many features of the layer that fired, compared in the same
    way: one for each of the head's, drawn from those closest in density, none twice in a set.

    Args:
        W_dec: [feature, n_heads * d_head] decoder of the layer's SAE, head-major.
        top_features: head -> its features, best first (head_features with alive_rank < 10); heads
            with fewer than two features have no row.
        statistics: feature_statistics of the layer: feature, n_active, n_tokens.
        ngrams: feature_ngrams of the layer.
        layer: layer.
        n_heads: heads of the layer.
        settings: thresholds and draws.

    Raises:
        ValueError: W_dec does not split into heads, or a feature is not in it.
    """
    settings = settings or HeadSettings()
    if W_dec.shape[1] % n_heads:
        raise ValueError(
            f"decoder rows of width {W_dec.shape[1]} cannot be split into {n_heads} heads"
        )
    slices = W_dec.reshape(len(W_dec), n_heads, -1)
    by_density = statistics.filter(pl.col("n_active") > 0).sort("n_active", "feature")
    pool: list[int] = by_density["feature"].to_list()
    named = [f for features in top_features.values() for f in features]
    if unknown := sorted({f for f in [*named, *pool] if not 0 <= f < len(W_dec)}):
        raise ValueError(f"features {unknown[:5]} are not in W_dec (0..{len(W_dec) - 1})")
    if silent := sorted(set(named) - set(pool)):
        raise ValueError(f"features {silent[:5]} never fired; pass features with an alive_rank")
    profiles = ngram_profiles(ngrams, int(statistics["n_tokens"][0]) if len(statistics) else 0)
    rows: list[dict[str, Any]] = []
    for head, features in sorted(top_features.items()):
        if len(features) < 2:
            continue
        random = np.random.default_rng([settings.seed, layer, head])
        drawn = [
            _alike_in_density(features, pool, random) for _ in range(settings.similarity_draws)
        ]
        null_overlap = np.stack([_overlap(profiles, one) for one in drawn])
        observed = _likeness(slices[features, head], _overlap(profiles, features), settings)
        null = _likeness(slices[drawn, head], null_overlap, settings)
        thresholds = (settings.slice_similarity, settings.ngram_similarity, 1.0)
        for name, threshold in zip(MEASURES, thresholds, strict=True):
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "measure": name,
                    "similarity_threshold": threshold,
                    "features": features,
                    **_row(observed[name], null[name], threshold, diverse=name != "either"),
                }
            )
    return pl.DataFrame(rows, schema=PROXY_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _with_unit_diagonal(similarity: Array) -> Array:
    place = np.arange(similarity.shape[-1])
    similarity[..., place, place] = 1.0
    return similarity


def _alike_in_density(
    features: list[int], pool: list[int], random: np.random.Generator
) -> list[int]:
    """As many other features, each near one of `features` in `pool`, which is sorted by density."""
    place = {feature: i for i, feature in enumerate(pool)}
    reach = max(len(features), math.ceil(DENSITY_WINDOW * len(pool)))
    taken: set[int] = set()
    for feature in features:
        at = place[feature]
        near = [f for f in pool[max(0, at - reach) : at + reach + 1] if f not in taken]
        # The window holds more features than a set does, unless fewer fired.
        taken.add(int(random.choice(near)))
    return sorted(taken)


def _overlap(profiles: dict[int, dict[tuple[int, ...], float]], features: list[int]) -> Array:
    """Weighted Jaccard index of the features' n-gram profiles [n, n]."""
    own = [profiles.get(feature, {}) for feature in features]
    column = {gram: i for i, gram in enumerate(sorted({g for profile in own for g in profile}))}
    dense = np.zeros((len(features), len(column)))
    for row, profile in enumerate(own):
        for gram, share in profile.items():
            dense[row, column[gram]] = share
    return profile_similarity(dense)


def _likeness(slices: Array, overlap: Array, settings: HeadSettings) -> dict[str, Array]:
    """Similarity [..., n, n] by measure; `either` in units of the thresholds."""
    cosine = cosine_similarity(np.asarray(slices, dtype=np.float64))
    either = np.maximum(cosine / settings.slice_similarity, overlap / settings.ngram_similarity)
    return {"decoder_slice": cosine, "ngrams": overlap, "either": either}


def _row(observed: Array, null: Array, threshold: float, *, diverse: bool) -> dict[str, Any]:
    """Columns of one head and measure. observed [n, n], null [draw, n, n]."""
    found = clusters(observed, threshold)
    sizes = np.bincount(found).astype(np.float64)
    drawn = [np.bincount(clusters(one, threshold)).astype(np.float64) for one in null]
    counts = np.array([len(one) for one in drawn], dtype=np.float64)
    pairs = np.triu_indices(len(observed), 1)
    null_pairs = null[:, *np.triu_indices(null.shape[-1], 1)]
    return {
        "n_compared": len(observed),
        "mean_similarity": float(observed[pairs].mean()),
        "n_clusters": len(sizes),
        "effective_clusters": effective_number(sizes),
        "effective_features": float(effective_features(observed)) if diverse else None,
        "largest_share": float(sizes.max() / sizes.sum()),
        "null_n_clusters": float(counts.mean()),
        "null_n_clusters_sd": float(counts.std(ddof=1)),
        "null_effective_clusters": float(np.mean([effective_number(one) for one in drawn])),
        "null_effective_features": float(effective_features(null).mean()) if diverse else None,
        "null_mean_similarity": float(null_pairs.mean()) if null_pairs.size else None,
        "share_of_null_below": float((counts < len(sizes)).mean()),
        "n_draws": len(null),
        "clusters": found.tolist(),
    }
