"""The fields of every kind of intervention, as a table, read off the kinds themselves.

Belongs here: what the classes in kinds/ say of their fields. Does not belong here: what the kinds
do. `python -m mechinterp_assets.interventions.kind_fields` prints it.
"""

import inspect
from typing import Annotated, Any, Literal, get_args, get_origin

import polars as pl

from mechinterp_assets.interventions.kinds import known_kinds
from mechinterp_assets.interventions.terms import Watched

TYPES: dict[Any, str] = {int: "whole number", float: "number", str: "name", bool: "true or false"}
TYPES[Watched] = "mapping of layer, head, destination_role and source_role"
SCHEMA = dict.fromkeys(("kind", "field", "values", "default", "edit"), pl.String)


def kind_fields() -> pl.DataFrame:
    """One row per kind and field: kind, field, values, default, edit (the kind's own words).

    default is NULL for a field that must be given.
    """
    rows = [
        {
            "kind": name,
            "field": field,
            "values": values_text(info.annotation),
            "default": None if info.is_required() else str(info.default),
            "edit": inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
        }
        for name, kind in known_kinds().items()
        for field, info in kind.model_fields.items()
        if field != "kind"
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def values_text(annotation: Any) -> str:
    """A field's type in a few words: its values where they are listed, else the type's name."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_text(parts[0])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin is tuple:
        return "list of [layer, head]"
    if parts:
        return " or ".join(values_text(part) for part in parts if part is not type(None))
    return TYPES.get(annotation) or str(annotation.__name__)


def main() -> None:
    """Print the fields of every kind."""
    for (kind, edit), own in kind_fields().group_by(["kind", "edit"], maintain_order=True):
        print(f"{kind}: {edit}")
        for row in own.iter_rows(named=True):
            given = "required" if row["default"] is None else f"default {row['default']}"
            print(f"    {row['field']}: {row['values']}; {given}")


if __name__ == "__main__":
    main()
