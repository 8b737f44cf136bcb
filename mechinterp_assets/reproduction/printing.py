"""A comparison as a table for a terminal.

Belongs here: how rows of frame reproduction are written out. Does not belong here: the comparison
(comparison.py).
"""

from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

JUDGEMENTS = {
    "within": "within",
    "outside": "OUTSIDE",
    "other_condition": "other condition",
    "unstable": "unstable",
    "missing": "missing",
    "no_bound": "",
}


def print_comparison(console: Console, rows: pl.DataFrame) -> None:
    """Values of every reference, then their conditions, source and why ours may differ."""
    shown = Table(title="Ours beside what is reported", title_justify="left")
    for column in ("what", "", "ours", "reported", "difference", "judgement"):
        shown.add_column(column, justify="left" if column in ("what", "", "judgement") else "right")
    notes = []
    for (_,), group in rows.group_by("reference_id", maintain_order=True):
        for number, row in enumerate(group.iter_rows(named=True)):
            what = "" if number else row["what"]
            shown.add_row(*(escape(cell) for cell in (what, row["key"], *_cells(row))))
        shown.add_section()
        notes.append(group.row(0, named=True))
    console.print(shown)
    for row in notes:
        where = row["reference_source"] + (f"; {row['dataset']}" if row["dataset"] else "")
        console.print(f"{row['reference_id']} ({where})", style="bold", markup=False)
        for label, text in _conditions(row):
            console.print(f"  {label}: {text}", markup=False)
    judged = pl.col("judgement").is_in(["within", "outside"])
    has_tolerance = pl.col("tolerance").is_not_null()
    lost = has_tolerance & (pl.col("judgement") == "missing")
    counts = [f"{rows.height} values"]
    for bound, which in (
        ("tolerance", (has_tolerance & judged) | lost),
        ("the source's interval", ~has_tolerance & judged),
    ):
        some = rows.filter(which)
        counts.append(f"{(some['judgement'] == 'within').sum()} of {some.height} within {bound}")
    counts += [
        f"{(rows['judgement'] == judgement).sum()} {text}"
        for judgement, text in (
            ("missing", "without one of ours"),
            ("other_condition", "under another condition, so neither equal nor different"),
            ("unstable", "unstable (a divisor below a tenth of the clean value), so not judged"),
        )
    ]
    console.print("; ".join(counts), markup=False)


def _conditions(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Labelled lines: the conditions, which of them differ here, and what the file says beside."""
    lines = [("statistic", row["statistic"]), ("position", row["measured_at"])]
    lines.append(("condition", row["condition"]))
    known = {one.partition(": ")[0] for one in row["own_condition"].split("; ")}
    for label, names in (
        ("differs in", [name for name in row["other_condition"] if name in known]),
        ("not known of this run", [name for name in row["other_condition"] if name not in known]),
    ):
        if names:
            lines.append((label, ", ".join(names)))
    if row["other_condition"]:
        lines.append(("here", row["own_condition"]))
    return [*lines, *((name, row[name]) for name in ("needs", "reason") if row[name])]


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Ours, reported, difference and judgement of a comparison, as text."""
    judgement = JUDGEMENTS[row["judgement"]]
    if row["reference_kind"] == "heads":
        agreement = ", ".join(
            f"{name} {row[name]:.2f}" for name in ("precision", "recall") if row[name] is not None
        )
        return (
            _heads_text(row["our_heads"]),
            _heads_text(row["reference_heads"]),
            agreement,
            judgement,
        )
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
    tolerance = "" if row["tolerance"] is None else f" ± {row['tolerance']:.2g}"
    return (
        "-" if row["ours"] is None else f"{row['ours']:.4g}",
        f"{row['reference_value']:.4g}{interval}{tolerance}",
        "" if row["difference"] is None else f"{row['difference']:+.3g}",
        judgement,
    )


def _heads_text(heads: list[str] | None) -> str:
    return "-" if heads is None else " ".join(heads) or "none"
