"""Labels that people give heads: what each of a head's top features means, and how many things the
head does; the shares of K24 Table 3.

Belongs here: the format of these label files, their checks, shares of each class, sheets to fill
in. Does not belong here: the automatic proxy (polysemanticity.py), labels of single features
(labels/features.py).

A file is a CSV with a header: rater, study, layer, head, feature, label, class, note; and, if it
likes, sae: the weights_hash of the SAE whose features were looked at. A line without a feature is a
rater's verdict on the head and has a class. A line with a feature says what that feature means and
has none. Lines of features with neither label nor note are passed over, and lines in which a person
wrote nothing at all, so that a sheet may be filled in partly; as are other columns, such as links.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mechinterp_assets.labels.files import (
    LabelError,
    LabelledSae,
    check_rater,
    check_sae,
    label_rows,
    labelled_feature,
    whole_number,
)
from mechinterp_assets.model.names import head_name
from mechinterp_assets.statistics.clopper_pearson import clopper_pearson

COLUMNS = ("rater", "study", "layer", "head", "feature", "label", "class", "note")
SHEET_COLUMNS = (*COLUMNS, "sae", "frequent_tokens", "dashboard")
# K24 Table 3, in its order: one meaning; one but for a minor exception; two; more.
CLASSES = ("monosemantic", "minor exception", "bisemantic", "polysemantic")
NO_MAJORITY = "no majority"

HEAD_LABELS_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "feature": pl.Int32,
    "rater": pl.String,
    "label": pl.String,
    "class": pl.String,
    "note": pl.String,
    "file": pl.String,
    "line": pl.Int32,
}
HEAD_SUMMARY_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "rater": pl.String,
    "class": pl.String,
    "n_classified": pl.Int64,
    "n_class": pl.Int64,
    "class_share": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
}


def read_head_labels(
    files: Mapping[str, str], study: str, n_heads: int, saes: Mapping[int, LabelledSae]
) -> pl.DataFrame:
    """Rows of the table head_labels (without study), sorted by layer, head, feature and rater.

    Args:
        files: name -> text of each CSV file.
        study: the study that lists them.
        n_heads: heads per layer.
        saes: layer -> its SAE.

    Raises:
        LabelError: every wrong line, one message per line.
    """

    def row(record: dict[str, str]) -> dict[str, Any] | None:
        filled = any(record[column] for column in ("label", "class", "note"))
        if not filled and (record["feature"] or not record["rater"]):
            return None
        return _row(record, study, n_heads, saes)

    def labelled(row: Mapping[str, Any]) -> str:
        what = "" if row["feature"] is None else f" feature {row['feature']}"
        return f"head {head_name(row['layer'], row['head'])}{what}"

    rows = label_rows(files, COLUMNS, row, labelled)
    frame = pl.DataFrame(rows, schema=HEAD_LABELS_SCHEMA)
    return frame.sort("layer", "head", "feature", "rater", nulls_last=False)


def head_label_summary(labels: pl.DataFrame) -> pl.DataFrame:
    """Rows of head_label_summary (without study): shares of the classes with 95% intervals.

    One row per class for each layer and rater, layer (rater NULL), rater (layer NULL), and for all.
    In rows without a rater a head counts once, in the class that more than half of its raters gave
    it, or as 'no majority'.
    """
    single = labels.filter(pl.col("feature").is_null()).select("layer", "head", "rater", "class")
    votes = single.group_by("layer", "head", "class").agg(n=pl.len())
    agreed = votes.group_by("layer", "head").agg(
        rater=pl.lit(None, pl.String),
        **{
            "class": pl.when(2 * pl.col("n").max() > pl.col("n").sum())
            .then(pl.col("class").sort_by("n").last())
            .otherwise(pl.lit(NO_MAJORITY))
        },
    )
    every = pl.concat([single, agreed.select(single.columns)])
    every = pl.concat([every, every.with_columns(layer=pl.lit(None, pl.Int32))])
    groups = every.group_by("layer", "rater").agg(n_classified=pl.len())
    order = (*CLASSES, NO_MAJORITY)
    wanted = pl.DataFrame({"class": order, "order": range(len(order))})
    found = (
        groups.join(wanted, how="cross")
        .filter(pl.col("rater").is_null() | (pl.col("class") != NO_MAJORITY))
        .join(
            every.group_by("layer", "rater", "class").agg(n_class=pl.len()),
            on=["layer", "rater", "class"],
            how="left",
            nulls_equal=True,
        )
        .with_columns(pl.col("n_class").fill_null(0))
        .sort("layer", "rater", "order", nulls_last=True)
    )
    low, high = clopper_pearson(found["n_class"].to_numpy(), found["n_classified"].to_numpy())
    return found.with_columns(
        class_share=pl.col("n_class") / pl.col("n_classified"),
        ci_low=pl.Series(low),
        ci_high=pl.Series(high),
    ).select(pl.col(name).cast(kind) for name, kind in HEAD_SUMMARY_SCHEMA.items())


def sample_heads(heads: list[tuple[int, int]], n: int, seed: int) -> list[tuple[int, int]]:
    """n of the (layer, head) drawn at random without replacement, ascending (all if fewer)."""
    ordered = sorted(heads)
    drawn = np.random.default_rng(seed).choice(
        len(ordered), min(n, len(ordered)), replace=False, shuffle=False
    )
    return [ordered[i] for i in sorted(drawn.tolist())]


def head_label_sheet(
    study: str,
    features: pl.DataFrame,
    saes: Mapping[int, LabelledSae],
    links: Mapping[tuple[int, int], str],
) -> str:
    """CSV text to fill in: per head one line for its class, then one per feature.

    Args:
        study: name of the study.
        features: rows of head_features of the heads to label, in the order they shall have.
        saes: layer -> SAE, so that the labels stay with it.
        links: (layer, head) -> address of its page; a head without one gets an empty cell.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, SHEET_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    previous: tuple[int, int] | None = None
    rows = features.select("layer", "head", "feature", "frequent_tokens").iter_rows()
    for layer, head, feature, fires_on in rows:
        line = {"study": study, "layer": layer, "head": head, "sae": saes[layer].weights_hash}
        if (layer, head) != previous:
            writer.writerow({**line, "dashboard": links.get((layer, head), "")})
            previous = (layer, head)
        # Quoted, so that a token that looks like a formula is text to a spreadsheet.
        shown = " | ".join(repr(token) for token in fires_on)
        writer.writerow({**line, "feature": feature, "frequent_tokens": shown})
    return out.getvalue()


