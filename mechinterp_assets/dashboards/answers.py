"""What an experiment found, in one sentence computed from the rows that its picture shows.

Belongs here: a function per statement of sql/dashboards. Does not belong here: pictures
(experiment_figures.py, circuit_figures.py), the questions (interventions/published*.py).

Every function takes a statement's rows, at least one, and gives a sentence, or an empty text where
they do not allow one. "Changes" means that the 95% interval leaves out 0.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any, TypeGuard

import polars as pl

from mechinterp_assets.dashboards.charts import number, percent, signed
from mechinterp_assets.dashboards.places import feature_name

Row = dict[str, Any]
# A share of a difference that is smaller than this share of the untouched value says nothing.
SMALL = 0.1


def answer(statement: str, frame: pl.DataFrame) -> str:
    """The sentence of a statement's rows; empty for one without a function here, or no rows."""
    said = _ANSWERS.get(statement)
    return "" if said is None or frame.is_empty() else said(frame.to_dicts())


def unstable_share(row: Mapping[str, Any]) -> bool:
    """Whether a share recovered divides by almost nothing: ablation hardly changes the value."""
    clean, ablated = row.get("mean_clean"), row.get("mean_ablated")
    if not _finite(clean) or not _finite(ablated):
        return False
    return abs(clean - ablated) < SMALL * abs(clean)


# ---- private -------------------------------------------------------------------------------------


def _edges(rows: list[Row]) -> str:
    ablated = [row for row in _with(rows, "mean_effect") if row["mode"] == "ablate"]
    boosted = [row for row in _with(rows, "mean_effect") if row["mode"] == "boost"]
    if not ablated and not boosted:
        return ""
    parts = []
    for own, verb, below in ((ablated, "ablating", True), (boosted, "boosting", False)):
        if own:
            hurt = [row for row in own if _leaves_out_zero(row, below=below)]
            random = [row for row in own if _leaves_out_zero(row, "control_", below=below)]
            parts.append(
                f"{verb} {'hurts' if below else 'helps'} in {len(hurt)} of {len(own)} cases"
                f" (random slices in {len(random)})"
            )
    largest = _largest(ablated or boosted, "mean_effect")
    return (
        f"{_upper('; '.join(parts))}. The largest: {largest['upstream']} to "
        f"{largest['downstream']} ({largest['scope']}, {largest['mode']}) changes the logit "
        f"difference of {number(largest['mean_clean'])} by {signed(largest['mean_effect'])}."
    )


def _noising(rows: list[Row]) -> str:
    """Of all layers that are noised at once: shares of one layer alone are of another whole."""
    shares: dict[str, list[float]] = {}
    together = max((row["layers"] for row in rows), key=lambda name: name.count("+"), default="")
    for row in (row for row in rows if row["layers"] == together):
        name = "recovered" if row["ablated_run"] is None else "recovered_from_ablated"
        if _finite(row[name]):
            shares.setdefault(row["source_variant"] or "another prompt", []).append(row[name])
    if not shares:
        return ""
    kept = sorted(((fmean(values), name) for name, values in shares.items()), reverse=True)
    (most, first), (least, last) = kept[0], kept[-1]
    said = f"With {first} in {together}, {percent(most)} of the logit difference is left"
    return f"{said}." if len(kept) == 1 else f"{said}; with {last}, {percent(least)}."


def _splice(rows: list[Row]) -> str:
    score = [row for row in rows if row["metric"] == "logit_diff"]
    kept = _with(score, "recovered_from_ablated")
    if not kept:
        return ""
    stable = [row for row in kept if not unstable_share(row)]
    left_out = (
        f" {len(kept) - len(stable)} of {len(kept)} are left out: without those layers it changes "
        f"by less than {SMALL:.0%}, of which a share says nothing."
        if len(stable) < len(kept)
        else ""
    )
    if not stable:
        return left_out.strip()
    best = max(stable, key=lambda row: row["recovered_from_ablated"])
    worst = min(stable, key=lambda row: row["recovered_from_ablated"])
    middle = median(row["recovered_from_ablated"] for row in stable)
    return (
        f"Reconstructions recover {percent(middle)} of the logit difference in the median; "
        f"{percent(worst['recovered_from_ablated'])} ({worst['layers']}) to "
        f"{percent(best['recovered_from_ablated'])} ({best['layers']}).{left_out}"
    )


def _features(rows: list[Row]) -> str:
    known = _with(rows, "mean_effect")
    if not known:
        return ""
    changing = [row for row in known if _leaves_out_zero(row)]
    largest = _largest(known, "mean_effect")
    return (
        f"{len(changing)} of {len(known)} ablations change the logit difference of "
        f"{number(largest['mean_clean'])}; most of all "
        f"{feature_name(largest['layer'], largest['feature'])} at {largest['position_role']}, "
        f"by {signed(largest['mean_effect'])}."
    )


def _sets(rows: list[Row]) -> str:
    known = _with(rows, "joint_effect", "sum_of_members")
    known = [row for row in known if row["metric"] == "logit_diff"] or known
    if not known:
        return ""
    apart = [
        row
        for row in _with(known, "interaction", "interaction_se")
        if abs(row["interaction"]) > 2 * row["interaction_se"] > 0
    ]
    ratios = [
        row["joint_effect"] / row["sum_of_members"]
        for row in known
        if abs(row["sum_of_members"]) > 1e-9
    ]
    middle = f"; together they do {percent(median(ratios))} of the sum, in the median"
    return (
        f"{len(known) - len(apart)} of {len(known)} sets add up within two standard errors"
        f"{middle if ratios else ''}."
    )


