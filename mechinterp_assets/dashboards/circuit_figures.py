"""Pictures of circuits: faithfulness over size, induction over prefix length, reuse between tasks,
pairs of features that scores are made of.

Belongs here: which columns of a statement's rows become which marks. Does not belong here: the
statements (sql/dashboards), geometry (plots.py), experiments (experiment_figures.py), singular
vectors (slice_figures.py).
"""

from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.experiment_figures import Figure
from mechinterp_assets.dashboards.plots import (
    N_COLOURS,
    Mark,
    Point,
    colour,
    interval_plot,
    line_plot,
)
from mechinterp_assets.dashboards.slice_figures import row_map, rows_of
from mechinterp_assets.files.plain_text import listed

LOWEST, HIGHEST = -1.0, 2.0  # faithfulness beyond is drawn at the edge
MAX_PANELS = 12  # heads and roles with a plot of their pairs
MAX_LISTED = 12  # heads named in a legend
RANKED = {"signed": "largest score first", "absolute": "largest |score| first"}
CLASSES = {"short": "s0", "long": "s1", "other": "rest"}


def faithfulness(frame: pl.DataFrame) -> list[Figure]:
    """Curves of faithfulness over the share of edges kept: a Figure per task."""
    figures = []
    for (task,), own in frame.partition_by("task", as_dict=True, maintain_order=True).items():
        by_cmd = own.group_by("ranking").agg(pl.col("cmd_log").min()).sort("cmd_log", "ranking")
        order = [name for name in by_cmd["ranking"].to_list() if name != "random"]
        kinds = {name: colour(i) if i < N_COLOURS else "rest" for i, name in enumerate(order)}
        kinds["random"] = "rest"
        pictures = []
        for ranked_by, meaning in RANKED.items():
            curves = own.filter(pl.col("ranked_by") == ranked_by)
            names = [name for name in ("random", *order) if name in set(curves["ranking"])]
            lines = [
                (name, [_curve_point(row) for row in rows_of(curves, "ranking", name)])
                for name in names
            ]
            if names:
                picture = line_plot(
                    lines,
                    label=f"faithfulness over circuit size on {task}, {meaning}",
                    x_axis="share of edges in the circuit",
                    y_axis="faithfulness",
                    log_x=True,
                    levels=(0.0, 1.0),
                    classes=[kinds[name] for name in names],
                )
                pictures.append((meaning, picture))
        areas = own.unique(["ranking", "ranked_by"]).sort("cmd_log", "ranking", "ranked_by")
        legend = []
        for name in [*order, "random"]:
            rows = {row["ranked_by"]: row for row in rows_of(areas, "ranking", name)}
            if rows:
                first, last = rows.get("signed"), rows.get("absolute", rows.get("signed"))
                text = "" if first is None else f": CPR {number(first['cpr'])}"
                text += "" if last is None else f", CMD {number(last['cmd'])}"
                legend.append((name + text, kinds[name]))
        figures.append(
            Figure(
                f"Faithfulness over circuit size: {task}",
                pictures,
                own,
                legend=legend,
                note=(
                    "1: as good as the whole model, 0: as bad as no circuit. CPR is the area under "
                    "the curve ranked by score (large is good), CMD the area between it and 1 "
                    "ranked by |score| where there is such a ranking (small is good). "
                    "Random rankings: mean, with the range over seeds."
                ),
                hidden=("task",),
            )
        )
    return figures


def prefix_curves(frame: pl.DataFrame) -> Figure | None:
    """Induction score over prefix length, a line per head."""
    if frame.is_empty():
        return None
    heads = frame.group_by("head", maintain_order=True).agg(pl.col("prefix_class").first())
    # Drawn last is on top: heads of a class above the others.
    order = sorted(heads.rows(), key=lambda row: row[1] != "other")
    lines = []
    for head, kind in order:
        shown = kind != "other"
        points = [
            Point(
                row["prefix_length"],
                row["mean_attention"],
                f"{row['prefix_length']} tokens: {number(row['mean_attention'])}, "
                f"{number(row['dla_excess'])} logits",
                low=row["attention_ci_low"] if shown else None,
                high=row["attention_ci_high"] if shown else None,
            )
            for row in rows_of(frame, "head", head)
        ]
        lines.append((str(head), points))
    names = {kind: [head for head, own in heads.rows() if own == kind] for kind in CLASSES}
    legend = [
        (f"{kind}: {listed(own, MAX_LISTED)}", CLASSES[kind]) for kind, own in names.items() if own
    ]
    picture = line_plot(
        lines,
        label="induction score over prefix length",
        x_axis="matching tokens",
        y_axis="induction score",
        levels=(0.3, 0.7),
        classes=[CLASSES.get(kind, "rest") for _, kind in order],
    )
    return Figure(
        "Induction by prefix length",
        [("", picture)],
        frame,
        legend=legend,
        note=(
            "Attention from the last token of a repeated block to the token after its first copy. "
            "Short: 0.7 or more at one matching token; long: below 0.3 at one and above 0.7 at all "
            "longer (dashed). Whiskers: 95% bootstrap intervals, for heads of a class."
        ),
    )


