"""Writing one version of a table: a complete Parquet file under a temporary name.

Belongs here: rows to file. Does not belong here: which file, and publishing it (lake.py), what is
read back of it (table_files.py).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.storage.catalog import column_types
from mechinterp_assets.storage.declarations import TableSpec, polars_schema
from mechinterp_assets.storage.files import fsync
from mechinterp_assets.storage.hashes import ContentHash
from mechinterp_assets.storage.provenance import Provenance

# A reader of few rows decodes whole row groups, so wide rows (lists) make shorter ones.
_ROW_GROUP_ROWS = 250_000
_ROW_GROUP_BYTES = 8 * 2**20


@dataclass(frozen=True)
class PreparedFile:
    """A complete file under a temporary name, not yet published."""

    spec: TableSpec
    file: Path
    data_version: str
    rows: int
    sha256: str


def prepare_file(
    spec: TableSpec,
    frames: Iterable[pl.DataFrame],
    folder: Path,
    provenance: Provenance,
    inputs: dict[str, str],
) -> PreparedFile:
    """Write the complete file of a version under `folder` from conformed frames."""
    constants: dict[str, str | int | None] = {
        **provenance.as_dict(),
        "formula_version": spec.formula_version,
    }
    types = polars_schema(spec, stored=True)
    columns = [
        pl.lit(constants[name], dtype=dtype).alias(name) if name in constants else pl.col(name)
        for name, dtype in types.items()
    ]
    schema = polars_schema(spec)
    content = ContentHash(schema)
    file = folder / f"{spec.name}.parquet"
    arrow_schema = _arrow(pl.DataFrame(schema=types)).schema
    # Parquet's smallest and largest value leave out NaN, and DuckDB believes them: with statistics
    # `x > 1` and `isnan(x)` would miss the NaN of a column whose numbers are all below 1.
    exact = [name for name, dtype in types.items() if not (dtype.is_float() or dtype.is_nested())]
    with pq.ParquetWriter(file, arrow_schema, compression="zstd", write_statistics=exact) as writer:
        for group in _row_groups(frames, schema):
            content.update(group)
            # Constant columns never exist at the length of the table.
            writer.write_table(_arrow(group.select(columns)))
        data_version = content.hexdigest()
        writer.add_key_value_metadata(_file_metadata(spec, provenance, inputs, data_version))
    fsync(file)
    return PreparedFile(spec, file, data_version, content.rows, file_sha256(file))


# ---- private -------------------------------------------------------------------------------------


def _row_groups(frames: Iterable[pl.DataFrame], schema: pl.Schema) -> Iterator[pl.DataFrame]:
    """The rows of all frames, cut into row groups."""
    waiting = pl.DataFrame(schema=schema)
    for frame in frames:
        waiting = pl.concat([waiting, frame])
        row_bytes = waiting.estimated_size() / max(1, waiting.height)
        rows = max(1, min(_ROW_GROUP_ROWS, int(_ROW_GROUP_BYTES / max(1.0, row_bytes))))
        while waiting.height >= rows:
            yield waiting.head(rows)
            waiting = waiting.slice(rows)
    if waiting.height:
        yield waiting


def _arrow(frame: pl.DataFrame) -> pa.Table:
    """Arrow types that every Parquet reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _file_metadata(
    spec: TableSpec, provenance: Provenance, inputs: dict[str, str], data_version: str
) -> dict[str, str]:
    """Key-value metadata that lets a Parquet file be understood without the lake."""
    return {
        "mechinterp.table": spec.name,
        "mechinterp.data_version": data_version,
        "mechinterp.formula_version": str(spec.formula_version),
        "mechinterp.provenance": json.dumps(provenance.as_dict()),
        "mechinterp.inputs": json.dumps(inputs),
        "mechinterp.columns": json.dumps(column_types(spec.stored_columns)),
    }
