"""Files that commands write for the user: never over another one, never in a folder made up.

Belongs here: the answer before work starts.
"""

from pathlib import Path

from mechinterp_assets.app.mistakes import Mistake

FORCE_HELP = "Replace the file if it exists"


def check_free(path: Path, force: bool, remedy: str = ", or replace it with --force") -> None:
    """Raise Mistake unless `path` can be written as a new file; `force` allows an old one."""
    if path.is_dir():
        raise Mistake(f"{path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise Mistake(f"there is no folder {path.absolute().parent} to write {path.name} into")
    if path.exists() and not force:
        raise Mistake(f"{path} exists; name another file{remedy}")
