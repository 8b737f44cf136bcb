"""Labels of features and heads, written into the CSV files of a study.

Belongs here: which file, and that what is written can be read again. Does not belong here: formats
(labels/), reading labels into tables (defs/features, defs/heads).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mechinterp_assets.api.not_there import NotThereError
from mechinterp_assets.files.csv_reader import MAX_BYTES
from mechinterp_assets.files.regular_file import FileError, read_text
from mechinterp_assets.labels.files import LabelError
from mechinterp_assets.labels.written import with_line
from mechinterp_assets.storage.files import locked, write_durably


def chosen_file(listed: Sequence[Path], given: Path | str | None, setting: str) -> Path:
    """The file to write to: the one given, or the only one that the study lists.

    Raises NotThereError where that is not one file.
    """
    if given is not None:
        return Path(given).expanduser().absolute()
    if len(listed) == 1:
        return listed[0]
    said = f"lists {len(listed)} files" if listed else "lists no file"
    raise NotThereError(
        f"the study {said} under `{setting}`; name one: file='my-labels.csv', which then belongs "
        f"under `{setting}` in the study file"
    )


def write_label(
    path: Path,
    columns: Sequence[str],
    line: Mapping[str, str],
    check: Callable[[Mapping[str, str]], object],
    *,
    key: Sequence[str],
    replace: bool,
    lock: Path,
) -> Path:
    """Put a line into a file, made if absent; nothing is written that could not be read again.

    Args:
        path: of the file.
        columns: header of a new file.
        line: cells by column.
        check: reads {name: text}; raises LabelError for text that cannot be used.
        key: columns that name what is labelled and by whom.
        replace: take out an earlier line with the same key; otherwise that is an error.
        lock: a file that all who write labels of the study lock, so that none is lost.

    Raises:
        LabelError: the label or the file is wrong; the file stays as it was.
    """
    if not path.parent.is_dir():
        raise LabelError(f"{path.parent} is no folder; make it, or name a file elsewhere")
    path = path.resolve()
    with locked(lock):
        try:
            text = read_text(path, "a CSV file", MAX_BYTES) if path.exists() else ""
            changed = with_line(path, text, columns, line, replace=key if replace else ())
        except FileError as error:
            raise LabelError(str(error)) from None
        check({path.name: changed})
        write_durably(path, changed)
    return path
