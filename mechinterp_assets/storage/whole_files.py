"""Whether files are still what was written: size always, content once per file and process.

Belongs here: comparing files and remembering which were found whole. Does not belong here: which
size and hash a file should have (the ledger, the manifests), what is said of a damaged one.
"""

import time
from collections.abc import Callable
from pathlib import Path

from mechinterp_assets.files.sha256 import file_sha256

# A file so young may be written to again without getting another time, so it is not remembered.
_SAME_TIME_NS = 100_000_000
# What a file looked like and what it was compared with when it was found whole. One that was
# written to since has another time or inode, so it is compared again.
_whole: dict[Path, tuple[int, int, int, str]] = {}


def size_fault(path: Path, size: int) -> str | None:
    """What is wrong with a file's size, to follow its name in a sentence; None if nothing."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    return None if found == size else f"has {found} bytes instead of {size}"


def hash_fault(path: Path, sha256: str) -> str | None:
    """As `size_fault`, of its content."""

    def fault() -> str | None:
        found = file_sha256(path)
        return (
            None if found == sha256 else f"is damaged: its SHA-256 is {found} instead of {sha256}"
        )

    return fault_once(path, sha256, fault)


def fault_once(path: Path, expected: str, find: Callable[[], str | None]) -> str | None:
    """What `find` says of the file's content, unless it was found as `expected` in this process."""
    stat = path.stat()
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, expected)
    if _whole.get(path) == state:
        return None
    fault = find()
    if fault is None and time.time_ns() - stat.st_mtime_ns > _SAME_TIME_NS:
        _whole[path] = state
    return fault
