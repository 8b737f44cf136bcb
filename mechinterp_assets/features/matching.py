"""Which features of two SAEs are the same: one-to-one matching of decoder directions.

Belongs here: the matching, its random baseline, and the frame `sae_matching`. Does not belong here:
which SAEs are compared (studies/comparisons.py).

Two SAEs on the z of one layer share a space: rows of W_dec are compared as they are. z of different
layers has no common basis: there, directions are compared where both write, d_i W_O in the residual
stream (processed weights), and encoders are not compared.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

EXACT_LIMIT = 8192
EXACT, GREEDY = "hungarian", "mutual best, then hungarian"

MATCHING_SCHEMA: dict[str, Any] = {
    "feature": pl.Int32,
    "matched_feature": pl.Int32,
    "matched_cosine": pl.Float64,
    "best_feature": pl.Int32,
    "best_cosine": pl.Float64,
    "encoder_cosine": pl.Float64,
    "n_active": pl.Int64,
    "matched_n_active": pl.Int64,
    "density_shift": pl.Float64,
    "n_examples": pl.Int32,
    "n_common_examples": pl.Int32,
    "example_overlap": pl.Float64,
    "matching_method": pl.String,
    "random_mean_cosine": pl.Float64,
}


@dataclass(frozen=True)
class Matching:
    """A one-to-one matching of rows of a with rows of b.

    Attributes:
        matched: [row of a] int64 row of b; -1: none left (a has more rows), or a zero row.
        cosine: [row of a] float64, NaN where none.
        best: [row of a] int64 row of b with the largest cosine, shared or not; -1 for a zero row.
        best_cosine: [row of a] float64.
        method: EXACT or GREEDY.
    """

    matched: NDArray[np.int64]
    cosine: NDArray[np.float64]
    best: NDArray[np.int64]
    best_cosine: NDArray[np.float64]
    method: str

    @property
    def mean_cosine(self) -> float:
        """Mean cosine over the matched rows; NaN without any."""
        return float(np.nanmean(self.cosine)) if (self.matched >= 0).any() else float("nan")


def match_directions(a: Tensor, b: Tensor, *, exact_limit: int = EXACT_LIMIT) -> Matching:
    """Match rows of a [n, d] with rows of b [m, d] so that the sum of cosines is largest.

    Exact (Hungarian algorithm, cubic in the worst case: 3.5 s for 6144 random rows on one core)
    while neither side has more than `exact_limit` rows. Above that, pairs of rows that are each
    other's best are matched and removed, again and again, until so few rows are left that the rest
    can be matched exactly. Removing mutual best pairs is greedy matching by descending cosine: two
    copies of a feature find each other either way; only weak pairs may differ from the optimum.

    Zero rows are left unmatched. Equal cosines: the smaller row.

    Raises:
        ValueError: the widths differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"directions {tuple(a.shape)} and {tuple(b.shape)} are not comparable; pass decoder "
            "rows in one space"
        )
    rows_a, unit_a = _unit_rows(a)
    rows_b, unit_b = _unit_rows(b)
    n = len(a)
    matched, best = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    cosine, best_cosine = np.full(n, np.nan), np.full(n, np.nan)
    if len(rows_a) and len(rows_b):
        values, columns = _best(unit_a, unit_b)
        best[rows_a], best_cosine[rows_a] = rows_b[columns.numpy()], values.double().numpy()
        left, right = _assign(unit_a, unit_b, exact_limit)
        matched[rows_a[left]] = rows_b[right]
        products = unit_a[left].double() * unit_b[right].double()
        cosine[rows_a[left]] = products.sum(dim=1).cpu().numpy()
    size = max(len(rows_a), len(rows_b))
    return Matching(matched, cosine, best, best_cosine, EXACT if size <= exact_limit else GREEDY)


