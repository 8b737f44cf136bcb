"""Data versions: one hash of a frame's content, the same on every machine and library version.

Nothing of how the frame is chunked, encoded or compressed enters the hash, so equal rows in equal
order have equal data versions whichever run wrote them, in one piece or streamed.
"""

import hashlib

import numpy as np
import polars as pl

_SLICE_ROWS = 1_000_000
_TYPE_NAMES: dict[pl.DataType, str] = {
    pl.Boolean(): "bool",
    pl.Int32(): "int32",
    pl.Int64(): "int64",
    pl.Float32(): "float32",
    pl.Float64(): "float64",
    pl.String(): "string",
}


def content_hash(frame: pl.DataFrame) -> str:
    """`ContentHash` of a whole frame."""
    content = ContentHash(frame.schema)
    content.update(frame)
    return content.hexdigest()


class ContentHash:
    """SHA-256 of column names, types and values in row order, of a frame that arrives in pieces.

    It is the digest of the number of rows and of each column's name, type and own digests, which
    are those of its nulls' row numbers, of its lengths (lists and strings) and of its values. Types
    are those that tables may declare. All NaNs count as equal, 0.0 and -0.0 as different.
    """

    def __init__(self, schema: pl.Schema) -> None:
        """Start with no rows of these columns."""
        self.rows = 0
        self._types = {name: _type_name(dtype) for name, dtype in schema.items()}
        self._columns = {name: _ColumnDigest(dtype) for name, dtype in schema.items()}

    def update(self, frame: pl.DataFrame) -> None:
        """Add rows; `frame` has the columns and types that were announced."""
        for part in frame.iter_slices(_SLICE_ROWS):
            for name, column in self._columns.items():
                column.update(part.get_column(name))
            self.rows += part.height

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        digest = hashlib.sha256(f"{self.rows}\0".encode())
        for name, column in self._columns.items():
            digest.update(f"{name}\0{self._types[name]}\0".encode() + column.digest())
        return digest.hexdigest()


class _ColumnDigest:
    """Digests of one column: nulls, lengths, then values; a null counts as length 0, value 0."""

    def __init__(self, dtype: pl.DataType) -> None:
        self._rows = 0
        self._nulls = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()
        self._has_lengths = isinstance(dtype, pl.List) or dtype == pl.String
        self._elements = _ColumnDigest(_inner(dtype)) if isinstance(dtype, pl.List) else None

    def update(self, series: pl.Series) -> None:
        if series.null_count():
            self._nulls.update(_bytes(series.is_null().arg_true().cast(pl.UInt64) + self._rows))
        self._rows += len(series)
        if self._elements is not None:
            lengths = series.list.len().fill_null(0)
            self._lengths.update(_bytes(lengths.cast(pl.UInt32)))
            # Null and empty lists have no elements, yet `explode` would give them a null each.
            filled = series.filter(lengths > 0)
            if len(filled):
                self._elements.update(filled.explode())
        elif self._has_lengths:
            self._lengths.update(_bytes(series.str.len_bytes().fill_null(0).cast(pl.UInt32)))
            self._values.update(series.str.join("").fill_null("").item().encode())
        else:
            self._values.update(_bytes(_plain(series)))

    def digest(self) -> bytes:
        values = self._values.digest() if self._elements is None else self._elements.digest()
        lengths = self._lengths.digest() if self._has_lengths else b""
        return self._nulls.digest() + lengths + values


def _inner(dtype: pl.List) -> pl.DataType:
    return pl.Series(dtype=dtype.inner).dtype


def _type_name(dtype: pl.DataType) -> str:
    """Names of our own, as a library may rename its types."""
    if isinstance(dtype, pl.List):
        return f"list[{_type_name(_inner(dtype))}]"
    if dtype not in _TYPE_NAMES:
        raise TypeError(
            f"type {dtype} has no content hash; only {', '.join(_TYPE_NAMES.values())} and lists"
        )
    return _TYPE_NAMES[dtype]


def _plain(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series.cast(pl.UInt8).fill_null(0)
    if series.dtype.is_float():
        return series.fill_null(0.0).fill_nan(float("nan"))
    return series.fill_null(0)


def _bytes(series: pl.Series) -> memoryview:
    array = np.ascontiguousarray(series.to_numpy())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data
