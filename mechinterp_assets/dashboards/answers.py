"""What an experiment found, in one sentence computed from the rows that its picture shows.

Belongs here: a function per statement of sql/dashboards. Does not belong here: pictures
(*_figures.py), the questions (interventions/published*.py).

Every function takes a statement's rows, at least one, and gives a sentence, or an empty text where
they do not allow one. "Changes" means that the 95% interval leaves out 0.
"""

import math
from collections import Counter
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


def _set_members(rows: list[Row]) -> str:
    known = _with(rows, "mean_effect")
    sets = [row for row in known if row["is_set"]]
    if not sets:
        return ""
    most = _largest(sets, "mean_effect")
    alone = sorted(
        row["mean_effect"]
        for row in known
        if not row["is_set"] and row["intervention"] == most["intervention"]
    )
    apart = f", each alone by {_span(alone)}" if alone else ""
    return (
        f"{_upper(most['part'])} ({most['scope']}): {most['edge']}, change the logit difference by "
        f"{signed(most['mean_effect'])}{apart}."
    )


def _slice_terms(rows: list[Row]) -> str:
    said: list[str] = []
    first = (rows[0]["head"], rows[0]["pair"])
    for fires, verb in ((True, "fires"), (False, "does not fire")):
        own = [row for row in rows if (row["head"], row["pair"]) == first and row["fires"] is fires]
        if not own:
            continue
        inside = [row["term"] for row in own if row["selected"]]
        whole = sum(row["term"] for row in own)
        name = "" if said else f"{first[0]}, {first[1]}, "
        said.append(
            f"{name}{verb} in prompt {own[0]['prompt']}: {len(inside)} of its {len(own)} terms are "
            f"in S and sum to {signed(sum(inside))}, the others to {signed(whole - sum(inside))}"
        )
    return f"{'; it '.join(said)}."


def _slice_prompts(rows: list[Row]) -> str:
    first = (rows[0]["head"], rows[0]["pair"])
    own = [row for row in rows if (row["head"], row["pair"]) == first]
    n_pairs = {row["fires"]: row["n_pairs"] for row in own}
    if True not in n_pairs:
        return ""
    uses = {kind: Counter(row["slice"] for row in own if row["fires"] is kind) for kind in n_pairs}
    most = min(uses[True], key=lambda k: (-uses[True][k], k))
    said = (
        f"Singular vector {most} is in S of {uses[True][most]} of {n_pairs[True]} prompts in which "
        f"{first[0]}, {first[1]}, fires"
    )
    if False not in n_pairs:
        return f"{said}."

    def apart(k: int) -> float:
        return abs(float(uses[True][k] / n_pairs[True] - uses[False][k] / n_pairs[False]))

    other = min(uses[True] | uses[False], key=lambda k: (-apart(k), k))
    return (
        f"{said}, and of {uses[False][most]} of {n_pairs[False]} in which it does not; most apart "
        f"is {other}, with {uses[True][other]} and {uses[False][other]}."
    )


def _slice_counts(rows: list[Row]) -> str:
    parts = []
    for text, name in (("ioi", "on the prompts"), ("corpus", "on unspecific text")):
        own = [row for row in rows if row["text_source"] == text and row["head"] == "all heads"]
        if not own:
            continue
        shares = {row["n_slices"]: row["share_of_pairs"] for row in own}
        below = 0.0
        for middle in sorted(shares):
            below += shares[middle]
            if below >= 0.5:
                break
        parts.append(f"{middle} {name} (one is enough for {percent(shares.get(1, 0.0))})")
    return f"Half of the firing pairs need at most this many slices: {', '.join(parts)}."


def _slice_usage(rows: list[Row]) -> str:
    best = _best(rows, "selected_share", "head", "fires")
    both = [head for head, fires in best if fires and (head, False) in best]
    if not both:
        return ""
    differ = [h for h in both if best[h, True]["slice"] != best[h, False]["slice"]]
    most = max((best[head, True] for head in both), key=lambda row: row["selected_share"])
    return (
        f"In {len(differ)} of {len(both)} heads pairs that fire select another slice most often "
        f"than pairs that do not; the steadiest is slice {most['slice']} of {most['head']}, in S "
        f"of {percent(most['selected_share'])} of its firing pairs."
    )


