"""Ours beside theirs, key by key.

Belongs here: differences, agreement of sets of heads, what counts as within. Does not belong here:
where values come from (measures.py, reference_file.py) and printing.
"""

import math
from collections.abc import Sequence

import polars as pl

from mechinterp_assets.reproduction.measures import Measured, Value
from mechinterp_assets.reproduction.reference_file import Reference, ReferenceFileError

SCHEMA: dict[str, pl.DataType] = {
    "reference_id": pl.String(),
    "key": pl.String(),
    "what": pl.String(),
    "reference_kind": pl.String(),
    "ours": pl.Float64(),
    "reference_value": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "our_heads": pl.List(pl.String()),
    "reference_heads": pl.List(pl.String()),
    "precision": pl.Float64(),
    "recall": pl.Float64(),
    "difference": pl.Float64(),
    "tolerance": pl.Float64(),
    "within": pl.Boolean(),
    "reference_source": pl.String(),
    "dataset": pl.String(),
    "needs": pl.String(),
    "reason": pl.String(),
}


def compare(references: Sequence[Reference], measured: Measured) -> pl.DataFrame:
    """One row per reference and key: frame reproduction (columns: sql/tables/reproduction.sql).

    measured: measure -> key -> value. A value that is not there, or NaN, is NULL; with a tolerance
    that is not within, since a rerun lost it. Raises ReferenceFileError where a reference holds
    numbers and its measure heads, or the other way round.
    """
    rows = []
    for one in references:
        found = measured.get(one.measure, {})
        for key in one.values or one.heads:
            ours = found.get(key)
            row = _heads(one, key, ours) if one.heads else _number(one, key, ours)
            rows.append({"reference_id": one.id, "key": key, "what": one.what} | row | _shared(one))
    return pl.DataFrame(rows, schema=SCHEMA)


def failures(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows outside their tolerance; published numbers have none and are never among them."""
    return rows.filter(pl.col("tolerance").is_not_null() & ~pl.col("within").fill_null(False))


def _shared(one: Reference) -> dict[str, object]:
    said = {name: getattr(one, name) for name in ("dataset", "needs", "reason")}
    return {"reference_source": one.source, **said}


def _number(one: Reference, key: str, ours: Value) -> dict[str, object]:
    if isinstance(ours, list):
        raise ReferenceFileError(
            f"{one.id}: measure {one.measure} gives heads; write them under heads"
        )
    reference = one.values[key]
    if ours is not None and math.isnan(ours):
        ours = None
    allowed = None if one.tolerance is None else one.tolerance.allowed(reference.value)
    low, high = reference.interval or (None, None)
    difference = None if ours is None else ours - reference.value
    within: bool | None = None
    if allowed is not None:
        within = difference is not None and abs(difference) <= allowed
    elif low is not None and high is not None and ours is not None:
        within = low <= ours <= high
    return {
        "reference_kind": "number",
        "ours": ours,
        "reference_value": reference.value,
        "ci_low": low,
        "ci_high": high,
        "difference": difference,
        "tolerance": allowed,
        "within": within,
    }


def _heads(one: Reference, key: str, ours: Value) -> dict[str, object]:
    if isinstance(ours, float):
        raise ReferenceFileError(
            f"{one.id}: measure {one.measure} gives numbers; write them under values"
        )
    theirs = one.heads_of(key)
    allowed = None if one.tolerance is None else one.tolerance.allowed(len(theirs))
    row: dict[str, object] = {
        "reference_kind": "heads",
        "reference_value": float(len(theirs)),
        "reference_heads": theirs,
        "tolerance": allowed,
        "within": None if allowed is None else False,
    }
    if ours is None:
        return row
    both = set(ours) & set(theirs)
    difference = float(len(set(ours) ^ set(theirs)))
    return row | {
        "ours": float(len(ours)),
        "our_heads": ours,
        "precision": len(both) / len(ours) if ours else None,
        "recall": len(both) / len(theirs) if theirs else None,
        "difference": difference,
        "within": None if allowed is None else difference <= allowed,
    }