def random_mean_cosine(
    one: "ComparedSae", other: "ComparedSae", *, seed: int = 0, exact_limit: int = EXACT_LIMIT
) -> float:
    """Mean matched cosine of as many random decoder rows, written and matched the same way.

    What matching gives to SAEs that have nothing in common: well above 0, since the best of many
    are chosen. Rows are drawn uniformly from the unit sphere of each side's z.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for side in (one, other):
        rows = torch.randn(side.decoder.shape, generator=generator)
        sides.append(side.written(rows.to(side.decoder.device)))
    return match_directions(*sides, exact_limit=exact_limit).mean_cosine


@dataclass(frozen=True)
class ComparedSae:
    """One side of a comparison.

    Attributes:
        decoder: [feature, d_in], rows of W_dec.
        writes: [d_in, d_model] W_O of the layer (processed weights), heads joined, for a comparison
            in the residual stream; None for one in z.
        encoder: [feature, d_in] encoder columns as rows; None in the residual stream.
        statistics: columns feature, n_active, log10_density (feature_statistics).
        examples: columns feature, sequence, position (feature_top_examples), or None where the two
            sides did not read the same corpus.
    """

    decoder: Tensor
    writes: Tensor | None
    encoder: Tensor | None
    statistics: pl.DataFrame
    examples: pl.DataFrame | None

    def written(self, rows: Tensor) -> Tensor:
        """Rows in z taken to the space of the comparison."""
        return rows if self.writes is None else rows.to(self.writes) @ self.writes


def sae_matching(
    one: ComparedSae, other: ComparedSae, *, seed: int = 0, exact_limit: int = EXACT_LIMIT
) -> pl.DataFrame:
    """One row per feature of `one`: its partner in `other` and how alike they are.

    The frame of the table sae_matching without study, layer and the columns that name the other
    SAE; see that table's comments.
    """
    matching = match_directions(
        one.written(one.decoder), other.written(other.decoder), exact_limit=exact_limit
    )
    n = len(one.decoder)
    baseline = random_mean_cosine(one, other, seed=seed, exact_limit=exact_limit)
    matched = pl.Series(matching.matched)
    frame = pl.DataFrame(
        {
            "feature": np.arange(n),
            "matched_feature": matched.set(matched < 0, None),
            "matched_cosine": matching.cosine,
            "best_feature": pl.Series(matching.best).set(pl.Series(matching.best < 0), None),
            "best_cosine": matching.best_cosine,
            "encoder_cosine": _encoder_cosine(one.encoder, other.encoder, matching.matched),
            "matching_method": [matching.method] * n,
            "random_mean_cosine": np.full(n, baseline),
        }
    ).with_columns(pl.col("feature", "matched_feature").cast(pl.Int32))
    frame = (
        frame.join(_counts(one, "feature", ""), on="feature", how="left")
        .join(_counts(other, "matched_feature", "matched_"), on="matched_feature", how="left")
        .join(_overlap(one, other, frame), on="feature", how="left")
        .with_columns(
            density_shift=pl.col("matched_log10_density") - pl.col("log10_density"),
            example_overlap=pl.col("n_common_examples")
            / (pl.col("n_examples") + pl.col("matched_n_examples") - pl.col("n_common_examples")),
        )
    )
    return (
        frame.sort("feature")
        .select(pl.col(name).cast(kind) for name, kind in MATCHING_SCHEMA.items())
        .with_columns(pl.col(pl.Float64).fill_nan(None))
    )


# ---- private -------------------------------------------------------------------------------------


def _unit_rows(rows: Tensor) -> tuple[NDArray[np.int64], Tensor]:
    """Numbers of the nonzero rows, and these rows scaled to norm 1, float32 on their device."""
    dense = rows.detach().float()
    norms = dense.norm(dim=1)
    kept = (norms > 0).nonzero().squeeze(1)
    return kept.cpu().numpy(), dense[kept] / norms[kept, None]


def _best(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine of each row of a with a row of b, and which, on the CPU; 256 MiB blocks."""
    size = max(1, 2**26 // len(b))
    parts = [(rows @ b.T).max(dim=1) for rows in torch.split(a, size)]
    return torch.cat([p.values for p in parts]).cpu(), torch.cat([p.indices for p in parts]).cpu()


def _assign(a: Tensor, b: Tensor, exact_limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    left, right = np.arange(len(a)), np.arange(len(b))
    pairs_a: list[NDArray[np.int64]] = []
    pairs_b: list[NDArray[np.int64]] = []
    # Each round matches at least the largest cosine that is left, so the loop ends.
    while len(left) and len(right) and max(len(left), len(right)) > exact_limit:
        _, to_b = _best(a[left], b[right])
        _, to_a = _best(b[right], a[left])
        mutual = (to_a[to_b] == torch.arange(len(left))).numpy()
        chosen = to_b.numpy()[mutual]
        if not len(chosen):  # only rounding can make best choices run in a circle
            break
        pairs_a.append(left[mutual])
        pairs_b.append(right[chosen])
        left, right = left[~mutual], np.delete(right, chosen)
    if len(left) and len(right):
        rows, columns = linear_sum_assignment((a[left] @ b[right].T).cpu().numpy(), maximize=True)
        pairs_a.append(left[rows])
        pairs_b.append(right[columns])
    return np.concatenate(pairs_a), np.concatenate(pairs_b)


def _encoder_cosine(
    one: Tensor | None, other: Tensor | None, matched: NDArray[np.int64]
) -> NDArray[np.float64]:
    result = np.full(len(matched), np.nan)
    if one is None or other is None:
        return result
    rows = np.flatnonzero(matched >= 0)
    a, b = one.detach().cpu()[rows].double(), other.detach().cpu()[matched[rows]].double()
    result[rows] = ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))).numpy()
    return result


def _counts(side: ComparedSae, key: str, prefix: str) -> pl.DataFrame:
    return side.statistics.select(
        pl.col("feature").cast(pl.Int32).alias(key),
        pl.col("n_active").alias(f"{prefix}n_active"),
        pl.col("log10_density").alias(f"{prefix}log10_density"),
    )


def _overlap(one: ComparedSae, other: ComparedSae, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns feature, n_examples, matched_n_examples, n_common_examples."""
    columns = ("n_examples", "matched_n_examples", "n_common_examples")
    if one.examples is None or other.examples is None:
        return frame.select("feature", *(pl.lit(None, pl.Int64).alias(name) for name in columns))
    place = ["sequence", "position"]
    mine = one.examples.select(pl.col("feature").cast(pl.Int32), *place)
    theirs = other.examples.select(pl.col("feature").cast(pl.Int32), *place)
    pairs = frame.select("feature", "matched_feature").drop_nulls()
    common = (
        mine.join(pairs, on="feature")
        .join(theirs, left_on=["matched_feature", *place], right_on=["feature", *place])
        .group_by("feature")
        .agg(pl.len().alias("n_common_examples"))
    )
    matched_counts = theirs.group_by("feature").agg(pl.len().alias("matched_n_examples"))
    return (
        pairs.join(mine.group_by("feature").agg(pl.len().alias("n_examples")), on="feature")
        .join(matched_counts, left_on="matched_feature", right_on="feature")
        .join(common, on="feature", how="left")
        .select("feature", pl.col(*columns).fill_null(0))
    )
