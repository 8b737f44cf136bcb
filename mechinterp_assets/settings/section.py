"""The form of every section of a study file, and the types that its keys have.

Belongs here: the base class, numbers and paths as a file may give them. Does not belong here: any
section (each package's settings.py), what an error says (messages.py).

A key's docstring is its description: the JSON schema and editors show it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from mechinterp_assets.settings.exact_scalars import exact_scalars

FOLDER = "folder"
"""Key of the validation context: the folder that relative paths start at."""


class Section(BaseModel):
    """A mapping that forbids unknown keys, has finite numbers alone, and does not change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    READ_ALONE: ClassVar[frozenset[str]] = frozenset()
    """Keys that change no result of those who take the section as a whole."""
    _exact = field_validator("*", mode="wrap")(exact_scalars)

    def with_changes(self, **changes: Any) -> Self:
        """These settings with some keys changed, checked as a whole. Raises ValidationError.

        Keys are named as in a file. What was not given stays not given, so it keeps following its
        default.
        """
        return self.model_validate(
            {**self.model_dump(by_alias=True, exclude_unset=True), **changes}
        )


def resolved_path(value: Any, info: ValidationInfo) -> Any:
    """A path with ~ and $VARIABLE expanded, relative ones from the folder of the file being read.

    Without such a folder, and for what is no text, the value as it is.
    """
    if not isinstance(value, str) or not info.context or FOLDER not in info.context:
        return value
    try:
        path = Path(os.path.expandvars(value)).expanduser()
    except RuntimeError:
        raise ValueError("there is no home folder of that user; correct the path") from None
    return str(path) if path.is_absolute() else os.path.realpath(info.context[FOLDER] / path)


def repeated(values: Iterable[Any]) -> int | None:
    """Number of the first value that was there before; None where all are different."""
    seen = set()
    for number, value in enumerate(values):
        key = value.model_dump_json() if isinstance(value, BaseModel) else value
        if key in seen:
            return number
        seen.add(key)
    return None


Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Index = Annotated[int, Field(ge=0)]
"""Of a layer, head or feature, from 0."""
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""Between 0 and 1, both excluded."""
Share = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1, both included."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]

LocalPath = Annotated[Path, BeforeValidator(resolved_path)]
"""A file or folder, relative to the file that names it."""


class PlaceName(str):
    """A path with a placeholder in it."""


LocalName = Annotated[str, BeforeValidator(resolved_path), AfterValidator(PlaceName)]
"""As LocalPath, for names with a placeholder in them."""
