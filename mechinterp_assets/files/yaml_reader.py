"""Reading YAML that users write: strict, bounded, one error.

Belongs here: from a file to plain values, under the rules and limits below. Does not belong here:
what the values mean (each caller has its own error and adds its own checks).

Scalars are those of YAML 1.2's core schema: `02000` is 2000, `1e-3` is a number, `on`, `yes` and
`2020-01-01` are texts. Keys are scalars, each there once. Infinity and NaN are refused, as are tags
and merge keys. Aliases are copies of what they stand for, and count as such.
"""

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mechinterp_assets.files.plain_text import printable, shortened
from mechinterp_assets.files.regular_file import FileError, file_error, read_text

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_ALIASES = 50

_PREFIX = "tag:yaml.org,2002:"
_STRING, _SEQUENCE, _MAPPING = f"{_PREFIX}str", f"{_PREFIX}seq", f"{_PREFIX}map"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class YamlError(FileError):
    """A YAML file that cannot be read."""


def read_yaml(file: Path) -> Any:
    """The value of a YAML file: None, bool, int, float, str, lists and dicts. Raises YamlError."""
    loader = None
    try:
        text = read_text(file, "a YAML file", MAX_BYTES)
    except FileError as error:
        raise YamlError(str(error)) from None
    try:
        loader = _Loader(text, file)
        node = loader.get_single_node()
        return None if node is None else _Values(file).of(node)
    except yaml.YAMLError as error:
        raise _error(file, *_described(error, text)) from None
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML lets those of an escape such as \UFFFFFFFF
        if isinstance(error, YamlError):
            raise
        line = 0 if loader is None else loader.line + 1
        raise _error(file, line, f"not YAML ({_shown(str(error))}); correct it") from None
    finally:
        if loader is not None:
            loader.dispose()


# ---- private -------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer, held to the limits while nodes are made."""

    # Plain scalars stay texts here: _Values reads them.
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012, the name is PyYAML's

    def __init__(self, text: str, file: Path) -> None:
        super().__init__(text)
        self.file = file
        self.depth = self.nodes = self.aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # its stub has no types
        line = event.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            _refuse(self.file, line, f"more than {MAX_NODES:,} values; split the file")
        if isinstance(event, yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                _refuse(
                    self.file,
                    line,
                    f"more than {MAX_ALIASES} aliases (*{event.anchor}); write the values out",
                )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _refuse(self.file, line, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Values:
    """Values of nodes; what aliases stand for is copied, and counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._nodes = 0
        self._open: list[yaml.Node] = []

    def of(self, node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _refuse(
                self._file, line, f"more than {MAX_NODES:,} values with aliases written out; use "
                "fewer aliases"
            )  # fmt: skip
        if any(node is outer for outer in self._open):
            _refuse(self._file, line, "an alias stands for what it is part of; remove it")
        if len(self._open) > MAX_DEPTH:
            _refuse(self._file, line, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        self._open.append(node)
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = self._scalar(node, line)
        elif isinstance(node, yaml.SequenceNode):
            self._check_tag(node, _SEQUENCE, line)
            value = [self.of(item) for item in node.value]
        else:
            self._check_tag(node, _MAPPING, line)
            value = self._mapping(node)
        self._open.pop()
        return value

    def _mapping(self, node: yaml.Node) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        first: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse(self._file, line, "a key is a list or a mapping; keys are single words")
            key = self.of(key_node)
            if key == "<<" and key_node.style is None:
                _refuse(
                    self._file, line, "merge keys (<<) are not part of YAML 1.2; write them out"
                )
            if key in found:
                _refuse(
                    self._file,
                    line,
                    f"key {_shown(key)} is there twice (first in line {first[key]}); remove one",
                )
            found[key], first[key] = self.of(value_node), line
        return found

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            _refuse(self._file, line, f"half a character ({text!r:.80}); write it whole")
        self._check_tag(node, _STRING, line)
        if node.style is not None:  # quoted, or a block
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            # Longer ones than 64 bits need are not even converted: that takes quadratic time.
            number = int(text, 0 if text[1:2] in ("o", "x") else 10) if len(text) < 80 else 1 << 64
            if not -(1 << 63) <= number < 1 << 64:
                _refuse(
                    self._file, line, f"a whole number of more than 64 bits ({_shown(text)}); "
                    "correct it"
                )  # fmt: skip
            return number
        finite = _FLOAT.fullmatch(text) and math.isfinite(float(text))
        if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not finite):
            _refuse(self._file, line, f"not a finite number ({_shown(text)}); correct it")
        return float(text) if finite else text

    def _check_tag(self, node: yaml.Node, own: str, line: int) -> None:
        # "!" asks for a text; without resolvers every untagged scalar has the tag of a text.
        if node.tag not in (own, "!"):
            tag = node.tag.replace(_PREFIX, "!!")
            _refuse(self._file, line, f"tags are not read ({_shown(tag)}); remove it")


def _described(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Line, and what is wrong, of an error of PyYAML's."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        return (mark.line + 1 if mark else 0), f"not YAML ({_shown(what)}); correct it"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(text[error.position]):04X}"
        return line, f"a character that YAML does not allow ({character}); remove it"
    return 0, f"not YAML ({_shown(str(error))}); correct it"


def _shown(value: object) -> str:
    """A value in one short line."""
    text = value if isinstance(value, str) else repr(value)
    return shortened(printable(text[:120]), 100)


def _refuse(file: Path, line: int, what: str) -> NoReturn:
    raise _error(file, line, what)


def _error(file: Path, line: int, what: str) -> YamlError:
    return YamlError(str(file_error(file, what, line)))
