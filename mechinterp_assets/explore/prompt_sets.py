"""Named sets of prompts in files.

Belongs here: reading and writing them. Does not belong here: where files lie, tokens.

A `.yaml` file holds sets by name, each a list of texts; a `.txt` file one prompt a line, of the set
that is called as the file is.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.files.regular_file import FileError, read_text
from mechinterp_assets.files.yaml_reader import read_yaml

SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
SUFFIXES = (".yaml", ".yml", ".txt")
_MAX_BYTES = 1 << 20


def read_prompt_sets(path: Path) -> dict[str, list[str]]:
    """Texts by set, in the order of the file. Raises ExploreError, which names file and set."""
    if path.suffix not in SUFFIXES:
        raise ExploreError(f"{path}: not a file of prompts; name one ending in {SUFFIXES}")
    try:
        if path.suffix == ".txt":
            lines = read_text(path, "a file of prompts", _MAX_BYTES).splitlines()
            content: object = {path.stem: [line for line in lines if line.strip()]}
        else:
            content = read_yaml(path)
    except FileError as error:
        raise ExploreError(str(error)) from None
    if not isinstance(content, Mapping):
        raise ExploreError(f"{path}: write sets by name, each a list of texts")
    return {str(name): checked_texts(str(path), name, texts) for name, texts in content.items()}


def checked_texts(where: str, name: object, texts: object) -> list[str]:
    """The texts of a set. Raises ExploreError for what is none."""
    if not isinstance(name, str) or not SET_NAME.fullmatch(name):
        raise ExploreError(
            f"{where}: {name!r} is no name of a set; use letters, digits, spaces, '.', '_' and '-'"
        )
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not texts:
        raise ExploreError(f"{where}: {name} is {texts!r}; write a list of at least one text")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ExploreError(f"{where}: {name} has {text!r}, which is no text; put it in quotes")
    if (again := next((t for i, t in enumerate(texts) if t in texts[:i]), None)) is not None:
        raise ExploreError(f"{where}: {name} has {again!r} twice; remove it")
    return list(texts)


def sets_as_yaml(sets: Mapping[str, Sequence[str]]) -> str:
    """Content of a `.yaml` file of these sets."""
    plain = {name: list(texts) for name, texts in sets.items()}
    return yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=100)


def joined_sets(sets: Mapping[str, Sequence[str]], files: Sequence[Path]) -> dict[str, list[str]]:
    """Texts by set, those of files behind those given; a text is in a set once.

    Raises ExploreError (see read_prompt_sets).
    """
    joined = {name: list(texts) for name, texts in sets.items()}
    for file in files:
        for name, texts in read_prompt_sets(file).items():
            own = joined.setdefault(name, [])
            own += [text for text in texts if text not in own]
    return joined
