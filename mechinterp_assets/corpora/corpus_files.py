"""Which files of a folder are a corpus's, and in which order.

Belongs here: finding and naming them. Does not belong here: what is in them (readers.py).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.files.plain_text import printable


def corpus_files(path: Path, endings: Sequence[str]) -> list[tuple[Path, str]]:
    """The files to read, each with its name: `path` itself, or all in it with one of the `endings`.

    Of a folder every file counts at any depth, but for names that begin with a dot, in the order of
    their paths' parts whatever the file system's. A file's name is its path within the folder.
    Raises CorpusError: nothing there, a folder that cannot be read, or one that is a link.
    """
    try:
        path.lstat()
        if not path.is_dir():
            return [(path, printable(path.name))]
    except FileNotFoundError:
        raise CorpusError(f"corpus path {path} does not exist; correct corpus.path") from None
    except OSError as error:
        _refuse(error)
    found = sorted(
        file.relative_to(path).parts
        for file in _below(path)
        if file.name.lower().endswith(tuple(endings))
    )
    if not found:
        wanted = " or ".join(f"*{ending}" for ending in endings)
        raise CorpusError(f"{path} has no file like {wanted}; correct corpus.path or format")
    return [(path.joinpath(*parts), printable("/".join(parts))) for parts in found]


# ---- private -------------------------------------------------------------------------------------


def _below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            linked = Path(parent) / name
            if linked.is_symlink():  # it may lead back to where it is, or anywhere
                raise CorpusError(
                    f"{linked} is a link to a folder, which is not followed; name "
                    "its target as corpus.path, or copy its files"
                )
        found += [Path(parent) / name for name in names if not name.startswith(".")]
    return found


def _refuse(error: OSError) -> NoReturn:
    raise CorpusError(
        f"{error.filename} is not readable ({error.strerror}); correct that"
    ) from None
