"""Data versions: one hash of a frame's content, the same on every machine and library version.

Nothing of how the frame is chunked, encoded or compressed enters the hash, so equal rows in equal
order have equal data versions whichever run wrote them.
"""

import hashlib
from typing import Protocol

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


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 (hex) of column names, types and values in row order.

    Types are those that tables may declare. All NaNs count as equal, 0.0 and
    -0.0 as different.
    """
    digest = hashlib.sha256()
    digest.update(f"{frame.height}\0".encode())
    for series in frame.iter_columns():
        digest.update(f"{series.name}\0{_type_name(series.dtype)}\0".encode())
        _update(digest, series)
    return digest.hexdigest()


def _type_name(dtype: pl.DataType) -> str:
    """Names of our own, as a library may rename its types."""
    if isinstance(dtype, pl.List):
        return f"list[{_type_name(pl.Series(dtype=dtype.inner).dtype)}]"
    if dtype not in _TYPE_NAMES:
        raise TypeError(
            f"type {dtype} has no content hash; only {', '.join(_TYPE_NAMES.values())} and lists"
        )
    return _TYPE_NAMES[dtype]


def _update(digest: _Digest, series: pl.Series) -> None:
    """Hash nulls, then (for lists and strings) lengths, then values; nulls hash as zeros."""
    slices = [
        series.slice(start, _SLICE_ROWS) for start in range(0, max(len(series), 1), _SLICE_ROWS)
    ]
    if series.null_count():
        for part in slices:
            digest.update(_bytes(part.is_null().cast(pl.UInt8)))
    else:
        digest.update(b"\0no nulls\0")
    if isinstance(series.dtype, pl.List):
        for part in slices:
            digest.update(_bytes(part.list.len().fill_null(0).cast(pl.UInt32)))
        # Null and empty lists have no elements, yet `explode` would give them a null each.
        filled = series.filter(series.list.len().fill_null(0) > 0)
        inner = filled.explode() if len(filled) else pl.Series([], dtype=series.dtype.inner)
        _update(digest, inner)
    elif series.dtype == pl.String:
        for part in slices:
            digest.update(_bytes(part.str.len_bytes().fill_null(0).cast(pl.UInt32)))
        for part in slices:
            digest.update(part.str.join("").fill_null("").item().encode())
    else:
        for part in slices:
            digest.update(_bytes(_plain(part)))


def _plain(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series.cast(pl.UInt8).fill_null(0)
    if series.dtype.is_float():
        return series.fill_null(0.0).fill_nan(float("nan"))
    return series.fill_null(0)


def _bytes(series: pl.Series) -> memoryview:
    array = np.ascontiguousarray(series.to_numpy())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data
