"""What every section of a study file is: a mapping that forbids unknown keys and does not change.

Belongs here: the base class, types that several sections share, the error. Does not belong here:
any section (each package's settings.py).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mechinterp_assets.settings.exact_scalars import exact_scalars

Positive = Annotated[int, Field(gt=0)]
Index = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class StudyError(ValueError):
    """A study that cannot be used; the message names file, key, value and remedy."""


class Section(BaseModel):
    """A mapping that forbids unknown keys, has finite numbers alone, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _exact = field_validator("*", mode="wrap")(exact_scalars)
