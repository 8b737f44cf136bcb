"""Rows of Parquet files, in Python's own types.

Belongs here: from a file to rows, whatever Arrow type holds their text, and one error for a damaged
file. Does not belong here: what the rows mean (corpora/readers.py, prompts/user.py).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mechinterp_assets.files.regular_file import check_regular, file_error

_ROWS_AT_ONCE = 256


def parquet_columns(file: Path) -> dict[str, str]:
    """Name -> Arrow type of each column of the file. Raises FileError."""
    names = _opened(file).schema_arrow.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise file_error(file, f"column {', '.join(twice)} is there twice; rename one")
    return {field.name: str(_plain_type(field.type)) for field in _opened(file).schema_arrow}


def parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows with these columns alone; text comes as bytes, which need not be UTF-8.

    Raises FileError, which says after which row the file is damaged.
    """
    opened, row = _opened(file), 0
    batches = opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns))
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            cells = [_as_bytes(column).to_pylist() for column in batch.columns]
        except (pa.ArrowException, OSError, ValueError) as error:
            what = f"damaged behind row {row} ({_first_line(error)})"
            raise file_error(file, f"{what}; copy it again from its source") from None
        for values in zip(*cells, strict=True):
            yield dict(zip(batch.schema.names, values, strict=True))
        row += batch.num_rows


def is_text(arrow_type: str) -> bool:
    """Whether a column of this type (see `parquet_columns`) can hold text."""
    return arrow_type in {
        *("string", "large_string", "string_view"),
        *("binary", "large_binary", "binary_view"),
    }


# ---- private -------------------------------------------------------------------------------------


def _opened(file: Path) -> Any:
    check_regular(file, "a Parquet file")
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise file_error(
            file, f"not a Parquet file, or damaged ({_first_line(error)}); copy it again from its"
            " source"
        ) from None  # fmt: skip


def _plain_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _as_bytes(column: Any) -> Any:
    """The column, its text as bytes: decoding is then the reader's, cell by cell."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()) if is_text(str(column.type)) else column


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
