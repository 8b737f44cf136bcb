"""What was wrong with settings, in words.

Belongs here: the text of pydantic's errors as this project writes them: key, what is wrong, value,
remedy. Does not belong here: which file it was in.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LONGEST_VALUE = 200
MOST_MISTAKES = 200
EXPECTED = "Input should be "
# Parts of pydantic's locations that name a type tried, and no key.
_TYPE = re.compile(
    r"(function-\w+|constrained-\w+|literal|list|dict|tuple|nullable|str|int|float|bool|\w+Settings)"
    r"(\[.*\])?|\[key\]"
)


def messages_of(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """All messages of an error in one line; see message_lines."""
    return "; ".join(message_lines(error, model))


def message_lines(error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[str]:
    """One line for each key that is wrong: `key: message (value ...)`.

    model: what was validated, for the names of keys that may have been meant. Where a key takes one
    of several forms, its line says all of them; or what is wrong within one, if that is deeper.
    """
    problems = error.errors(include_url=False, include_context=False)
    found = [_Wrong.of(problem, model) for problem in problems[:MOST_MISTAKES]]
    deeper = [wrong for wrong in found if not any(_within(other, wrong) for other in found)]
    for key in dict.fromkeys(wrong.key for wrong in deeper):
        wrongs = [wrong for wrong in deeper if wrong.key == key]
        texts = dict.fromkeys(wrong.text for wrong in wrongs)
        said = " or ".join(
            text.removeprefix(EXPECTED) if number else text for number, text in enumerate(texts)
        )
        yield one_line(f"{'.'.join(key)}: {said}{wrongs[0].value}" if key else said)
    if len(problems) > MOST_MISTAKES:
        yield f"and {len(problems) - MOST_MISTAKES} more mistakes; correct these first"


def one_line(text: str) -> str:
    """Text without line breaks and other control characters."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in joined)


def shown(value: Any) -> str:
    """A value as a message shows it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrong:
    """A mistake: its key, what is wrong, the value as it is shown, whether forms were tried."""

    key: tuple[str, ...]
    text: str
    value: str
    one_of_several: bool

    @classmethod
    def of(cls, problem: ErrorDetails, model: type[BaseModel] | None) -> "_Wrong":
        location, value = problem["loc"], problem["input"]
        key = tuple(str(part) for part in location if not _is_type(part))
        given = f" (value {shown(value)})"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(location[:-1], model)
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            return cls(key, f"unknown key{given}; {hint}", "", False)
        if problem["type"] == "missing":
            return cls(key, "required key is missing; add it", "", False)
        text = problem["msg"].removeprefix("Value error, ")
        shows = "" if isinstance(value, dict | BaseModel) else given
        return cls(key, text, shows, len(key) < len(location))


def _is_type(part: int | str) -> bool:
    return isinstance(part, str) and _TYPE.fullmatch(part) is not None


def _within(other: _Wrong, wrong: _Wrong) -> bool:
    """Whether `other` lies deeper in a form of what `wrong` says has none."""
    size = len(wrong.key)
    return wrong.one_of_several and len(other.key) > size and other.key[:size] == wrong.key


def _known_keys(location: tuple[int | str, ...], model: Any) -> list[str]:
    """Keys of the section at a place of a model; none where there is no such section."""
    for part in location:
        if not isinstance(part, str):
            continue
        fields = getattr(model, "model_fields", {})
        names = {field.alias or name: field for name, field in fields.items()}
        if part not in names:
            return []
        model = next(_sections_in(names[part].annotation), None)
    fields = getattr(model, "model_fields", {})
    return sorted(field.alias or name for name, field in fields.items())


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
