"""Kinds of interventions: one file each, found by listing this folder.

A kind is a file named as the kind, with one class derived from Intervention whose field `kind` has
that name: its fields, what it says about itself (spec.py) and `plan`, which works the edit out for
a group of prompts. Nothing else has to know of it: parsing, sweeps, running and tables go by the
class. Torch is imported inside `plan` and `check` alone.
"""

import pkgutil
from functools import lru_cache
from importlib import import_module

from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import InterventionError


def known_kinds() -> dict[str, type[Intervention]]:
    """Kind -> its class, by name. Raises InterventionError for a file without its kind."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: _class_of(name) for name in names}


@lru_cache
def _class_of(name: str) -> type[Intervention]:
    module = import_module(f"{__name__}.{name}")
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, Intervention)
        and one.__module__ == module.__name__
        and one.model_fields["kind"].default == name
    ]
    if len(found) != 1:
        raise InterventionError(
            f"{module.__file__}: {len(found)} classes derived from Intervention have "
            f"kind {name!r}; a file of interventions/kinds defines one, named as the file"
        )
    return found[0]
