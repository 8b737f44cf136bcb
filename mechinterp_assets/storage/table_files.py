"""Parquet files of the lake: their names, what they say of themselves, whether they are whole.

Belongs here: one file at a time. Does not belong here: which of them are published and current
(ledger.py), and writing them (lake.py).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mechinterp_assets.storage.hashes import ContentHash
from mechinterp_assets.storage.lake_error import LakeError
from mechinterp_assets.storage.ledger import Version
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import Column
from mechinterp_assets.storage.whole_files import fault_once, hash_fault, size_fault

_NAME = re.compile(r"v(\d{8})-[A-Za-z0-9]+\.parquet")
_BATCH_ROWS = 65_536


def number_of(name: str) -> int | None:
    """Version number that a file's name carries; None for another kind of file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def table_files(root: Path) -> Iterator[Path]:
    """Every file of a version under the lake's folder, published or not, by name."""
    for path in sorted(root.glob("[!.]*/[!.]*/v*.parquet")):
        if number_of(path.name) is not None:
            yield path


def read_version(path: Path, root: Path) -> Version:
    """What a file's metadata, name and place say about the version that it holds.

    Raises:
        LakeError: it cannot be read, or was not written by the lake.
    """
    number = number_of(path.name)
    assert number is not None
    try:
        file = pq.read_metadata(path)
        metadata = {key.decode(): text.decode() for key, text in (file.metadata or {}).items()}
        return Version(
            table=metadata["mechinterp.table"],
            partition=path.parent.name,
            version=number,
            file=str(path.relative_to(root)),
            data_version=metadata["mechinterp.data_version"],
            rows=file.num_rows,
            bytes=path.stat().st_size,
            provenance=Provenance(**json.loads(metadata["mechinterp.provenance"])),
            formula_version=int(metadata["mechinterp.formula_version"]),
            inputs=json.loads(metadata["mechinterp.inputs"]),
            columns=tuple((n, t) for n, t in json.loads(metadata["mechinterp.columns"])),
            written_at=path.stat().st_mtime,
        )
    except KeyError as error:
        raise LakeError(f"{path} was not written by the lake: it lacks {error}") from error
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise LakeError(f"{path} is not a whole Parquet file of the lake ({error})") from error


def check_version(root: Path, version: Version, *, content: bool = True) -> None:
    """Check that a version's file is as it was written.

    Args:
        root: folder of the lake.
        version: what the ledger says of it.
        content: check all bytes, once per process; else size and number of rows alone.

    Raises:
        LakeError: naming the file, the version, what is wrong and what to do.
    """
    path = root / version.file
    fault = size_fault(path, version.bytes)
    if fault is None:
        fault = _content_fault(path, version) if content else _rows_fault(path, version)
    if fault is not None:
        raise LakeError(
            f"{path} {fault}; it is version {version.version} of {version.table} for"
            f" {version.partition}: put the file back from a copy, or materialize the asset"
            f" {version.table} for it again"
        )


def _content_fault(path: Path, version: Version) -> str | None:
    if version.sha256 is not None:
        return hash_fault(path, version.sha256)
    return fault_once(path, version.data_version, lambda: _data_fault(path, version))


def _data_fault(path: Path, version: Version) -> str | None:
    """What is wrong with the rows of a file that was written before files were hashed."""
    constants = {*version.provenance.as_dict(), "formula_version"}
    schema = pl.Schema(
        {
            name: Column(name, type_name, "").polars_type
            for name, type_name in version.columns
            if name not in constants
        }
    )
    try:
        content = ContentHash(schema)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=schema.names()):
                frame = pl.DataFrame(pl.from_arrow(batch))
                content.update(frame.select(schema.names()).cast(schema))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        return f"is damaged ({error})"
    found = content.hexdigest()
    if found == version.data_version:
        return None
    return f"is damaged: its data version is {found} instead of {version.data_version}"


def _rows_fault(path: Path, version: Version) -> str | None:
    try:
        found = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        return f"is damaged ({error})"
    return None if found == version.rows else f"has {found} rows instead of {version.rows}"
