"""A comparison as a table for a terminal.

Belongs here: how rows of frame reproduction are written out. Does not belong here: the comparison
(comparison.py).
"""

from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_comparison(console: Console, rows: pl.DataFrame) -> None:
    """Values of every reference, then where they come from and why ours may differ."""
    shown = Table(title="Ours beside what is reported", title_justify="left")
    for column in ("what", "", "ours", "reported", "difference", "within"):
        shown.add_column(column, justify="left" if column in ("what", "", "within") else "right")
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
        for label in ("needs", "reason"):
            if row[label]:
                console.print(f"  {label}: {row[label]}", markup=False)
    judged = rows["tolerance"].is_not_null()
    counts = [
        f"{rows.height} values",
        f"{rows['ours'].null_count()} without one of ours",
        f"{(rows['within'] & judged).sum()} of {judged.sum()} within tolerance",
        f"{(rows['within'] & ~judged).sum()} of {(rows['ci_low'].is_not_null()).sum()} within the "
        "source's interval",
    ]
    console.print("; ".join(counts), markup=False)


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Ours, reported, difference and within of a comparison, as text."""
    within = {True: "yes", False: "NO", None: ""}[row["within"]]
    if row["reference_kind"] == "heads":
        agreement = ", ".join(
            f"{name} {row[name]:.2f}" for name in ("precision", "recall") if row[name] is not None
        )
        return (
            _heads_text(row["our_heads"]),
            _heads_text(row["reference_heads"]),
            agreement,
            within,
        )
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
    tolerance = "" if row["tolerance"] is None else f" ± {row['tolerance']:.2g}"
    return (
        "-" if row["ours"] is None else f"{row['ours']:.4g}",
        f"{row['reference_value']:.4g}{interval}{tolerance}",
        "" if row["difference"] is None else f"{row['difference']:+.3g}",
        within,
    )


def _heads_text(heads: list[str] | None) -> str:
    return "-" if heads is None else " ".join(heads) or "none"
