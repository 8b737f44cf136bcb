"""Frames on the terminal, or as text for other programs.

Belongs here: how rows are written out. In a terminal a table fits its width; elsewhere every line
is as long as it must be, so that no value is cut or broken.
"""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

# Wider than any table: rich wraps what does not fit.
_UNBROKEN = 100_000


class Format(StrEnum):
    """How rows are written: a table to read, or csv or json for programs."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def console() -> "Console":
    """Standard output, as wide as the terminal or without a limit."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _UNBROKEN)


def print_frame(frame: "pl.DataFrame", title: str, form: Format = Format.TABLE) -> None:
    """Write all rows to standard output; `title` only above a table."""
    if form is Format.CSV:
        sys.stdout.write(_without_lists(frame).write_csv())
    elif form is Format.JSON:
        sys.stdout.write(frame.write_json() + "\n")
    else:
        _print_table(frame, title)


def _print_table(frame: "pl.DataFrame", title: str) -> None:
    from rich.table import Table

    out = console()
    out.print(title, style="italic", markup=False)
    shown = Table()
    for column, dtype in frame.schema.items():
        shown.add_column(column, justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        shown.add_row(*(_text(value) for value in row))
    out.print(shown)


def _text(value: object) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{value:.3g}"
    return escape(repr(value) if isinstance(value, str) and value != value.strip() else str(value))


def _without_lists(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Lists and structs as JSON text, which a csv cell can hold."""
    import json

    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    return frame.with_columns(
        pl.Series(
            name,
            [
                None if value is None else json.dumps(value, default=str)
                for value in frame[name].to_list()
            ],
            dtype=pl.String,
        )
        for name in nested
    )