# ---- private -------------------------------------------------------------------------------------


def _row(
    record: dict[str, str], study: str, n_heads: int, saes: Mapping[int, LabelledSae]
) -> dict[str, Any]:
    check_rater(record, study)
    layer, head = whole_number(record, "layer"), whole_number(record, "head")
    if layer not in saes:
        known = ", ".join(map(str, sorted(saes)))
        raise LabelError(f"layer {layer} has no SAE in {study}; layers with one: {known}")
    if head >= n_heads:
        raise LabelError(
            f"head {head_name(layer, head)} does not exist; "
            f"layers of {study} have heads 0..{n_heads - 1}"
        )
    check_sae(record, layer, saes[layer])
    given = record["class"].lower()
    if record["feature"]:
        if given:
            raise LabelError(
                f"class is {record['class']!r} on the line of a feature; the class belongs to the "
                "head's own line, whose feature is empty"
            )
        feature = labelled_feature(record, layer, saes[layer])
    else:
        if given not in CLASSES:
            raise LabelError(f"class is {record['class']!r}; write {', '.join(CLASSES)}")
        feature = None
    return {
        "layer": layer,
        "head": head,
        "feature": feature,
        "rater": record["rater"],
        "label": record["label"],
        "class": given or None,
        "note": record["note"],
    }
