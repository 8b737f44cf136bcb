"""Labels that people give features: reading them, and how many features they call interpretable.

Belongs here: the format of label files, their checks, interpretable shares, and sheets to fill in.
Agreement between raters is the SQL view feature_label_agreement.

A label file is a CSV with a header: rater, study, layer, feature, label, verdict (yes, no or
unsure: is the feature interpretable?), note; and, if it likes, sae: the weights_hash of the SAE
that was looked at, so that labels of an SAE since retrained are refused. Other columns, such as
links in a sheet, are passed over.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.labels.files import (
    LabelError,
    LabelledSae,
    check_rater,
    check_sae,
    label_rows,
    labelled_feature,
    whole_number,
)
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson

COLUMNS = ("rater", "study", "layer", "feature", "label", "verdict", "note")
SHEET_COLUMNS = (*COLUMNS, "sae", "dashboard")
VERDICTS = ("yes", "no", "unsure")

LABELS_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "feature": pl.Int32,
    "rater": pl.String,
    "label": pl.String,
    "verdict": pl.String,
    "note": pl.String,
    "file": pl.String,
    "line": pl.Int32,
}
SUMMARY_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "rater": pl.String,
    "n_labelled": pl.Int64,
    "n_interpretable": pl.Int64,
    "n_unsure": pl.Int64,
    "interpretable_share": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
}


def read_labels(
    files: Mapping[str, str], study: str, saes: Mapping[int, LabelledSae]
) -> pl.DataFrame:
    """Rows of the table feature_labels (without study), sorted by layer, feature and rater.

    Args:
        files: name -> text of each CSV file.
        study: the study that lists them.
        saes: layer -> its SAE.

    Raises:
        LabelError: every wrong line, one message per line.
    """
    rows = label_rows(
        files,
        COLUMNS,
        lambda record: _row(record, study, saes),
        lambda row: f"layer {row['layer']} feature {row['feature']}",
    )
    return pl.DataFrame(rows, schema=LABELS_SCHEMA).sort("layer", "feature", "rater")


def label_summary(labels: pl.DataFrame) -> pl.DataFrame:
    """Rows of feature_label_summary (without study): interpretable shares with 95% intervals.

    One row per layer and rater, per layer (rater NULL), per rater (layer NULL) and one for all. In
    rows without a rater a feature counts as interpretable when all who labelled it say yes, and as
    unsure when it does not and somebody was unsure.
    """
    agreed = labels.group_by("layer", "feature").agg(
        rater=pl.lit(None, pl.String),
        yes=(pl.col("verdict") == "yes").all(),
        unsure=(pl.col("verdict") == "unsure").any(),
    )
    single = labels.select(
        "layer",
        "feature",
        "rater",
        yes=pl.col("verdict") == "yes",
        unsure=pl.col("verdict") == "unsure",
    )
    every = pl.concat([single, agreed.select(single.columns)])
    every = pl.concat([every, every.with_columns(layer=pl.lit(None, pl.Int32))])
    counts = (
        every.group_by("layer", "rater")
        .agg(
            n_labelled=pl.len(),
            n_interpretable=pl.col("yes").sum(),
            n_unsure=(pl.col("unsure") & ~pl.col("yes")).sum(),
        )
        .sort("layer", "rater", nulls_last=True)
    )
    low, high = clopper_pearson(
        counts["n_interpretable"].to_numpy(), counts["n_labelled"].to_numpy()
    )
    return counts.with_columns(
        interpretable_share=pl.col("n_interpretable") / pl.col("n_labelled"),
        ci_low=pl.Series(low),
        ci_high=pl.Series(high),
    ).select(pl.col(name).cast(kind) for name, kind in SUMMARY_SCHEMA.items())


def sample_features(alive: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """n of the features drawn at random without replacement, ascending (all if fewer)."""
    drawn: NDArray[np.int64] = np.random.default_rng(seed).choice(
        np.sort(alive), min(n, len(alive)), replace=False
    )
    return np.sort(drawn)


def label_sheet(
    study: str, layer: int, features: NDArray[np.int64], sae: str, links: Mapping[int, str]
) -> str:
    """CSV text to fill in: one line per feature, with a link to its page.

    Args:
        features: see `sample_features`.
        sae: weights_hash of the SAE, so that the labels stay with it.
        links: feature -> address of its page; a feature without one gets an empty cell.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, SHEET_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for feature in features.tolist():
        writer.writerow(
            {
                "study": study,
                "layer": layer,
                "feature": feature,
                "sae": sae,
                "dashboard": links.get(feature, ""),
            }
        )
    return out.getvalue()


# ---- private -------------------------------------------------------------------------------------


def _row(record: dict[str, str], study: str, saes: Mapping[int, LabelledSae]) -> dict[str, Any]:
    check_rater(record, study)
    verdict = record["verdict"].lower()
    if verdict not in VERDICTS:
        raise LabelError(f"verdict is {record['verdict']!r}; write {', '.join(VERDICTS)}")
    layer = whole_number(record, "layer")
    if layer not in saes:
        known = ", ".join(map(str, sorted(saes)))
        raise LabelError(f"layer {layer} has no SAE in {study}; layers with one: {known}")
    feature = labelled_feature(record, layer, saes[layer])
    check_sae(record, layer, saes[layer])
    return {
        "layer": layer,
        "feature": feature,
        "rater": record["rater"],
        "label": record["label"],
        "verdict": verdict,
        "note": record["note"],
    }
