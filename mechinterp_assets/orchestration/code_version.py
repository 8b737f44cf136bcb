"""Which code computes: a digest of the package's source, with the git commit where there is one.

Belongs here: that text, which every row carries as `code_version`. Whether a result is stale is not
decided by it: formula versions, settings and inputs do that.
"""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mechinterp_assets.storage.home import checkout

_PACKAGE = Path(__file__).resolve().parents[1]
_LINKED = ("resources", "sql")  # rglob does not follow links
_SOURCES = (".py", ".sql", ".cpp", ".jinja")


@cache
def code_version() -> str:
    """`0.1.0+1f0c3a9b7d42.gab12cd34ef`: release, source digest, commit (`.changed`: and edits)."""
    return f"{version('mechinterp-assets')}+{source_digest(_PACKAGE)}{_commit()}"


def source_digest(package: Path) -> str:
    """12 hex digits over the names and contents of a package's source files."""
    digest = hashlib.sha256()
    for folder in (package, *(package / name for name in _LINKED)):
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SOURCES:
                digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _commit() -> str:
    folder = checkout()
    if folder is None or not (folder / ".git").exists():
        return ""
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        edits = _git(folder, "status", "--porcelain", "--", "mechinterp_assets", *_LINKED)
    except (OSError, subprocess.SubprocessError):  # no git, or none that knows this folder
        return ""
    return f".g{commit}" + (".changed" if edits else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
