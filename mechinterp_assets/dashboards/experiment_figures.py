"""Pictures of intervention experiments, a function per kind of experiment.

Belongs here: which columns of a statement's rows become which marks, and what a picture says of
itself. Does not belong here: the statements (sql/dashboards), geometry (plots.py), and which
experiments there are (experiments_page.py).

Every function takes the rows of one statement and gives a Figure, or None where they have nothing
to draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import number, tiny_bar_chart
from mechinterp_assets.dashboards.places import feature_name
from mechinterp_assets.dashboards.plots import (
    Mark,
    Point,
    colour,
    interval_plot,
    scatter_plot,
    value_map,
)

MAX_ROWS = 40  # rows drawn in one plot; the strongest where there are more
SHARES = (-1.0, 2.0)  # shares recovered beyond are drawn up to there
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """Pictures of one statement's rows.

    Attributes:
        title: what is shown.
        pictures: caption and SVG of each.
        legend: name and CSS class of each colour.
        note: how to read it.
        frame: the rows, for the table of numbers.
        hidden: columns that the table of numbers leaves out.
        thumbnail: a small picture of the same as a data URI, for metadata.
    """

    title: str
    pictures: Sequence[tuple[str, Markup]]
    frame: pl.DataFrame
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    hidden: Sequence[str] = field(default=())
    thumbnail: str = ""


def noising(frame: pl.DataFrame) -> Figure | None:
    """Share of the logit difference that is left, per variant, layer and baseline."""
    if frame.is_empty():
        return None
    rows = frame.to_dicts()
    references = sorted({_baseline(row["ablated_run"]) for row in rows if row["ablated_run"]})
    series = references or ["the counterfactual"]
    panels: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for (layers, site, role), own in _grouped(rows, "layers", "site", "position_role"):
        variants = {row["source_variant"] or "–" for row in own}
        # Layers with one variant share a panel.
        alone = len(variants) == 1
        panel = f"{variants.pop()} in each layer" if alone else f"{layers}, {site} at {role}"
        for row in own:
            name = _baseline(row["ablated_run"]) if references else series[0]
            line = f"{layers}, {site} at {role}" if alone else row["source_variant"] or "–"
            panels.setdefault(panel, {}).setdefault(line, {})[name] = row
    pictures = []
    for panel, by_line in panels.items():
        drawn = [
            (line, [_kept(found.get(name), name) for name in series])
            for line, found in by_line.items()
        ]
        pictures.append(
            (
                panel,
                interval_plot(
                    drawn[:MAX_ROWS],
                    label=f"share recovered: {panel}",
                    axis="share of the logit difference that is left",
                    bars=True,
                    lines={1.0: "unedited run"},
                    within=SHARES,
                    width=300,
                ),
            )
        )
    return Figure(
        "Activations of another prompt, by variant",
        pictures,
        frame,
        legend=[(f"0 is: {name}", colour(i)) for i, name in enumerate(series)],
        note=(
            "(patched - base) / (clean - base), of means over prompts; 1 (dashed) is the unedited "
            "run. Whiskers: 95% bootstrap intervals over prompts. Drawn from -1 to 2."
        ),
        thumbnail=_thumbnail(frame["recovered_from_ablated" if references else "recovered"]),
    )


def splice(frame: pl.DataFrame) -> Figure | None:
    """Logit difference recovered and KL when z is replaced by its reconstruction."""
    if frame.is_empty():
        return None
    pictures = []
    score = frame.filter(pl.col("metric") == "logit_diff").to_dicts()
    several = len({row["ablated_run"] is not None and _kind(row["ablated_run"]) for row in score})
    if score:
        rows = [
            (
                _of_ablated(row) if several > 1 else row["layers"],
                [
                    Mark(
                        row["recovered_from_ablated"],
                        row["recovered_from_ablated_ci_low"],
                        row["recovered_from_ablated_ci_high"],
                        f"{row['layers']} spliced",
                    )
                ],
            )
            for row in score
        ]
        pictures.append(
            (
                "Logit difference recovered",
                interval_plot(
                    rows[:MAX_ROWS],
                    label="logit difference recovered by layers",
                    axis="share of the logit difference recovered",
                    bars=True,
                    lines={1.0: "unedited run"},
                    within=SHARES,
                    width=300,
                ),
            )
        )
    divergence = frame.filter(pl.col("metric") == "kl").to_dicts()
    if divergence:
        rows = [
            (
                _of_ablated(row) if several > 1 else row["layers"],
                [
                    Mark(row["mean_patched"], row["ci_low"], row["ci_high"], "spliced"),
                    Mark(row["mean_ablated"], title="ablated"),
                ],
            )
            for row in divergence
        ]
        pictures.append(
            (
                "KL of the next token",
                interval_plot(
                    rows[:MAX_ROWS],
                    label="KL by layers, spliced and ablated",
                    axis="KL(clean || edited), nats",
                    bars=True,
                    width=300,
                ),
            )
        )
    return Figure(
        "SAEs in place of z",
        pictures,
        frame,
        legend=[("spliced", colour(0)), ("the same layers ablated", colour(1))],
        note=(
            "Recovered: 1 is the unedited run, 0 the run with z of these layers ablated, at every "
            "position but BOS; drawn from -1 to 2. A row with several layers has all of their SAEs "
            "at once."
        ),
        thumbnail=_thumbnail(
            frame.filter(pl.col("metric") == "logit_diff")["recovered_from_ablated"]
        ),
    )


def features(frame: pl.DataFrame) -> Figure | None:
    """Effect of ablating features, whole or as receivers see them; by template as a map."""
    if frame.is_empty():
        return None
    rows = sorted(frame.to_dicts(), key=lambda row: row["mean_effect"])
    kept = sorted(
        sorted(rows, key=lambda row: -_largest_of_orders(row))[:MAX_ROWS],
        key=lambda row: (row["layer"], row["mean_effect"], row["feature"] or -1),
    )
    paths = {
        "whole": ("ablation", None),
        "direct path into heads": ("path", False),
        "path into heads, MLPs recomputed": ("path", True),
    }
    present = [(key, name) for name, key in paths.items() if any(_way(row) == key for row in rows)]
    drawn: dict[str, dict[tuple[str, bool | None], Mark]] = {}
    for row in kept:
        receivers = f"{row['receiver']} of {row['receivers']}" if row["receivers"] else "all"
        mark = Mark(row["mean_effect"], row["ci_low"], row["ci_high"], f"as read by {receivers}")
        drawn.setdefault(_feature(row), {})[_way(row)] = mark
    pictures = [
        (
            "All prompts",
            interval_plot(
                [
                    (name, [found.get(way, Mark(None)) for way, _ in present])
                    for name, found in drawn.items()
                ],
                label="effect of ablating each feature",
                axis="change of the logit difference",
                width=320,
            ),
        )
    ]
    orders = sorted({one["name_order"] for row in kept for one in _orders(row)})
    for order in orders if len(orders) > 1 else ():
        effects: dict[str, dict[tuple[str, bool | None], Mark]] = {}
        for row in kept:
            of_order = [one for one in _orders(row) if one["name_order"] == order]
            for one in of_order:
                mark = Mark(one["effect"], title=f"mean of {one['n']} prompts")
                effects.setdefault(_feature(row), {})[_way(row)] = mark
        pictures.append(
            (
                f"{order} prompts",
                interval_plot(
                    [
                        (name, [found.get(way, Mark(None)) for way, _ in present])
                        for name, found in effects.items()
                    ],
                    label=f"effect of ablating each feature in {order} prompts",
                    axis="change of the logit difference",
                    width=320,
                ),
            )
        )
    for way, name in present:
        own = [row for row in kept if _way(row) == way]
        by_template = [
            {one["template"]: one["effect"] for one in row["by_template"] or () if one["template"]}
            for row in own
        ]
        templates = sorted({name for found in by_template for name in found}, key=_natural)
        if len(templates) > 1:
            largest = max(abs(value) for found in by_template for value in found.values())
            pictures.append(
                (
                    f"By name order and template, {name}",
                    value_map(
                        [[found.get(one) for one in templates] for found in by_template],
                        label=f"effect by template, {name}",
                        rows=[_feature(row) for row in own],
                        columns=templates,
                        titles=[
                            [
                                f"{_feature(row)}, {one}: {number(found.get(one))}"
                                for one in templates
                            ]
                            for row, found in zip(own, by_template, strict=True)
                        ],
                        full=largest or 1.0,
                    ),
                )
            )
    return Figure(
        "Features ablated",
        pictures,
        frame,
        legend=[(name, colour(i)) for i, (_, name) in enumerate(present)],
        note=(
            "Below zero the feature helped the answer. The reconstruction error stays, unless it "
            "is what is ablated. L2F7 at S2: feature 7 of layer 2, ablated at that position; drawn "
            "are those with the largest effect in either order of names."
        ),
        hidden=("by_order", "by_template"),
        thumbnail=_thumbnail(frame["mean_effect"]),
    )


def edges(frame: pl.DataFrame) -> Figure | None:
    """Ablation and boosting of each edge beside random slices, local and global apart."""
    if frame.is_empty():
        return None
    rows = frame.to_dicts()
    into = len({row["downstream"] for row in rows}) <= len({row["upstream"] for row in rows})
    head, other = ("downstream", "upstream") if into else ("upstream", "downstream")
    series = (("ablate", False), ("ablate", True), ("boost", True), ("boost", False))
    kinds = ("s0", "s0 hollow", "s1 hollow", "s1")
    pictures = []
    for (name, scope, receiver), own in _grouped(rows, head, "scope", "receiver"):
        by_edge: dict[str, dict[str, dict[str, Any]]] = {}
        for row in own:
            text = f"{'from' if into else 'to'} {row[other]}, {row['pair']}, {row['side'] or ''}"
            by_edge.setdefault(text.removesuffix(", "), {})[row["mode"]] = row
        strongest = sorted(
            by_edge.items(), key=lambda item: -max(abs(r["mean_effect"]) for r in item[1].values())
        )[:MAX_ROWS]
        read = "" if receiver is None else f", as {receiver} reads it"
        pictures.append(
            (
                f"{'Into' if into else 'Out of'} {name}, {scope}{read}",
                interval_plot(
                    [
                        (text, [_edge_mark(found.get(mode), random) for mode, random in series])
                        for text, found in strongest
                    ],
                    label=f"effect of edges {'into' if into else 'out of'} {name}, {scope}",
                    axis="change of the logit difference",
                    classes=kinds,
                    width=300,
                ),
            )
        )
    names = ("ablated", "random slices ablated", "random slices boosted", "boosted")
    return Figure(
        "Edges ablated, boosted, and random slices",
        pictures,
        frame,
        legend=list(zip(names, kinds, strict=True)),
        note=(
            "Local: only the reading head sees the edit; global: every later reader does. Franco & "
            "Crovella find ablated < random < boosted. Whiskers: 95% bootstrap intervals."
        ),
        thumbnail=_thumbnail(frame["mean_effect"]),
    )


def sets(frame: pl.DataFrame) -> Figure | None:
    """Edits made together against the sum of what they do alone, a plot per metric."""
    if frame.is_empty():
        return None
    kinds = [key for key, _ in _grouped(frame.to_dicts(), "scope", "mode")]
    pictures = []
    for (metric,), own in _grouped(frame.to_dicts(), "metric"):
        by_kind = dict(_grouped(own, "scope", "mode"))
        series = [
            (
                _words(key),
                [
                    Point(
                        row["sum_of_members"],
                        row["joint_effect"],
                        f"{row['part']}: {row['edits']}, {_words(key)}: "
                        f"{number(row['joint_effect'])} together, "
                        f"{number(row['sum_of_members'])} summed",
                    )
                    for row in by_kind.get(key, ())
                ],
            )
            for key in kinds
        ]
        picture = scatter_plot(
            series,
            label=f"joint effect against the sum of single effects, {metric}",
            x_axis=f"sum of single effects on {metric}",
            y_axis="effect together",
            diagonal=True,
        )
        pictures.append((metric, picture))
    return Figure(
        "Edits made together against the sum of each alone",
        pictures,
        frame,
        legend=[(_words(key), colour(i)) for i, key in enumerate(kinds)],
        note=(
            "On the dashed line effects add up. A point is a set, with means over the prompts that "
            "have it and each member alone; sets whose members were not all run have none."
        ),
        thumbnail=_thumbnail(frame["joint_effect"]),
    )


def set_members(frame: pl.DataFrame) -> Figure | None:
    """Effect of each edge of a set alone and of all together, a plot per part and scope."""
    if frame.is_empty():
        return None
    pictures = []
    for (part, scope), own in _grouped(frame.to_dicts(), "part", "scope"):
        rows: dict[str, list[Mark]] = {}
        sets: dict[str, str] = {}  # which of several sets with the same name a row is
        for row in own:
            name = row["edge"]
            if row["is_set"] and sets.setdefault(name, row["intervention"]) != row["intervention"]:
                name = f"{name} ({len(sets) + 1})"
                sets[name] = row["intervention"]
            mark = Mark(
                row["mean_effect"],
                row["tenth_percentile"],
                row["ninetieth_percentile"],
                f"{row['n']} prompts",
            )
            rows.setdefault(name, [Mark(None), mark] if row["is_set"] else [mark, Mark(None)])
        picture = interval_plot(
            list(rows.items())[:MAX_ROWS],
            label=f"effect of edges alone and together, {part}, {scope}",
            axis="change of the logit difference",
            width=240,
        )
        pictures.append((f"{part}, {scope}", picture))
    return Figure(
        "Edges alone and together",
        pictures,
        frame,
        legend=[("an edge alone", colour(0)), ("all of a set", colour(1))],
        note=(
            "Means over the prompts that have all edges of the set; whiskers reach from the 10th "
            "to the 90th percentile of prompts. Each plot has its own axis."
        ),
        hidden=("intervention",),
    )


def magnitudes(frame: pl.DataFrame) -> Figure | None:
    """Cosine and norm ratio of the edited residual stream, a point per edit."""
    if frame.is_empty():
        return None
    grouped = _grouped(frame.to_dicts(), "scope", "mode")
    series = [
        (
            _words(key),
            [
                Point(
                    row["mean_cosine"],
                    row["mean_norm_ratio"],
                    f"{row['edge'] or row['intervention']} {row['side'] or ''}: cosine "
                    f"{row['mean_cosine']:.4f}, norm x {row['mean_norm_ratio']:.4f}",
                )
                for row in own
            ],
        )
        for key, own in grouped
    ]
    return Figure(
        "How far edits move the residual stream",
        [
            (
                "",
                scatter_plot(
                    series,
                    label="norm ratio against cosine of edits",
                    x_axis="cosine with and without the edit",
                    y_axis="norm with / norm without",
                    cross=(1.0, 1.0),
                ),
            )
        ],
        frame,
        legend=[(name, colour(i)) for i, (name, _) in enumerate(series)],
        note=(
            "Means over prompts, of the stream where it is edited; an edit that changes nothing is "
            "at (1, 1). The view intervention_magnitudes has quantiles over prompts."
        ),
    )


def magnitude_spread(frame: pl.DataFrame) -> Figure | None:
    """Quantiles of cosine and norm ratio over prompts and edits, controls beside them."""
    if frame.is_empty():
        return None
    by_kind: dict[str, dict[bool, dict[str, Any]]] = {}
    for row in frame.to_dicts():
        name = _words((row["part"], row["scope"], row["mode"]))
        by_kind.setdefault(name, {})[bool(row["is_control"])] = row
    controls = (False, True) if frame["is_control"].any() else (False,)

    def mark(row: dict[str, Any] | None, name: str) -> Mark:
        ends = ("50", "05", "95")
        return Mark(None) if row is None else Mark(*(row[f"{name}_{end}"] for end in ends))

    pictures = [
        (
            title,
            interval_plot(
                [
                    (kind, [mark(found.get(control), name) for control in controls])
                    for kind, found in by_kind.items()
                ],
                label=f"{title} by kind of edit",
                axis=f"{title}, with and without the edit",
                lines={1.0: "no change"},
                around=1.0,
                classes=("s0", "s0 hollow")[: len(controls)],
                width=260,
            ),
        )
        for name, title in (("cosine", "cosine"), ("norm_ratio", "ratio of norms"))
    ]
    legend = [("edits", "s0"), ("random slices", "s0 hollow")][: len(controls)]
    return Figure(
        "How far edits move it, over prompts",
        pictures,
        frame,
        legend=legend,
        note="Medians over prompts and edits, with the range from the 5% to the 95% quantile.",
    )


def effects(frame: pl.DataFrame) -> Figure | None:
    """Mean effects of any interventions, with their random controls where there are some."""
    if frame.is_empty():
        return None
    controls = frame["control_mean_effect"].is_not_null().any()
    pictures = []
    for (metric,), own in _grouped(frame.to_dicts(), "metric"):
        strongest = sorted(own, key=lambda row: -abs(row["mean_effect"]))[:MAX_ROWS]
        rows = []
        for row in sorted(strongest, key=lambda row: row["mean_effect"]):
            marks = [Mark(row["mean_effect"], row["ci_low"], row["ci_high"], row["intervention"])]
            if controls:
                low, high = row["control_ci_low"], row["control_ci_high"]
                marks.append(Mark(row["control_mean_effect"], low, high, "random control"))
            rows.append((_told_apart(row, own), marks))
        pictures.append(
            (
                f"{metric}",
                interval_plot(
                    rows, label=f"effects on {metric}", axis=f"change of {metric}", width=320
                ),
            )
        )
    legend = [("effect", colour(0)), ("random control", colour(1))] if controls else []
    note = "Patched - clean, means over prompts with 95% bootstrap intervals."
    thumbnail = _thumbnail(frame["mean_effect"])
    return Figure("Effects", pictures, frame, legend, note, thumbnail=thumbnail)


# Experiments that are about one thing of their interventions: statements and drawings.
BY_NAME: dict[str, dict[str, Callable[[pl.DataFrame], Figure | None]]] = {
    "fc24_magnitudes": {
        "experiment_magnitude_spread": magnitude_spread,
        "experiment_magnitudes": magnitudes,
    },
}
# What draws the interventions of a kind: the statement, the drawing.
BY_KIND: dict[str, tuple[str, Callable[[pl.DataFrame], Figure | None]]] = {
    "activation_patching": ("experiment_noising", noising),
    "path_patching": ("experiment_effects", effects),
    "sae_splice": ("experiment_splice", splice),
    "sae_feature_ablation": ("experiment_features", features),
    "sae_feature_path": ("experiment_features", features),
    "sae_error_path": ("experiment_features", features),
    "edge": ("experiment_edges", edges),
}


# ---- private -------------------------------------------------------------------------------------


def _thumbnail(values: pl.Series) -> str:
    return tiny_bar_chart([v if v is None or isfinite(v) else None for v in values.to_list()])


def _grouped(rows: Rows, *keys: str) -> list[tuple[tuple[Any, ...], Rows]]:
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.items())


def _kind(ablated_run: str) -> str:
    return ablated_run.removeprefix("set:").split(":")[0]


def _baseline(ablated_run: str | None) -> str:
    """What an ablated run is, in words, from its identifier."""
    if ablated_run is None:
        return "the counterfactual"
    kind = _kind(ablated_run).replace("_", " ")
    where = "at all positions" if "all" in ablated_run.split(":") else "at the role"
    return f"{kind} ablation {where}"


def _kept(row: dict[str, Any] | None, name: str) -> Mark:
    if row is None:
        return Mark(None)
    column = "recovered" if row["ablated_run"] is None else "recovered_from_ablated"
    return Mark(row[column], row[f"{column}_ci_low"], row[f"{column}_ci_high"], name)


def _of_ablated(row: dict[str, Any]) -> str:
    return f"{row['layers']} ({_kind(row['ablated_run'])})" if row["ablated_run"] else "–"


def _feature(row: dict[str, Any]) -> str:
    return f"{feature_name(row['layer'], row['feature'])} at {row['position_role']}"


def _orders(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Effects by order of names; none where prompts have no order."""
    return [one for one in row["by_order"] or () if one["name_order"]]


