"""Pictures of what attention scores are made of, by singular vectors (FC24).

Belongs here: which columns of a statement's rows become which marks. Does not belong here: the
statements (sql/dashboards), geometry (plots.py), what is done to edges (experiment_figures.py),
the graph of a trace (trace_page.py).

Slices are the singular vectors of a head's Omega; S are those that carry a pair's score. What the
figures of Franco & Crovella 2024 (arXiv 2410.00340) draw was read off their published code.
"""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.experiment_figures import Figure
from mechinterp_assets.dashboards.plots import (
    Bar,
    Point,
    bar_plot,
    cell_map,
    colour,
    line_plot,
    scatter_plot,
    value_map,
)

Row = dict[str, Any]
MAX_PANELS = 12  # nodes with a row in a map
MAX_SLICES = 24  # slices with a row in a map, those that are selected most often


def rows_of(frame: pl.DataFrame, column: str, value: str) -> list[Row]:
    """Rows with this value."""
    return frame.filter(pl.col(column) == value).to_dicts()


def row_map(
    found: Sequence[Sequence[Row | None]],
    column: str,
    title: Callable[[Row], str],
    *,
    label: str,
    rows: Sequence[str],
    columns: Sequence[str],
    full: float = 1.0,
    wide: int = 46,
) -> Markup:
    """A map of one column of rows, with their hover texts; a cell is empty without a row."""
    return value_map(
        [[None if row is None else row[column] for row in line] for line in found],
        label=label,
        rows=rows,
        columns=columns,
        titles=[["" if row is None else title(row) for row in line] for line in found],
        full=full,
        wide=wide,
    )


def slice_terms(frame: pl.DataFrame) -> Figure | None:
    """Terms of the score of single pairs, those in S marked (FC24 Fig. 1)."""
    if frame.is_empty():
        return None
    pictures = []
    for (head, pair), own in _parts(frame, "head", "pair"):
        terms = own["term"].to_list()
        for (fires,), one in _parts(own, "fires"):
            row = one.row(0, named=True)
            bars = [
                Bar(
                    r["term"],
                    f"slice {r['slice']}{', in S' if r['selected'] else ''}: {number(r['term'])}",
                    "s1" if r["selected"] else "rest",
                )
                for r in one.sort("slice").to_dicts()
            ]
            caption = (
                f"{head}, {pair}, {'fires' if fires else 'does not fire'}: prompt {row['prompt']}, "
                f"attention {number(row['attention'])}, score {number(row['attention_score'])}"
            )
            picture = bar_plot(
                bars,
                label=f"terms of the score of {caption}",
                x_axis="singular vector",
                y_axis="term of q · k",
                include=terms,
            )
            pictures.append((caption, picture))
    return Figure(
        "The terms of an attention score",
        pictures,
        frame,
        legend=[("in S", "s1"), ("not in S", "rest")],
        note=(
            "Of a head and roles the pair with the median score, where the pair fires and where it "
            f"does not. {_chosen_by(frame)} (FC24 Fig. 1)."
        ),
    )


def slice_prompts(frame: pl.DataFrame) -> Figure | None:
    """The singular vectors that carry a pair's score, prompt by prompt (FC24 Fig. 2, 8)."""
    if frame.is_empty():
        return None
    pictures = []
    for (head, pair), own in _parts(frame, "head", "pair"):
        columns = own.select("fires", "prompt").unique(maintain_order=True).rows()
        sizes = [sum(fires is kind for fires, _ in columns) for kind in (True, False)]
        counts = own.group_by("slice").agg(pl.len().alias("n")).sort("n", "slice", descending=True)
        slices = sorted(counts["slice"].head(MAX_SLICES).to_list())
        terms = {(r["slice"], r["fires"], r["prompt"]): r["term"] for r in own.to_dicts()}
        used = {
            (k, kind): sum((k, kind, prompt) in terms for fires, prompt in columns if fires is kind)
            for k in slices
            for kind in (True, False)
        }
        picture = cell_map(
            [[terms.get((k, *column)) for column in columns] for k in slices],
            label=f"terms of the slices that carry the score of {head}, {pair}, by prompt",
            rows=[str(k) for k in slices],
            titles=[
                f"slice {k}: in S of {used[k, True]} of {sizes[0]} pairs that fire, "
                f"{used[k, False]} of {sizes[1]} others"
                for k in slices
            ],
            groups=[
                (f"{size} prompts: {name}", size)
                for size, name in zip(sizes, ("fires", "does not"), strict=True)
                if size
            ],
            full=max(abs(value) for value in terms.values()) or 1.0,
        )
        pictures.append((f"{head}, {pair}: singular vectors (rows) by prompt", picture))
    return Figure(
        "The same slices in prompt after prompt",
        pictures,
        frame,
        note=(
            "A column is a prompt, a row a singular vector; shaded is the term of one that is in "
            "the prompt's S, blue above and red below zero. Bands over many prompts are slices "
            f"that a head uses again and again (FC24 Fig. 2 and 8). At most {MAX_SLICES} slices."
        ),
    )


