"""A label put into the text of a label file.

Belongs here: the new text. Does not belong here: checking it (labels/features.py, labels/heads.py)
and files (the caller's).
"""

import csv
import io
from collections.abc import Mapping, Sequence

from mechinterp_assets.files.csv_reader import csv_records


def with_line(
    name: object,
    text: str,
    columns: Sequence[str],
    line: Mapping[str, str],
    *,
    replace: Sequence[str] = (),
) -> str:
    """The CSV text with one more line; a header where there was no text.

    Args:
        name: of the file, for messages.
        text: of the file; "" for a new one. Lines that stay are kept byte for byte.
        columns: header of a new file; an old one keeps its own.
        line: cells by column; those of columns that the header lacks are left out, and columns
            without a cell are empty.
        replace: where given, lines whose cells agree in all these columns are taken out.

    Raises:
        FileError: the text is not CSV.
    """
    if not text.strip():
        return _written(columns, [line], header=True)
    header, records = csv_records(name, text)
    kept = list(records)
    stays = [cells for _, cells in kept if not _agree(cells, line, replace)]
    if len(stays) == len(kept):
        end = "" if text.endswith(("\n", "\r")) else "\n"
        return text + end + _written(header, [line], header=False)
    return _written(header, [*stays, line], header=True)


# ---- private -------------------------------------------------------------------------------------


def _agree(cells: Mapping[str, str], line: Mapping[str, str], columns: Sequence[str]) -> bool:
    return bool(columns) and all(
        cells.get(name, "").strip() == line.get(name, "").strip() for name in columns
    )


def _written(columns: Sequence[str], lines: Sequence[Mapping[str, str]], *, header: bool) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
