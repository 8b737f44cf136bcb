"""A full disk, told as one error whichever library met it first.

Belongs here: how SQLite, DuckDB, pyarrow, safetensors and the system say that there is no space.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
# What libraries write that pass the system's error on as text.
_SAID = (
    "no space left on device",
    "disk quota exceeded",
    "database or disk is full",
    "out of disk space",
)


class DiskFullError(OSError):
    """There is no space left; nothing was published. `filename` is where it was needed."""

    def __init__(self, place: Path) -> None:
        folder = next(f for f in (place, *place.parents) if f.exists())
        free = shutil.disk_usage(folder).free / 2**20
        super().__init__(
            errno.ENOSPC,
            f"the disk is full ({free:.1f} MB free): free some space and run it again; what was"
            " published before is whole",
            str(folder),
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that there is no space left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(words in str(seen).lower() for words in _SAID):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def told_when_full(place: Path) -> Iterator[None]:
    """Turn whatever a full disk under `place` raises into DiskFullError."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(place) from error
        raise