def _slice_contrast(rows: list[Row]) -> str:
    known = _with(rows, "effective_heads", "effective_heads_all_slices")
    if not known:
        return ""
    ratios = [row["effective_heads"] / row["effective_heads_all_slices"] for row in known]
    fewer = sum(ratio < 1 for ratio in ratios)
    return (
        f"Through S the effective number of contributing heads is {percent(median(ratios))} of "
        f"that through all slices, in the median; it is smaller in {fewer} of {len(known)} cases."
    )


def _slice_writers(rows: list[Row]) -> str:
    """Whether the same head contributes most through S as through all slices."""
    names = ("contribution_all_slices", "contribution")
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in _with(rows, *names):
        groups.setdefault((row["head"], row["pair"], row["side"]), []).append(row)
    if not groups:
        return ""
    most = {key: [_largest(own, name)["writer"] for name in names] for key, own in groups.items()}
    same = sum(every == chosen for every, chosen in most.values())
    shares = [
        sum(abs(row[name]) > 0.08 * abs(_largest(own, name)[name]) for row in own) / len(own)
        for name in names
        for own in groups.values()
    ]
    of_all, of_s = shares[: len(groups)], shares[len(groups) :]
    return (
        f"In {same} of {len(groups)} cases the head with the largest contribution is the same "
        f"through S as through all slices; {percent(median(of_s))} of heads contribute at least 8% "
        f"of the largest through S, {percent(median(of_all))} through all, in the median."
    )


def _token_signals(rows: list[Row]) -> str:
    """The node's own roles: what a node's query and key are largest at, among roles."""
    best = _best(rows, "mean_signal", "node", "side")
    if not best:
        return ""
    parts = []
    for side, what in (("destination", "query"), ("source", "key")):
        own = [row for (_, of), row in best.items() if of == side]
        hits = sum(row["position_role"] == row[f"{side}_role"] for row in own)
        if own:
            parts.append(f"the {what} signal in {hits} of {len(own)} nodes")
    return (
        "Of all roles the one that a node attends from or to carries the largest signal: "
        f"{', '.join(parts)}."
    )


def _token_norms(rows: list[Row]) -> str:
    """In what share of (token at the source role, another token) the first has the larger norm."""
    shares: dict[str, float] = {}
    for node in dict.fromkeys(row["node"] for row in rows):
        own = _with((row for row in rows if row["node"] == node), "mean_projection")
        inside = [row["mean_projection"] for row in own if row["at_source"]]
        others = [row["mean_projection"] for row in own if not row["at_source"]]
        if inside and others:
            won = sum((a > b) + 0.5 * (a == b) for a in inside for b in others)
            shares[node] = won / (len(inside) * len(others))
    if not shares:
        return ""
    best = max(shares, key=lambda node: shares[node])
    return (
        f"A token that stands at the source role has a larger norm than one that never does in "
        f"{percent(median(shares.values()))} of pairs of such tokens, in the median of "
        f"{len(shares)} nodes; most in {best}, {percent(shares[best])}."
    )


_ANSWERS: dict[str, Callable[[list[Row]], str]] = {
    "experiment_edges": _edges,
    "experiment_noising": _noising,
    "experiment_splice": _splice,
    "experiment_features": _features,
    "experiment_sets": _sets,
    "experiment_set_members": _set_members,
    "experiment_magnitudes": _magnitudes,
    "experiment_effects": _effects,
    "faithfulness_curves": _faithfulness,
    "reuse_faithfulness": _reuse,
    "qk_pairs": _qk_pairs,
    "qk_variance": _qk_variance,
    "prefix_curves": _prefix,
    "slice_terms": _slice_terms,
    "slice_prompts": _slice_prompts,
    "slice_counts": _slice_counts,
    "slice_usage": _slice_usage,
    "slice_contrast": _slice_contrast,
    "slice_writers": _slice_writers,
    "token_signals": _token_signals,
    "token_norms": _token_norms,
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


def _best(rows: Iterable[Row], name: str, *key: str) -> dict[tuple[Any, ...], Row]:
    """The row with the largest value of each key, of equals the first."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in _with(rows, name):
        of = tuple(row[column] for column in key)
        if of not in best or row[name] > best[of][name]:
            best[of] = row
    return best


def _span(values: Sequence[float]) -> str:
    """Of sorted values, the first and the last."""
    first, last = signed(values[0]), signed(values[-1])
    return first if first == last else f"{first} to {last}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
