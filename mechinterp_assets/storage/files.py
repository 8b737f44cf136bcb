"""File system steps that publishing rests on: durable renames and folders for unfinished work.

Only what tables, tensors and the files beside them share; nothing here knows what is stored.

Locks are the system's flock, which goes with the process that holds it and serves who waits in
turn, on a local disk and on NFS. The library filelock uses the same call but polls it, so that one
of several writers can starve, and where flock is missing takes a lock that outlives its holder.
"""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORK_FOLDER = ".work"
_LOCK_NAME = ".lock"
# A folder this young may belong to a writer that has not taken its lock yet.
_UNLOCKED_GRACE_SECONDS = 60.0


def fsync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_durably(source: Path, target: Path) -> None:
    """Rename `source` over `target` so that a crash leaves the old or the new one, never part."""
    fsync(source)
    os.replace(source, target)
    fsync(target.parent)


def write_durably(path: Path, text: str) -> None:
    """Write a text file, line ends as they are, so that a crash leaves the old or the new one."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8", newline="")
        replace_durably(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; it goes when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Like `locked`, but gives False at once where another holder has the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def run_label(run_id: str) -> str:
    """The part of a run id that names of files and folders carry."""
    return re.sub(r"[^A-Za-z0-9]", "", run_id)[:8] or "run"


@contextmanager
def work_folder(root: Path) -> Iterator[Path]:
    """A private folder under `root` for unfinished files, removed at the end.

    Its lock tells other processes that the owner lives; see `sweep_work_folders`.
    """
    folder = root / WORK_FOLDER / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        with locked(folder / _LOCK_NAME):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_work_folders(root: Path) -> int:
    """Remove the unfinished files of writers that died; returns how many writers' folders."""
    swept = 0
    parent = root / WORK_FOLDER
    if not parent.is_dir():
        return 0
    for folder in parent.iterdir():
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            swept += 1
    return swept


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / _LOCK_NAME).open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            # The lock file is created unlocked: leave its maker the time to lock it.
            return time.time() - os.fstat(handle.fileno()).st_mtime > _UNLOCKED_GRACE_SECONDS
    except FileNotFoundError:
        try:
            return time.time() - folder.stat().st_mtime > _UNLOCKED_GRACE_SECONDS
        except FileNotFoundError:
            return False