def reuse(frame: pl.DataFrame) -> Figure | None:
    """How well each task is done with the heads of each task alone, a map per metric."""
    if frame.is_empty():
        return None
    pictures = []
    for (metric,), own in frame.partition_by("metric", as_dict=True, maintain_order=True).items():
        of, on = own["heads_of"].unique().sort(), own["measured_on"].unique().sort()
        rows = {(row["heads_of"], row["measured_on"]): row for row in own.to_dicts()}
        found = [[rows.get((a, b)) for b in on] for a in of]
        pictures.append(
            (
                f"{metric}: heads of (rows) on (columns)",
                row_map(
                    found,
                    "faithfulness",
                    lambda row: (
                        f"heads of {row['heads_of']} on {row['measured_on']}: "
                        f"{number(row['faithfulness'])} ({number(row['ci_low'])} to "
                        f"{number(row['ci_high'])}); random heads "
                        f"{number(row['random_faithfulness'])}"
                    ),
                    label=f"faithfulness of each task's heads on each task, {metric}",
                    rows=of.to_list(),
                    columns=on.to_list(),
                ),
            )
        )
    kept = max(frame["n_kept"].to_list())
    return Figure(
        "Heads shared between tasks",
        pictures,
        frame,
        note=(
            f"Faithfulness with the {kept} heads alone whose ablation harms the task of the row "
            "most, the others ablated (mean leave one out): 1 is the whole model, 0 no heads. "
            "Hover for the interval and for random heads."
        ),
    )


def qk_pairs(frame: pl.DataFrame) -> Figure | None:
    """Contributions of pairs of parts to attention scores, a plot per head and source role."""
    if frame.is_empty():
        return None
    pictures = []
    panels = frame.partition_by("head", "source_role", as_dict=True, maintain_order=True)
    for (head, role), own in list(panels.items())[:MAX_PANELS]:
        rows = [
            (
                f"{row['query_part']} x {row['key_part']}",
                [
                    Mark(
                        row["mean"],
                        row["mean"] - row["sd"],
                        row["mean"] + row["sd"],
                        f"in {row['n_present']} of {row['n']} prompts",
                    )
                ],
            )
            for row in own.to_dicts()
        ]
        title = f"{head}, key at {role}"
        picture = interval_plot(
            rows,
            label=f"contributions to the attention score of {title}",
            axis="mean contribution to the score",
            bars=True,
            width=240,
        )
        pictures.append((f"{title} (mean score {number(own['mean_score'][0])})", picture))
    reasons = frame.unique(["head", "chosen_by"], maintain_order=True).select("head", "chosen_by")
    return Figure(
        "What the query and the key of movers meet in",
        pictures,
        frame,
        note=(
            "Query part x key part: an SAE feature by its layer and number, or another part of the "
            "residual stream (after K24 Fig. 18). Whiskers: one standard deviation over prompts. "
            + "; ".join(f"{row['head']}: {row['chosen_by']}" for row in reasons.to_dicts())
        ),
        hidden=("chosen_by",),
    )


def qk_variance(frame: pl.DataFrame) -> Figure | None:
    """Variance of attention scores explained by the first k pairs, a plot per head and order."""
    if frame.is_empty():
        return None
    roles = frame["source_role"].unique(maintain_order=True).to_list()
    pictures = []
    panels = frame.partition_by("head", "ordered_by", as_dict=True, maintain_order=True)
    for (head, order), own in list(panels.items())[:MAX_PANELS]:
        lines = []
        for role in roles:
            points = [
                Point(
                    row["n_top_pairs"],
                    _within(row["variance_explained_held_out"]),
                    f"{row['n_top_pairs']} pairs: "
                    f"{number(row['variance_explained_held_out'])} held "
                    f"out, {number(row['variance_explained'])} on all prompts",
                )
                for row in rows_of(own, "source_role", role)
            ]
            lines.append((f"key at {role}", points))
        picture = line_plot(
            lines,
            label=f"variance of the score of {head} explained, pairs by {order}",
            x_axis="pairs",
            y_axis="variance explained, held out",
            log_x=True,
            levels=(0.0, 1.0),
            width=400,
            height=200,
        )
        pictures.append((f"{head}, pairs with the largest {order} first", picture))
    return Figure(
        "Variance of attention scores explained by pairs",
        pictures,
        frame,
        legend=[(f"key at {role}", colour(i)) for i, role in enumerate(roles)],
        note=(
            "The sum of the first k pairs, with nothing fitted; pairs were chosen on every second "
            "prompt and measured on the others. Below 0 where other pairs undo what these do "
            "(drawn no lower than -1)."
        ),
    )


# ---- private -------------------------------------------------------------------------------------


def _curve_point(row: dict[str, Any]) -> Point:
    several = row["n_seeds"] != 1
    return Point(
        row["edge_fraction"],
        _within(row["faithfulness"]),
        f"{row['n_edges']} edges ({number(row['edge_fraction'])}): {number(row['faithfulness'])}",
        low=_within(row["lowest"]) if several else None,
        high=_within(row["highest"]) if several else None,
    )


def _within(value: float | None) -> float | None:
    return None if value is None else min(max(value, LOWEST), HIGHEST)