def _largest_of_orders(row: dict[str, Any]) -> float:
    """Opposite signs in the two orders of names do not cancel."""
    return max(
        abs(float(row["mean_effect"])), *(abs(float(o["effect"])) for o in _orders(row)), 0.0
    )


def _way(row: dict[str, Any]) -> tuple[str, bool | None]:
    path = row["kind"].endswith("_path")
    return ("path", bool(row["via_mlp"])) if path else ("ablation", None)


def _words(key: Sequence[Any]) -> str:
    return ", ".join(str(part) for part in key if part is not None)


def _natural(name: str) -> tuple[str, int]:
    order, _, number_of = name.rpartition(" ")
    return order, int(number_of) if number_of.isdigit() else 0


def _edge_mark(row: dict[str, Any] | None, random: bool) -> Mark:
    if row is None:
        return Mark(None)
    if random:
        ends = (row["control_ci_low"], row["control_ci_high"])
        return Mark(row["control_mean_effect"], *ends, f"random slices, {row['mode']}")
    return Mark(row["mean_effect"], row["ci_low"], row["ci_high"], str(row["mode"]))


def _told_apart(row: dict[str, Any], rows: Rows) -> str:
    """The part's name, or the intervention's where several share a part."""
    part = row["part"]
    shared = part is None or sum(one["part"] == part for one in rows) > 1
    return str(row["intervention"] if shared else part)
