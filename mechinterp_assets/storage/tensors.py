"""The tensor store: weights and activations as immutable versions of safetensors files.

    <root>/<kind>/<partition>/v00000001-<run>/    one version: files and manifest.json
    <root>/.scratch/<kind>/<partition>/           checkpoints of unfinished work
    <root>/.quarantine/<kind>/<partition>/        folders that are no versions of the store's

A version is written under a private name and published by one rename, so it is there whole or not
at all, and never changes afterwards. What a manifest holds and checks: `manifest.py`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mechinterp_assets.storage.disk_space import told_when_full
from mechinterp_assets.storage.files import (
    fsync,
    locked,
    replace_durably,
    run_label,
    sweep_work_folders,
    try_locked,
    work_folder,
)
from mechinterp_assets.storage.manifest import (
    MANIFEST_NAME,
    ArtefactError,
    Manifest,
    check_files,
    check_hashes,
    describe_files,
    load_manifest,
)
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.quarantine import set_aside

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("mechinterp")

KEEP_SECONDS = 7 * 24 * 3600.0
_VERSION = re.compile(r"v(\d{8})-[A-Za-z0-9]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OPEN_TRIES = 10


@dataclass(frozen=True)
class PublishedTensors:
    """One artefact version that was written."""

    path: Path
    version: int
    data_version: str
    bytes: int


class Artefact:
    """One version of an artefact, opened for reading; its files have passed the manifest's checks.

    Tensors are memory-mapped: reading a slice touches only its pages. A file that was read from
    once stays readable through this object even after its version was removed.
    """

    def __init__(self, path: Path, version: int, manifest: Manifest) -> None:
        self.path = path
        self.version = version
        self.manifest = manifest
        self._open: dict[str, Any] = {}

    @property
    def files(self) -> list[str]:
        """Names of all files but the manifest, sorted."""
        return sorted(self.manifest.files)

    @cached_property
    def data_version(self) -> str:
        """Content hash, the same for the same content whichever run wrote it."""
        return self.manifest.data_version

    @property
    def info(self) -> Mapping[str, Any]:
        """What the producer noted down."""
        return self.manifest.info

    @property
    def provenance(self) -> Provenance:
        """Where the artefact comes from."""
        return self.manifest.provenance

    def file(self, name: str) -> Path:
        """Path of one of the files; an unknown name is an ArtefactError."""
        if name not in self.manifest.files:
            raise ArtefactError(f"{self.path} has no file {name}; it has {', '.join(self.files)}")
        return self.path / name

    def tensor(self, file: str, name: str) -> torch.Tensor:
        """One whole tensor of one file."""
        self._check_tensor(file, name)
        tensor: torch.Tensor = self._handle(file).get_tensor(name)
        return tensor

    def slice(self, file: str, name: str) -> Any:
        """A lazy view of one tensor: index it (`view[10:20]`) to read just that part."""
        self._check_tensor(file, name)
        return self._handle(file).get_slice(name)

    def load(self, file: str) -> dict[str, torch.Tensor]:
        """All tensors of one file."""
        return {
            name: self.tensor(file, name) for name in self.manifest.files[self._known(file)].tensors
        }

    def _known(self, file: str) -> str:
        return self.file(file).name

    def _check_tensor(self, file: str, name: str) -> None:
        tensors = self.manifest.files[self._known(file)].tensors
        if name not in tensors:
            raise ArtefactError(
                f"{self.path / file} has no tensor {name}; it has {', '.join(sorted(tensors))}"
            )

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.file(file), framework="pt")
        return self._open[file]


class ArtefactWriter:
    """Collects the files of one version; see `Tensors.writer`.

    Attributes:
        published: what was published, after the `with` block.
    """

    def __init__(self, folder: Path, info: Mapping[str, Any]) -> None:
        self.folder = folder
        self.info = dict(info)
        self._published: PublishedTensors | None = None

    @property
    def published(self) -> PublishedTensors:
        """The published version; an error before the `with` block has ended well."""
        if self._published is None:
            raise ArtefactError("nothing is published before the writer's with block has ended")
        return self._published

    def add(
        self,
        name: str,
        tensors: Mapping[str, torch.Tensor],
        metadata: Mapping[str, str] | None = None,
    ) -> Path:
        """Write one safetensors file; its path can be read back before publishing."""
        if not name.endswith(".safetensors"):
            raise ArtefactError(f"{name} must end in .safetensors; use add_bytes for other files")
        path = self.path(name)
        save_tensors(path, tensors, metadata)
        return path

    def add_bytes(self, name: str, content: bytes) -> Path:
        """Write one other file, such as a configuration in JSON."""
        path = self.path(name)
        path.write_bytes(content)
        return path

    def path(self, name: str) -> Path:
        """Where to write a file by other means; whatever is there at the end is published."""
        if not _NAME.fullmatch(name) or name == MANIFEST_NAME:
            raise ArtefactError(f"{name!r} cannot name a file of an artefact")
        path = self.folder / name
        if path.exists():
            raise ArtefactError(f"{name} was already added")
        return path


class Scratch:
    """A folder for checkpoints of one artefact's unfinished work; see `Tensors.scratch`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], info: Mapping[str, Any]) -> None:
        """Replace the checkpoint `name`; a crash leaves the old or the new one, never part."""
        with self.replacing(name) as path:
            save_tensors(path, tensors, {"info": json.dumps(dict(info), allow_nan=False)})

    def load(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and info of the checkpoint `name`, or None if there is none.

        Raises:
            ArtefactError: the file is not a checkpoint.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as handle:
                info: dict[str, Any] = json.loads(handle.metadata()["info"])
                names = handle.keys()
                tensors = {key: handle.get_tensor(key).clone() for key in names}
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ArtefactError(
                f"{path} is not a readable checkpoint ({error}); delete it to start from step 0"
            ) from error
        return tensors, info

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A path to write to; at the end of the block it takes the place of file `name`."""
        target = self._path(name)
        with work_folder(self.folder) as work:
            path = work / name
            yield path
            replace_durably(path, target)

    def clear(self) -> None:
        """Remove all checkpoints, as after publishing what they led to."""
        for path in self.folder.iterdir():
            if path.is_file() and not path.name.startswith("."):
                path.unlink()

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ArtefactError(f"{name!r} cannot name a checkpoint")
        return self.folder / name


class Tensors:
    """Artefacts under the folder `root`. Safe for any number of processes at once.

    Args:
        root: folder of the store; made on the first write.
        keep_seconds: how long a version stays after its successor appeared.
    """

    def __init__(self, root: Path | str, keep_seconds: float = KEEP_SECONDS) -> None:
        self.root = Path(root).resolve()
        self.keep_seconds = keep_seconds

    @contextmanager
    def writer(
        self,
        kind: str,
        partition: str,
        provenance: Provenance,
        info: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Iterator[ArtefactWriter]:
        """Write the next version of an artefact; it is published when the block ends well.

        An exception (or the death of the process) leaves nothing visible. Files can be read back
        inside the block, so a check that raises keeps a bad artefact from being published.

        Args:
            kind: what the artefact is, such as `attention_sae`.
            partition: partition key.
            provenance: where the artefact comes from.
            info: free-form JSON to keep; `writer.info` can be added to until the end.
            inputs: data version of each input.

        Raises:
            ArtefactError: a bad name, a name added twice, or no file at all.
            DiskFullError: there was no space; nothing was published.
        """
        self._folder(kind, partition)
        with told_when_full(self.root), work_folder(self.root) as work:
            folder = work / "version"
            folder.mkdir()
            writer = ArtefactWriter(folder, info or {})
            yield writer
            manifest = Manifest(
                kind=kind,
                partition=partition,
                files=describe_files(folder),
                provenance=provenance,
                inputs=dict(inputs or {}),
                info=writer.info,
                written_at=time.time(),
            )
            if not manifest.files:
                raise ArtefactError(f"{kind}/{partition}: no file was added, nothing to publish")
            writer._published = self._publish(folder, manifest)
        self._remove_superseded(kind, partition)
        sweep_work_folders(self.root)

    def write(
        self,
        kind: str,
        partition: str,
        files: Mapping[str, Mapping[str, torch.Tensor]],
        provenance: Provenance,
        info: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> PublishedTensors:
        """Publish an artefact whose files (name -> tensors) are all in memory; see `writer`."""
        with self.writer(kind, partition, provenance, info, inputs) as writer:
            for name, tensors in files.items():
                writer.add(name, tensors)
        return writer.published

    def open(
        self, kind: str, partition: str, version: int | None = None, *, verify: bool = True
    ) -> Artefact:
        """Open the current version, or the one named, after checking it against its manifest.

        Every file must be there with its size, hold the tensors, shapes and dtypes it should, and
        have the SHA-256 that it was published with.

        Args:
            kind: what the artefact is.
            partition: partition key.
            version: version number; the current one by default.
            verify: check the files' SHA-256, once per file and process; without, a changed value
                would not be noticed.

        Raises:
            ArtefactError: no such artefact or version, or a file that is missing or damaged.
        """
        for last_try in [False] * (_OPEN_TRIES - 1) + [True]:
            number, path = self._find(kind, partition, version)
            try:
                manifest = load_manifest(path)
                check_files(path, manifest)
                if verify:
                    check_hashes(path, manifest)
                break
            except (ArtefactError, FileNotFoundError):
                # A version may be removed between being found and being opened.
                if last_try or path.exists():
                    raise
        return Artefact(path, number, manifest)

    def exists(self, kind: str, partition: str) -> bool:
        """Whether the artefact has a version."""
        return bool(self.versions(kind, partition))

    def versions(self, kind: str, partition: str) -> dict[int, Path]:
        """Folders of the versions that are stored, by number; the last is the current one."""
        folder = self._folder(kind, partition)
        if not folder.is_dir():
            return {}
        found = {}
        for path in folder.iterdir():
            if match := _VERSION.fullmatch(path.name):
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def stored(self) -> Iterator[tuple[str, str, int]]:
        """Kind, partition and number of every version that is stored, by name."""
        for folder in sorted(self.root.glob("[!.]*/[!.]*/")):
            kind, partition = folder.parent.name, folder.name
            if _NAME.fullmatch(kind) and _NAME.fullmatch(partition):
                for number in self.versions(kind, partition):
                    yield kind, partition, number

    def data_version(self, kind: str, partition: str) -> str:
        """Content hash of the current version; a missing artefact is an ArtefactError."""
        return load_manifest(self._find(kind, partition, None)[1]).data_version

    @contextmanager
    def scratch(self, kind: str, partition: str) -> Iterator[Scratch]:
        """A folder for checkpoints of unfinished work on one artefact, which outlives the process.

        Raises:
            ArtefactError: another process is at work on the same artefact.
        """
        self._folder(kind, partition)
        folder = self.root / ".scratch" / kind / partition
        folder.mkdir(parents=True, exist_ok=True)
        with try_locked(folder / ".lock") as held:
            if not held:
                raise ArtefactError(
                    f"another run is at work on {kind}/{partition} and holds {folder};"
                    " wait for it or stop it"
                )
            sweep_work_folders(folder)
            yield Scratch(folder)

    def _folder(self, kind: str, partition: str) -> Path:
        for name in (kind, partition):
            if not _NAME.fullmatch(name):
                raise ArtefactError(
                    f"{name!r} cannot name a folder: use letters, digits, . _ -"
                    " and start with a letter or digit"
                )
        return self.root / kind / partition

    def _find(self, kind: str, partition: str, version: int | None) -> tuple[int, Path]:
        found = self.versions(kind, partition)
        if not found:
            raise ArtefactError(
                f"there is no {kind} for {partition} in {self.root};"
                f" materialize the asset {kind} for it"
            )
        number = max(found) if version is None else version
        if number not in found:
            raise ArtefactError(
                f"{kind} for {partition} has no version {version}; there are"
                f" {', '.join(map(str, found))}"
            )
        return number, found[number]

    def _publish(self, folder: Path, manifest: Manifest) -> PublishedTensors:
        manifest.save(folder)
        for path in folder.iterdir():
            fsync(path)
        fsync(folder)
        parent = self._folder(manifest.kind, manifest.partition)
        with locked(parent / ".lock"):
            found = self.versions(manifest.kind, manifest.partition)
            number = max(found, default=0) + 1
            for path in found.values():
                # Not a version of this store's, which get their manifest before their name.
                if not (path / MANIFEST_NAME).exists():
                    place = set_aside(self.root, path)
                    _log.warning(
                        "%s has no manifest: moved it to %s; remove it if nobody misses it",
                        path,
                        place,
                    )
            target = parent / f"v{number:08d}-{run_label(manifest.provenance.run_id)}"
            os.rename(folder, target)
            fsync(parent)
        return PublishedTensors(target, number, manifest.data_version, manifest.bytes)

    def _remove_superseded(self, kind: str, partition: str) -> None:
        paths = list(self.versions(kind, partition).values())
        for path, successor in pairwise(paths):
            # Another writer may be removing the same versions.
            with suppress(FileNotFoundError), work_folder(self.root) as work:
                appeared = (successor / MANIFEST_NAME).stat().st_mtime
                if time.time() - appeared > self.keep_seconds:
                    os.rename(path, work / "removed")


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file from tensors on any device and of any strides."""
    from safetensors.torch import save_file  # imports torch

    ready: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        dense = tensor.detach().cpu().contiguous()
        storage = dense.untyped_storage().data_ptr()
        # The format has no shared storage: views of one tensor are written one by one.
        ready[name] = dense.clone() if storage in storages else dense
        storages.add(storage)
    save_file(ready, path, metadata=None if metadata is None else dict(metadata))
