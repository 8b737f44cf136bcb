"""What the lake's catalog on disk shows: a small file beside it, written after it.

Belongs here: reading and writing that file. Anything in it that is not as expected counts as no
file at all, and the catalog is built again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class CatalogState:
    """What a catalog was built from.

    Attributes:
        shown: the ledger's change that it shows.
        highest: the highest change that was ever shown. A ledger that has fewer is an older one
            that was put back.
        built_from: declarations and root.
        files: what the catalog's files look like; see `look`.
    """

    shown: int
    highest: int
    built_from: str
    files: tuple[tuple[int, int], ...]

    def save(self, path: Path) -> None:
        """Write it to `path`."""
        path.write_text(json.dumps(asdict(self)))


def load_state(path: Path) -> CatalogState | None:
    """The state in the file `path`; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
        return CatalogState(
            shown=int(content["shown"]),
            highest=int(content["highest"]),
            built_from=str(content["built_from"]),
            files=tuple((int(size), int(time)) for size, time in content["files"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def look(path: Path) -> tuple[int, int]:
    """Size and time of a file, which change when anybody writes to it; (0, 0) for none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
