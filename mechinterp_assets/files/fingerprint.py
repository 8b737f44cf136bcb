"""Fingerprints of files and folders: one hash of names and content.

Belongs here: hashing, and remembering hashes so that a large file is read once. Does not belong
here: which files matter (staleness/study_files.py).
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from mechinterp_assets.files.sha256 import file_sha256

ABSENT = "absent"
# A file changed this recently may change again within the resolution of its time stamp.
_UNSETTLED_SECONDS = 3.0
# Hashing a file smaller than this costs less than remembering it.
_REMEMBERED_BYTES = 1 << 20


class FileHashes:
    """SHA-256 of files, each read again only when its place, size, inode or time changed.

    Args:
        kept: a file in which hashes of large files are kept for later processes; None keeps none.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self._kept = kept
        self._known: dict[str, tuple[list[int], str]] = _load(kept)
        self._new = False

    def of(self, path: Path) -> str:
        """SHA-256 (hex) of a file's content."""
        found = path.stat()
        state = [found.st_size, found.st_ino, found.st_mtime_ns]
        name = os.path.abspath(path)
        if name in self._known and self._known[name][0] == state:
            return self._known[name][1]
        digest = file_sha256(path)
        if time.time() - found.st_mtime > _UNSETTLED_SECONDS:
            self._known[name] = (state, digest)
            self._new |= found.st_size >= _REMEMBERED_BYTES
        return digest

    def save(self) -> None:
        """Keep what was learned; a folder that cannot be written to keeps nothing."""
        if self._kept is None or not self._new:
            return
        large = {n: known for n, known in self._known.items() if known[0][0] >= _REMEMBERED_BYTES}
        made = self._kept.with_name(f".{self._kept.name}.{uuid.uuid4().hex}")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(json.dumps(large))
            made.replace(self._kept)
            self._new = False
        except OSError:
            made.unlink(missing_ok=True)


def fingerprint(path: Path, hashes: FileHashes, counts: Callable[[str], bool] | None = None) -> str:
    """16 hex digits of a file's content, or of the names and contents of a folder's files.

    Files and folders whose name starts with a dot are passed over.

    Args:
        path: file or folder; where there is nothing, the fingerprint is `absent`.
        hashes: gives the files' hashes.
        counts: whether a file of the folder counts, by its name; None: each does.
    """
    if path.is_file():
        return hashes.of(path)[:16]
    if not path.is_dir():
        return ABSENT
    digest = hashlib.sha256()
    for file in _files(path):
        if counts is None or counts(file.name):
            digest.update(f"{file.relative_to(path).as_posix()}\0{hashes.of(file)}\0".encode())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterable[Path]:
    """Regular files under a folder, in the order of their paths."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(parent) / name for name in names if name[0] != "."]
    return sorted(path for path in found if path.is_file())


def _load(kept: Path | None) -> dict[str, tuple[list[int], str]]:
    """Hashes kept before; none where the file is missing or damaged."""
    if kept is None:
        return {}
    try:
        content = json.loads(kept.read_text())
        return {str(name): (list(state), str(digest)) for name, (state, digest) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
