"""Records of CSV text with a header, each with its line.

Belongs here: from text to cells, and the errors of what is not CSV. Does not belong here: what the
cells mean (labels/, prompts/user.py).
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from mechinterp_assets.files.regular_file import file_error

MAX_BYTES = 1 << 26


def csv_records(name: object, text: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Columns of the header, and of each record the line that it ends in and its cells.

    Cells are as they stand; lines without any are passed over. `name` is what errors call the file.
    Raises FileError: the header names a column twice, a record has another number of cells, or the
    text is not CSV, which a null character makes sure of.
    """
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise file_error(name, "a null character; save it as CSV in UTF-8", line)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = next(_lines(name, reader), [])
    named = [column for column in columns if column]
    if twice := sorted({column for column in named if named.count(column) > 1}):
        raise file_error(name, f"column {', '.join(twice)} is there twice; rename one", 1)
    return columns, _records(name, columns, reader)


# ---- private -------------------------------------------------------------------------------------


def _records(name: object, columns: list[str], reader: Any) -> Iterator[tuple[int, dict[str, str]]]:
    for cells in _lines(name, reader):
        if len(cells) != len(columns):
            raise file_error(
                name,
                f"{len(cells)} cells do not fit the header's {len(columns)}; quote cells that "
                "contain a comma",
                reader.line_num,
            )
        yield reader.line_num, dict(zip(columns, cells, strict=True))


def _lines(name: object, reader: Any) -> Iterator[list[str]]:
    """Cells of every line that has some."""
    try:
        for cells in reader:
            if cells:
                yield cells
    except csv.Error as error:
        raise file_error(name, f"not CSV ({error}); correct it", reader.line_num) from None
