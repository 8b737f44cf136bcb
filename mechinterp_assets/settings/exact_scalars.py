"""Numbers and flags of a section are what the file says, not what could be made of it.

Belongs here: the one check that the base class of all sections makes after pydantic's own. Does not
belong here: bounds of values (the sections).
"""

from collections.abc import Callable, Mapping
from typing import Any


def exact_scalars(given: Any, validate: Callable[[Any], Any]) -> Any:
    """The validated value, where no number came from a flag or a text, and no flag from either.

    Raises ValueError. A number without a fraction may still be written as one: `1e6`, `3.0`.
    """
    value = validate(given)
    _compare(given, value)
    return value


# ---- private -------------------------------------------------------------------------------------


def _compare(given: Any, value: Any) -> None:
    if isinstance(value, bool | int | float):
        wanted: type | tuple[type, ...] = bool if isinstance(value, bool) else (int, float)
        if not isinstance(given, wanted) or (isinstance(given, bool) and wanted is not bool):
            what = "true or false" if wanted is bool else "a number"
            quotes = ", without quotes" if isinstance(given, str) else ""
            raise ValueError(f"{given!r} is not {what}; write {what}{quotes}")
    elif isinstance(value, Mapping) and isinstance(given, Mapping):
        for (key, item), (new_key, new_item) in zip(given.items(), value.items(), strict=True):
            _compare(key, new_key)
            _compare(item, new_item)
    elif isinstance(value, list | tuple) and isinstance(given, list | tuple):
        for item, new_item in zip(given, value, strict=True):
            _compare(item, new_item)
