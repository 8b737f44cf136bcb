"""What a measure of a feature family is, and the frame that holds measured values.

Belongs here: the shape of a measure and of its values. Which measures exist is in `families.py`;
how one is computed is in the file of its family.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from mechinterp_assets.statistics.clopper_pearson import clopper_pearson
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

FAMILIES_SCHEMA: dict[str, Any] = {
    "feature": pl.Int32,
    "family": pl.String,
    "measure": pl.String,
    "value": pl.Float64,
    "x": pl.Int64,
    "n": pl.Int64,
    "n_documents": pl.Int64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "null_value": pl.Float64,
    "threshold": pl.Float64,
    "min_n": pl.Int64,
    "meets_threshold": pl.Boolean,
    "required": pl.Boolean,
    "head": pl.Int32,
    "text": pl.String,
}


@dataclass(frozen=True)
class Measure:
    """One number per feature and what it says about a family.

    Attributes:
        family: family that the measure speaks for.
        name: value of the column `measure`.
        threshold: value from which on (`strict`: above which) the measure passes; None: it is
            stored without judgement.
        required: whether a feature needs to pass it to be labelled with the family.
        min_n: terms below which nothing is judged.
        strict: whether the value must exceed the threshold.
    """

    family: str
    name: str
    threshold: float | None
    required: bool = True
    min_n: int = 1
    strict: bool = False


@dataclass(frozen=True)
class Measured:
    """Values of one measure for some features; all arrays [feature].

    value: NaN where it is not defined. x: successes where the value is a share x / n. null_value:
    what chance alone would give, NaN where that is not defined. head and text: the head and the
    token or n-gram that the value is about. documents: the same shares by the documents that their
    terms are of; None: the terms are of no document.
    """

    feature: NDArray[np.int64]
    value: NDArray[np.float64]
    n: NDArray[np.int64]
    x: NDArray[np.int64] | None = None
    null_value: NDArray[np.float64] | None = None
    head: NDArray[np.int64] | None = None
    text: list[str | None] | None = field(default=None)
    documents: ClusteredShares | None = None

    @classmethod
    def share(
        cls, feature: NDArray[np.int64], x: ArrayLike, n: ArrayLike, **rest: Any
    ) -> "Measured":
        """Values that are shares x / n of terms that are of no document; NaN where n is 0."""
        successes, trials = np.asarray(x, dtype=np.int64), np.asarray(n, dtype=np.int64)
        value = successes / np.where(trials > 0, trials, np.nan)
        return cls(feature=feature, value=value, n=trials, x=successes, **rest)

    @classmethod
    def share_of_text(
        cls, feature: NDArray[np.int64], documents: ClusteredShares, **rest: Any
    ) -> "Measured":
        """Values that are shares of what documents hold; NaN where they hold nothing."""
        x, n = (values.astype(np.int64) for values in (documents.part, documents.whole))
        return cls.share(feature, x, n, documents=documents, **rest)


def measured_frame(measure: Measure, values: Measured) -> pl.DataFrame:
    """Rows of the table feature_families (without study and layer) of one measure."""
    size = len(values.feature)
    nan = np.full(size, np.nan)
    if values.documents is not None:
        low, high = values.documents.interval()
    else:
        low, high = (nan, nan) if values.x is None else clopper_pearson(values.x, values.n)
    frame = pl.DataFrame(
        {
            "feature": values.feature,
            "family": [measure.family] * size,
            "measure": [measure.name] * size,
            "value": values.value,
            "x": pl.Series([None] * size, dtype=pl.Int64) if values.x is None else values.x,
            "n": values.n,
            "n_documents": pl.Series([None] * size, dtype=pl.Int64)
            if values.documents is None
            else values.documents.n_clusters,
            "ci_low": low,
            "ci_high": high,
            "null_value": nan if values.null_value is None else values.null_value,
            "threshold": pl.Series([measure.threshold] * size, dtype=pl.Float64),
            "min_n": [measure.min_n] * size,
            "required": [measure.required] * size,
            "head": pl.Series([None] * size, dtype=pl.Int32)
            if values.head is None
            else pl.Series(values.head),
            "text": [None] * size if values.text is None else values.text,
        },
    ).with_columns(pl.col("value", "ci_low", "ci_high", "null_value").fill_nan(None))
    threshold = pl.col("threshold")
    above = pl.col("value") > threshold if measure.strict else pl.col("value") >= threshold
    passes = pl.when(pl.col("n") >= pl.col("min_n")).then(above)
    return frame.with_columns(meets_threshold=passes).select(
        pl.col(name).cast(dtype) for name, dtype in FAMILIES_SCHEMA.items()
    )
