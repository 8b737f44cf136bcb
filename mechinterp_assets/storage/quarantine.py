"""Files that nobody knows: set aside, never removed.

Belongs here: where a store puts files that it finds among its own and did not publish. A person
looks at them (`mechinterp verify` lists them) and removes the folder.
"""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

QUARANTINE = ".quarantine"


def set_aside(root: Path, path: Path) -> Path:
    """Move a file under `root` to the same place under its quarantine; returns where it is now."""
    wanted = root / QUARANTINE / path.relative_to(root)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    names = (wanted if n == 0 else wanted.with_name(f"{wanted.name}.{n}") for n in count())
    target = next(name for name in names if not name.exists())
    os.rename(path, target)
    return target


def quarantined(root: Path) -> Iterator[Path]:
    """Files in the quarantine of `root`, by name."""
    yield from sorted(path for path in (root / QUARANTINE).rglob("*") if path.is_file())
