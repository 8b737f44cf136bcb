"""Which files of a folder are a corpus's, in which order, and of which format.

Belongs here: finding and naming them. Does not belong here: what is in them (readers.py).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.files.plain_text import printable

DATASET_FILES = ("dataset_info.json", "dataset_dict.json")
_FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".txt": "text"}


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


def corpus_format(path: Path) -> str:
    """The format that a corpus file or folder has by its names. Raises CorpusError."""
    if not path.exists():
        raise CorpusError(f"corpus {path} does not exist; correct the path")
    if path.is_dir() and any((path / name).exists() for name in DATASET_FILES):
        return "huggingface"
    suffixes = {Path(file.name.lower().removesuffix(".gz")).suffix for file in files_in(path)}
    found = sorted({_FORMATS[suffix] for suffix in suffixes if suffix in _FORMATS})
    if len(found) == 1:
        return found[0]
    several = f"has files of several formats ({', '.join(found)})"
    what = several if found else "has no file of a format that is read"
    raise CorpusError(
        f"corpus {path} {what}; name a .parquet, .jsonl or .txt file, a folder with one of these, "
        "or a dataset folder of Hugging Face"
    )


def files_in(path: Path) -> list[Path]:
    """The file, or the files of a folder at any depth, but for names that begin with a dot."""
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if file.is_file()]
    return [f for f in found if not any(p.startswith(".") for p in f.relative_to(path).parts)]


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
