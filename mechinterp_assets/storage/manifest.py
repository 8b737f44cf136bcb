"""Manifests of tensor artefacts: what files a version consists of, and whether they still do.

The manifest is JSON beside the files, so an artefact can be understood without this code. It holds
the SHA-256 of every file and, since format 2, of what it says itself.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.whole_files import hash_fault, size_fault

MANIFEST_NAME = "manifest.json"
_FORMAT = 2
# Format 1 has no SHA-256 of itself.
_READ = (1, _FORMAT)
_SAFETENSORS = ".safetensors"


class ArtefactError(RuntimeError):
    """A tensor artefact is missing or damaged; the message says which file and what to do."""


@dataclass(frozen=True)
class TensorEntry:
    """Shape and dtype (safetensors name, such as BF16) of one tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class FileEntry:
    """One file: size, SHA-256 and, for safetensors, the tensors in it."""

    bytes: int
    sha256: str
    tensors: Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Manifest:
    """Content and origin of one artefact version.

    Attributes:
        kind: what the artefact is, such as `attention_sae`.
        partition: partition key.
        files: by name, sorted.
        provenance: where the artefact comes from.
        inputs: data version of each input.
        info: free-form JSON of the producer.
        written_at: seconds since the epoch.
    """

    kind: str
    partition: str
    files: Mapping[str, FileEntry]
    provenance: Provenance
    inputs: Mapping[str, str]
    info: Mapping[str, Any]
    written_at: float

    @property
    def data_version(self) -> str:
        """SHA-256 over the files' names and hashes; equal for equal content."""
        lines = [f"{name} {entry.sha256}" for name, entry in sorted(self.files.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    def save(self, folder: Path) -> Path:
        """Write the manifest into `folder`."""
        content = {
            "format": _FORMAT,
            "kind": self.kind,
            "partition": self.partition,
            "data_version": self.data_version,
            "provenance": self.provenance.as_dict(),
            "inputs": dict(self.inputs),
            "info": dict(self.info),
            "written_at": self.written_at,
            "files": {
                name: {
                    "bytes": entry.bytes,
                    "sha256": entry.sha256,
                    "tensors": {
                        key: {"shape": list(tensor.shape), "dtype": tensor.dtype}
                        for key, tensor in entry.tensors.items()
                    },
                }
                for name, entry in self.files.items()
            },
        }
        path = folder / MANIFEST_NAME
        signed = {**content, "sha256": _content_sha256(content)}
        path.write_text(json.dumps(signed, indent=1, allow_nan=False))
        return path


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder`.

    Raises:
        ArtefactError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text())
        if content["format"] not in _READ:
            raise ArtefactError(
                f"{path} has format {content['format']}, this version reads {_FORMAT};"
                " materialize the artefact again"
            )
        if content["format"] > 1 and content.pop("sha256") != _content_sha256(content):
            raise ArtefactError(f"{path} is damaged: its SHA-256 is another; {_REMEDY}")
        manifest = Manifest(
            kind=content["kind"],
            partition=content["partition"],
            files={
                name: FileEntry(
                    entry["bytes"],
                    entry["sha256"],
                    {
                        key: TensorEntry(tuple(tensor["shape"]), tensor["dtype"])
                        for key, tensor in entry["tensors"].items()
                    },
                )
                for name, entry in content["files"].items()
            },
            provenance=Provenance(**content["provenance"]),
            inputs=content["inputs"],
            info=content["info"],
            written_at=content["written_at"],
        )
        if manifest.data_version != content["data_version"]:
            raise ArtefactError(f"{path} is damaged: its data version is another; {_REMEDY}")
        return manifest
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} is missing; {_REMEDY}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); {_REMEDY}") from error


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Entries for all files in `folder` as they are on disk now."""
    return {
        path.name: FileEntry(path.stat().st_size, file_sha256(path), _tensor_entries(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_NAME
    }


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file is there with its size and its tensors' shapes and dtypes.

    Raises:
        ArtefactError: naming the first file that is not as the manifest says.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if fault := size_fault(path, entry.bytes):
            raise ArtefactError(f"{path} {fault}; {_REMEDY}")
        found = _tensor_entries(path)
        if found != entry.tensors:
            different = sorted(
                key
                for key in found.keys() | entry.tensors.keys()
                if found.get(key) != entry.tensors.get(key)
            )
            raise ArtefactError(
                f"{path} holds other tensors than its manifest says ({', '.join(different)});"
                f" {_REMEDY}"
            )


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Check the SHA-256 of every file, of each once in this process.

    Raises:
        ArtefactError: naming the first file whose content changed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if fault := size_fault(path, entry.bytes) or hash_fault(path, entry.sha256):
            raise ArtefactError(f"{path} {fault}; {_REMEDY}")


def _content_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, whatever its spaces and order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_REMEDY = "delete this version's folder to go back to the one before, or materialize it again"


def _tensor_entries(path: Path) -> dict[str, TensorEntry]:
    """Shapes and dtypes from the header of a safetensors file; nothing for other files."""
    if path.suffix != _SAFETENSORS:
        return {}
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(handle.read(length))
        entries = {
            key: TensorEntry(tuple(value["shape"]), value["dtype"])
            for key, value in header.items()
            if key != "__metadata__"
        }
        ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        if 8 + length + max(ends, default=0) != size:
            raise ValueError("the tensors do not end where the file does")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{path} is not a whole safetensors file ({error}); {_REMEDY}"
        ) from error
    return entries
