"""Ours beside theirs, key by key.

Belongs here: differences, agreement of sets of heads, the judgement. Does not belong here: where
values come from (measures.py, reference_file.py), conditions (conditions.py) and printing.

A value is judged where a bound says how far it may be off: a tolerance, or the source's interval.
It is not judged where the run's conditions are others than the reference's, nor where it is a ratio
that divides by less than SMALLEST_DIVISOR of the unedited model's value: noise of the numerator is
multiplied tenfold and more there, so that small differences of the SAEs decide the ratio.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from mechinterp_assets.reproduction.conditions import as_text, unshared
from mechinterp_assets.reproduction.measures import NOTHING, Found, Measure, Measured
from mechinterp_assets.reproduction.reference_file import Reference, ReferenceFileError

SMALLEST_DIVISOR = 0.1
Judgement = Literal["within", "outside", "other_condition", "unstable", "missing", "no_bound"]

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
    "divisor_share": pl.Float64(),
    "judgement": pl.String(),
    "statistic": pl.String(),
    "measured_at": pl.String(),
    "condition": pl.String(),
    "own_condition": pl.String(),
    "other_condition": pl.List(pl.String()),
    "reference_source": pl.String(),
    "dataset": pl.String(),
    "needs": pl.String(),
    "reason": pl.String(),
}


def compare(
    references: Sequence[Reference],
    measures: Mapping[str, Measure],
    measured: Measured,
    run: Mapping[str, str],
) -> pl.DataFrame:
    """One row per reference and key: frame reproduction (columns: sql/tables/reproduction.sql).

    measures: those that the references name. measured: measure -> key -> value; one that is not
    there, or NaN, is NULL. run: conditions of the study's run. Raises ReferenceFileError where a
    reference holds numbers and its measure heads, or the other way round, and where it leaves out a
    condition that its measure depends on.
    """
    rows = []
    for one in references:
        measure, found = measures[one.measure], measured.get(one.measure, {})
        shared = _shared(one, measure, run)
        for key in one.values or one.heads:
            ours = _defined(found.get(key, NOTHING))
            row = _heads(one, key, ours) if one.heads else _number(one, key, ours)
            row |= shared | {"divisor_share": ours.divisor_share}
            row["judgement"] = _judgement(row)
            rows.append({"reference_id": one.id, "key": key, "what": one.what} | row)
    return pl.DataFrame(rows, schema=SCHEMA)


def failures(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of an earlier run that this one misses: outside their tolerance, or without a value.

    Published numbers have no tolerance and are never among them.
    """
    may_pass = pl.col("judgement").is_in(["within", "other_condition", "unstable"])
    return rows.filter(pl.col("tolerance").is_not_null() & ~may_pass.fill_null(False))


def _shared(one: Reference, measure: Measure, run: Mapping[str, str]) -> dict[str, object]:
    """What the rows of a reference have in common."""
    wanted = one.depends_on
    unsaid = [name for name in (*measure.fixed, *measure.of_run) if name not in wanted]
    if unsaid:
        raise ReferenceFileError(
            f"{one.id}: {measure.name} depends on {', '.join(unsaid)}; say under `condition` what "
            "the source had, or `not said`"
        )
    own = measure.conditions(run)
    return {
        "statistic": one.statistic,
        "measured_at": one.position,
        "dataset": one.dataset,
        "needs": one.needs,
        "condition": as_text(one.condition),
        "own_condition": as_text({name: own[name] for name in wanted if name in own}),
        "other_condition": unshared(wanted, own),
        "reference_source": one.source,
        "reason": one.reason,
    }


def _judgement(row: Mapping[str, object]) -> Judgement:
    ours, difference, share = row["ours"], row["difference"], row["divisor_share"]
    low, high, tolerance = row["ci_low"], row["ci_high"], row["tolerance"]
    if not isinstance(ours, float) or not isinstance(difference, float):
        return "missing"
    if row["other_condition"]:
        return "other_condition"
    if isinstance(share, float) and not share >= SMALLEST_DIVISOR:
        return "unstable"
    if isinstance(tolerance, float):
        return "within" if abs(difference) <= tolerance else "outside"
    if isinstance(low, float) and isinstance(high, float):
        return "within" if low <= ours <= high else "outside"
    return "no_bound"


def _defined(found: Found) -> Found:
    """Without a value where that is NaN."""
    is_nan = isinstance(found.value, float) and math.isnan(found.value)
    return Found(None, found.divisor_share) if is_nan else found


def _number(one: Reference, key: str, found: Found) -> dict[str, object]:
    ours = found.value
    if isinstance(ours, list):
        raise ReferenceFileError(
            f"{one.id}: measure {one.measure} gives heads; write them under heads"
        )
    reference = one.values[key]
    low, high = reference.interval or (None, None)
    return {
        "reference_kind": "number",
        "ours": ours,
        "reference_value": reference.value,
        "ci_low": low,
        "ci_high": high,
        "difference": None if ours is None else ours - reference.value,
        "tolerance": None if one.tolerance is None else one.tolerance.allowed(reference.value),
    }


def _heads(one: Reference, key: str, found: Found) -> dict[str, object]:
    ours = found.value
    if isinstance(ours, float):
        raise ReferenceFileError(
            f"{one.id}: measure {one.measure} gives numbers; write them under values"
        )
    theirs = one.heads_of(key)
    row: dict[str, object] = {
        "reference_kind": "heads",
        "ours": None,
        "reference_value": float(len(theirs)),
        "ci_low": None,
        "ci_high": None,
        "reference_heads": theirs,
        "difference": None,
        "tolerance": None if one.tolerance is None else one.tolerance.allowed(len(theirs)),
    }
    if ours is None:
        return row
    both = set(ours) & set(theirs)
    return row | {
        "ours": float(len(ours)),
        "our_heads": ours,
        "precision": len(both) / len(ours) if ours else None,
        "recall": len(both) / len(theirs) if theirs else None,
        "difference": float(len(set(ours) ^ set(theirs))),
    }
