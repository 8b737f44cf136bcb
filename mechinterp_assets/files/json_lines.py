"""JSON objects, one a line.

Belongs here: from a file to objects, strictly, with one error for what is none. Does not belong
here: what the objects mean (corpora/readers.py, prompts/user.py).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechinterp_assets.files.regular_file import (
    NotUnicodeError,
    decoded,
    file_error,
    read_lines,
)

MAX_LINE_BYTES = 1 << 28


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | NotUnicodeError]]:
    """Number, from 1, and object of each line that is not blank.

    A line that is not UTF-8 comes as the error that says so, for the caller to raise or to pass
    over. Raises FileError for every other line that is no JSON object.
    """
    for number, line in read_lines(file, "a JSONL file", MAX_LINE_BYTES):
        if not line.strip():
            continue
        try:
            yield number, _object(decoded(line, file, number), file, number)
        except NotUnicodeError as error:
            yield number, error


def _object(text: str, file: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise file_error(file, "nested too deeply; flatten it", number) from None
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg} in column {error.colno}); correct it"
        raise file_error(file, what, number) from None
    except ValueError as error:  # a whole number with thousands of digits
        raise file_error(file, f"not JSON ({error}); correct it", number) from None
    if not isinstance(value, dict):
        raise file_error(
            file, f"{type(value).__name__}, not a JSON object; write one a line", number
        )
    return value
