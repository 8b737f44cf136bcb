"""CSV files in which people label things, read line by line with errors that say where.

Belongs here: what all label files share: the files and their names, cells with their line numbers,
whole numbers, the study and the SAE that a line speaks of. What is labelled, and in which words, is
labels/features.py and labels/heads.py.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp_assets.files.csv_reader import MAX_BYTES, csv_records
from mechinterp_assets.files.plain_text import printable
from mechinterp_assets.files.regular_file import FileError, read_text


class LabelError(ValueError):
    """A label file that cannot be used; the message names file, line, value and remedy."""


@dataclass(frozen=True)
class LabelledSae:
    """What a label may speak of: the SAE of one layer."""

    d_sae: int
    weights_hash: str


def read_label_files(paths: Iterable[Path]) -> dict[str, str]:
    """Name -> text of each file. A name is the file's, with as many folders as tell it apart.

    Raises LabelError for a file that is named twice or cannot be read.
    """
    texts: dict[str, str] = {}
    for name, path in _names(list(paths)).items():
        try:
            texts[name] = read_text(path, "a CSV file", MAX_BYTES)
        except FileError as error:
            raise LabelError(str(error)) from None
    return texts


def label_records(
    name: str, text: str, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells of every line after the header.

    Args:
        name: of the file, for messages.
        text: of the file; a byte order mark is passed over.
        columns: that the header must have; others may be there.

    Raises:
        LabelError: a column is missing or there twice, a line has another number of cells, or it is
            not CSV.
    """
    try:
        header, records = csv_records(name, text)
        if missing := [column for column in columns if column not in header]:
            raise LabelError(
                f"{name}:1: no column {', '.join(missing)}; the first line must name "
                f"{', '.join(columns)} (mechinterp label-sheet writes one)"
            )
        for line, cells in records:
            yield line, {column: cell.strip() for column, cell in cells.items()}
    except FileError as error:
        raise LabelError(str(error)) from None


def label_rows(
    files: Mapping[str, str],
    columns: Sequence[str],
    row_of: Callable[[dict[str, str]], dict[str, Any] | None],
    labelled: Callable[[Mapping[str, Any]], str],
) -> list[dict[str, Any]]:
    """Rows of all files with their `file` and `line`; a rater labels a thing once.

    Args:
        files: name -> text of each CSV file.
        columns: that each header must have.
        row_of: a line's cells -> its row, or None for a line to pass over; may raise LabelError.
        labelled: a row -> the words for what it labels, which tell things apart.

    Raises:
        LabelError: every wrong line, one message per line.
    """
    problems: list[str] = []
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], str] = {}
    for name, text in files.items():
        for line, record in label_records(name, text, columns):
            place = f"{name}:{line}"
            try:
                row = row_of(record)
            except LabelError as error:
                problems.append(f"{place}: {error}")
                continue
            if row is None:
                continue
            key = (row["rater"], labelled(row))
            if key in seen:
                problems.append(
                    f"{place}: rater {key[0]!r} has labelled {key[1]} already ({seen[key]}); keep "
                    "one of the two"
                )
                continue
            seen[key] = place
            rows.append({**row, "file": name, "line": line})
    if problems:
        raise LabelError("\n".join(problems))
    return rows


def whole_number(record: Mapping[str, str], column: str) -> int:
    """A cell as a number from 0; LabelError otherwise."""
    cell = record[column]
    if not (cell.isascii() and cell.isdigit() and len(cell) < 10):
        raise LabelError(f"{column} is {record[column]!r}; write a whole number from 0")
    return int(cell)


def check_rater(record: Mapping[str, str], study: str) -> None:
    """Raise LabelError for a line of another study or without a rater."""
    if record["study"] != study:
        raise LabelError(
            f"study is {record['study']!r}, but the file is listed by study {study!r}; move the "
            "line to a file of its study"
        )
    if not record["rater"]:
        raise LabelError("rater is empty; name who gave the label")


def check_sae(record: Mapping[str, str], layer: int, sae: LabelledSae) -> None:
    """Raise LabelError when a line names an SAE (column sae) that is not the layer's any more."""
    if record.get("sae") and record["sae"] != sae.weights_hash:
        raise LabelError(
            f"the label was given to SAE {record['sae']}, but layer {layer} now has "
            f"{sae.weights_hash}; label the new features, or take the file out of the study"
        )


def labelled_feature(record: Mapping[str, str], layer: int, sae: LabelledSae) -> int:
    """The cell `feature`, a feature of `sae`; LabelError otherwise."""
    feature = whole_number(record, "feature")
    if feature >= sae.d_sae:
        raise LabelError(
            f"feature {feature} does not exist; layer {layer} has features 0..{sae.d_sae - 1}"
        )
    return feature


# ---- private -------------------------------------------------------------------------------------


def _names(paths: list[Path]) -> dict[str, Path]:
    """The shortest ends of the paths that are all different, of one length where names agree."""
    places: dict[str, Path] = {}
    for path in paths:
        place = os.path.realpath(path)
        if place in places:
            raise LabelError(f"{path} is listed twice (as {places[place]}); remove one of them")
        places[place] = path
    found: dict[str, Path] = {}
    for path in paths:
        alike = [other for other in paths if other.name == path.name]
        length = 1
        while len({other.parts[-length:] for other in alike}) < len(alike):
            length += 1
        found[printable("/".join(path.parts[-length:]))] = path
    return found