def slice_counts(frame: pl.DataFrame) -> Figure | None:
    """Distribution of |S| over firing pairs, per text and head (FC24 Fig. 3)."""
    if frame.is_empty():
        return None
    heads = frame["head"].unique(maintain_order=True).to_list()
    kinds = {head: "rest" if i == 0 else colour(i - 1) for i, head in enumerate(heads)}
    pictures = []
    for (text,), own in _parts(frame, "text_source"):
        here = own["head"].unique(maintain_order=True).to_list()
        lines = [
            (
                str(head),
                [
                    Point(
                        row["n_slices"],
                        row["share_of_pairs"],
                        f"{row['n_slices']} slices: {number(row['share_of_pairs'])} of the pairs",
                    )
                    for row in rows_of(own, "head", head)
                ],
            )
            for head in here
        ]
        picture = line_plot(
            lines,
            label=f"share of firing pairs over the number of slices that they need, {text}",
            x_axis="slices |S|",
            y_axis="share of firing pairs",
            classes=[kinds[head] for head in here],
        )
        pictures.append((_TEXTS.get(str(text), str(text)), picture))
    return Figure(
        "How many slices attention needs",
        pictures,
        frame,
        legend=list(kinds.items()),
        note=(
            "Firing pairs of all heads, and of those that fire most often on the prompts; S is the "
            "smallest set of singular vectors whose terms reach the score (FC24 Fig. 3)."
        ),
    )


def slice_usage(frame: pl.DataFrame) -> Figure | None:
    """Share of pairs that select each singular vector, firing and not (FC24 Fig. 2, 8)."""
    if frame.is_empty():
        return None
    keys = frame.select("head", "fires").unique(maintain_order=True).rows()
    slices = sorted(set(frame["slice"].to_list()))
    rows = {(row["head"], row["fires"], row["slice"]): row for row in frame.to_dicts()}
    found = [[rows.get((*key, k)) for k in slices] for key in keys]
    picture = row_map(
        found,
        "selected_share",
        lambda row: (
            f"{_fires(row['head'], row['fires'])}, slice {row['slice']}: in S of "
            f"{number(row['selected_share'])} of {row['n_pairs']} pairs"
        ),
        label="share of pairs whose set S has each singular vector",
        rows=[_fires(*key) for key in keys],
        columns=[str(k) for k in slices],
    )
    return Figure(
        "Which slices attention uses",
        [("share of pairs with each singular vector (columns) in S", picture)],
        frame,
        note=(
            "Heads with most firing pairs on the prompts, the first singular vectors; all pairs of "
            "the head that fire, and a random sample of the others (FC24 Fig. 2 and 8, as shares; "
            "for a negative score S is mirrored)."
        ),
    )


def slice_contrast(frame: pl.DataFrame) -> Figure | None:
    """Effective number of contributing heads through S against all slices (FC24 Fig. 4, 16)."""
    drawn = frame.filter(pl.col("effective_heads").is_not_null())
    if drawn.is_empty():
        return None
    sides = drawn["side"].unique().sort().to_list()
    series = [
        (
            str(side),
            [
                Point(
                    row["effective_heads_all_slices"],
                    row["effective_heads"],
                    f"{row['head']}, {side}: {number(row['effective_heads'])} heads through S, "
                    f"{number(row['effective_heads_all_slices'])} through all slices; correlation "
                    f"{number(row['correlation'])}, {row['n_pairs']} pairs",
                )
                for row in rows_of(drawn, "side", side)
            ],
        )
        for side in sides
    ]
    picture = scatter_plot(
        series,
        label="effective number of heads that contribute, through S and through all slices",
        x_axis="through all slices",
        y_axis="through S",
        diagonal=True,
    )
    return Figure(
        "What the choice of slices changes",
        [("effective number of contributing heads", picture)],
        frame,
        legend=[(f"written at the {side}", colour(i)) for i, side in enumerate(sides)],
        note=(
            "A dot per head of the trace and side, means over its traced pairs: below the diagonal "
            "S filters, and fewer heads carry what is read (after FC24 Fig. 4 and 16, which show "
            "the contributions of single pairs). Under the rule relative a head counts once for "
            "each position that it wrote at."
        ),
    )