def _magnitudes(rows: list[Row]) -> str:
    known = _with(rows, "mean_cosine", "mean_norm_ratio")
    if not known:
        return ""
    cosines = sorted(row["mean_cosine"] for row in known)
    ratios = sorted(row["mean_norm_ratio"] for row in known)
    return (
        f"The cosine between the stream with and without an edit is {cosines[0]:.4f} to "
        f"{cosines[-1]:.4f}, the ratio of norms {ratios[0]:.4f} to {ratios[-1]:.4f}, over "
        f"{len(known)} edits."
    )


def _effects(rows: list[Row]) -> str:
    known = _with(rows, "mean_effect")
    if not known:
        return ""
    metric = "logit_diff" if any(row["metric"] == "logit_diff" for row in known) else None
    own = [row for row in known if metric is None or row["metric"] == metric]
    changing = [row for row in own if _leaves_out_zero(row)]
    largest = _largest(own, "mean_effect")
    return (
        f"{len(changing)} of {len(own)} interventions change {own[0]['metric']}; most of all "
        f"{largest['part'] or largest['intervention']}, by {signed(largest['mean_effect'])}."
    )


def _faithfulness(rows: list[Row]) -> str:
    task = rows[0]["task"]
    found = {
        (row["ranking"], row["ranked_by"]): row["smallest_k_90"]
        for row in rows
        if row["task"] == task and row["ranking"] != "random" and _finite(row["smallest_k_90"])
    }
    random = [
        row["smallest_k_90"]
        for row in rows
        if row["task"] == task and row["ranking"] == "random" and _finite(row["smallest_k_90"])
    ]
    if not found:
        return "No ranking reaches 90% of the task with a part of the edges."
    (name, by), least = min(found.items(), key=lambda item: item[1])
    also = f"; edges in random order need {percent(min(random))}" if random else ""
    return (
        f"Ranked by {name} ({by}), {percent(least)} of the edges do 90% of the task {task}{also}."
    )


def _reuse(rows: list[Row]) -> str:
    known = _with(rows, "faithfulness")
    own = [row["faithfulness"] for row in known if row["heads_of"] == row["measured_on"]]
    others = [row["faithfulness"] for row in known if row["heads_of"] != row["measured_on"]]
    if not own or not others:
        return ""
    random = [row["random_faithfulness"] for row in _with(known, "random_faithfulness")]
    also = f", random heads {percent(fmean(random))}" if random else ""
    return (
        f"In the mean a task's own top heads keep {percent(fmean(own))} of it, those of another "
        f"task {percent(fmean(others))}{also}."
    )


def _qk_pairs(rows: list[Row]) -> str:
    known = _with(rows, "mean", "mean_score")
    if not known:
        return ""
    largest = _largest(known, "mean")
    return (
        f"The pair that adds most: {largest['query_part']} in the query and "
        f"{largest['key_part']} in the key of {largest['head']} (key at "
        f"{largest['source_role']}), {signed(largest['mean'])} of a mean score of "
        f"{number(largest['mean_score'])}."
    )


def _qk_variance(rows: list[Row]) -> str:
    known = [row for row in _with(rows, "variance_explained_held_out") if row["n_top_pairs"] <= 16]
    if not known:
        return ""
    best = max(known, key=lambda row: row["variance_explained_held_out"])
    return (
        f"At best, {best['n_top_pairs']} pairs explain "
        f"{percent(best['variance_explained_held_out'])} of the variance of a score on held-out "
        f"prompts ({best['head']}, key at {best['source_role']})."
    )


def _prefix(rows: list[Row]) -> str:
    classes: dict[str, list[str]] = {}
    for row in rows:
        heads = classes.setdefault(row["prefix_class"] or "other", [])
        if row["head"] not in heads:
            heads.append(row["head"])
    parts = [
        f"{len(classes[name])} need {meaning} ({', '.join(classes[name][:3])}"
        f"{', ...' if len(classes[name]) > 3 else ''})"
        for name, meaning in (("short", "a short match"), ("long", "a long one"))
        if name in classes
    ]
    n = sum(len(heads) for heads in classes.values())
    return (
        f"Of {n} heads, {' and '.join(parts)}." if parts else f"None of {n} heads does induction."
    )


_ANSWERS: dict[str, Callable[[list[Row]], str]] = {
    "experiment_edges": _edges,
    "experiment_noising": _noising,
    "experiment_splice": _splice,
    "experiment_features": _features,
    "experiment_sets": _sets,
    "experiment_magnitudes": _magnitudes,
    "experiment_effects": _effects,
    "faithfulness_curves": _faithfulness,
    "reuse_faithfulness": _reuse,
    "qk_pairs": _qk_pairs,
    "qk_variance": _qk_variance,
    "prefix_curves": _prefix,
}


def _with(rows: Iterable[Row], *names: str) -> list[Row]:
    """Rows in which these columns are numbers."""
    return [row for row in rows if all(_finite(row[name]) for name in names)]


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _leaves_out_zero(row: Row, prefix: str = "", *, below: bool | None = None) -> bool:
    """Whether an interval lies on one side of 0; on which, if that is asked for."""
    low, high = row[f"{prefix}ci_low"], row[f"{prefix}ci_high"]
    if not _finite(low) or not _finite(high):
        return False
    return bool((high < 0 and below is not False) or (low > 0 and below is not True))


def _largest(rows: Sequence[Row], name: str) -> Row:
    return max(rows, key=lambda row: abs(row[name]))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