def slice_writers(frame: pl.DataFrame) -> Figure | None:
    """Contributions of all upstream heads to a pair, through all slices and S (FC24 Fig. 4, 16)."""
    if frame.is_empty():
        return None
    pictures = []
    for (head, pair, side), own in _parts(frame, "head", "pair", "side"):
        rows = {(r["upstream_layer"], r["upstream_head"]): r for r in own.to_dicts()}
        layers, heads = (sorted({key[at] for key in rows}) for at in (0, 1))
        names = ("contribution_all_slices", "contribution")
        full = max(abs(row[name]) for row in rows.values() for name in names) or 1.0
        values = [
            [
                value if abs(value) > 0.08 * full else None
                for name in names
                for k in heads
                for value in (rows[layer, k][name],)
            ]
            for layer in layers
        ]
        most = [max(own.to_dicts(), key=lambda row: abs(row[name])) for name in names]
        picture = cell_map(
            values,
            label=f"contributions of upstream heads to {head}, {pair}, at the {side}",
            rows=[f"layer {layer}" for layer in layers],
            titles=[
                "; ".join(
                    f"{rows[layer, k]['writer']} {number(rows[layer, k][names[0]])}, through S "
                    f"{number(rows[layer, k][names[1]])}"
                    for k in heads
                )
                for layer in layers
            ],
            groups=[(text, len(heads)) for text in ("all slices", "through S")],
            full=full,
            wide=14,
        )
        caption = (
            f"{head}, {pair}, {side}, prompt {own['prompt'][0]}: most {most[0]['writer']} through "
            f"all, {most[1]['writer']} through S"
        )
        pictures.append((caption, picture))
    return Figure(
        "Who wrote what a head reads, with and without the choice of slices",
        pictures,
        frame,
        note=(
            "Of a traced node the pair with the median score. A row is an upstream layer, a column "
            "a head of it, from 0; blue adds to the score, red takes from it, what is below 8% of "
            "the largest is left blank (FC24 Fig. 4 and 16)."
        ),
        hidden=("upstream_layer", "upstream_head"),
    )


def token_signals(frame: pl.DataFrame) -> Figure | None:
    """Mean signal of tokens by role along the consensus slices of traced nodes (FC24 Fig. 9)."""
    if frame.is_empty():
        return None
    roles = frame["position_role"].unique().sort().to_list()
    pictures = []
    nodes = frame["node"].unique(maintain_order=True).to_list()[:MAX_PANELS]
    for side in frame["side"].unique().sort().to_list():
        rows = {(r["node"], r["position_role"]): r for r in rows_of(frame, "side", side)}
        found = [[rows.get((node, role)) for role in roles] for node in nodes]
        most = max((abs(row["mean_signal"]) for line in found for row in line if row), default=0.0)
        pictures.append(
            (
                f"{side}: what a token says to the {'query' if side == 'destination' else 'key'}",
                row_map(
                    found,
                    "mean_signal",
                    lambda row: (
                        f"{row['node']}, token {row['position_role']}: "
                        f"{number(row['mean_signal'])}, sd {number(row['sd_signal'])} over "
                        f"{row['n']} tokens"
                    ),
                    label=f"mean signal of tokens by role, {side} side",
                    rows=nodes,
                    columns=roles,
                    full=most or 1.0,
                    wide=37,  # both sides fit beside one another
                ),
            )
        )
    return Figure(
        "What tokens carry along a node's slices",
        pictures,
        frame,
        note=(
            "Nodes of the trace in most pairs; the signal along the slices that at least half of a "
            "node's pairs select. A head attends where the product of both signals is large "
            "(after FC24 Fig. 9)."
        ),
        hidden=("destination_role", "source_role"),
    )


def token_norms(frame: pl.DataFrame) -> Figure | None:
    """Tokens by how much of them a key reads, apart by whether it attends to them (FC24 Fig. 9)."""
    if frame.is_empty():
        return None
    pictures = []
    for (node,), own in _parts(frame, "node"):
        series = [
            (
                name,
                [
                    Point(
                        row["place"],
                        row["mean_projection"],
                        f"{row['token']}: {number(row['mean_projection'])}, sd "
                        f"{number(row['sd_projection'])} over {row['n']} positions",
                    )
                    for row in own.filter(pl.col("at_source") == kind).to_dicts()
                ],
            )
            for name, kind in _KINDS.items()
        ]
        picture = scatter_plot(
            series,
            label=f"mean norm of tokens in what the key of {node} reads, by rank",
            x_axis="rank of the token",
            y_axis="mean norm",
            width=480,
            height=170,
            radius=2,
        )
        pictures.append((str(node), picture))
    return Figure(
        "Which tokens a head can read",
        pictures,
        frame,
        legend=[(name, colour(i)) for i, name in enumerate(_KINDS)],
        note=(
            "A dot is a token of the prompts: the length of what lies of it, on average, in the "
            "span of the right singular vectors that a node's pairs agree on (FC24 Fig. 9). At the "
            "source roles IO, S1 and S2 stand names."
        ),
        hidden=("source_role",),
    )


# ---- private -------------------------------------------------------------------------------------

_KINDS = {"other tokens": False, "tokens that stand at the node's source role": True}
_TEXTS = {"ioi": "on the prompts", "corpus": "on unspecific text of the same lengths"}


def _parts(frame: pl.DataFrame, *columns: str) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return list(frame.partition_by(*columns, as_dict=True, maintain_order=True).items())


def _chosen_by(frame: pl.DataFrame) -> str:
    """How S was chosen, which depends on the rule of the trace."""
    if frame["trace_rule"][0] == "relative":
        return (
            "S is chosen from terms minus their mean over the destination's other sources (rule "
            "relative), the bars are the pair's own, so that those of S need not reach the score"
        )
    return "S is the smallest set, largest terms first, that reaches the score"


def _fires(head: str, fires: bool) -> str:
    return f"{head} {'fires' if fires else 'does not'}"
