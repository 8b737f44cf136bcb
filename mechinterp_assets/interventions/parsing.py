"""Reading interventions: the kind that a description names, and errors in one line.

Belongs here: one intervention from a mapping. Does not belong here: the list of kinds (kinds/ finds
it), sets (sets.py), lists and files of descriptions (descriptions.py).
"""

from collections.abc import Mapping

from pydantic import ValidationError

from mechinterp_assets.interventions.kinds import known_kinds
from mechinterp_assets.interventions.spec import Intervention
from mechinterp_assets.interventions.terms import InterventionError


def parse_intervention(data: object) -> Intervention:
    """An intervention of the kind that `data` names; interventions are returned as they are.

    Raises InterventionError for an unknown kind and for fields that do not fit it.
    """
    if isinstance(data, Intervention):
        return data
    if not isinstance(data, Mapping):
        raise InterventionError(
            f"an intervention is a mapping of keys to values, not {type(data).__name__} {data!r}"
        )
    kind, kinds = data.get("kind"), known_kinds()
    if kind not in kinds:
        raise InterventionError(f"unknown kind {kind!r}; one of {', '.join(sorted(kinds))}")
    try:
        return kinds[str(kind)].model_validate(dict(data))
    except ValidationError as error:
        raise InterventionError(f"{kind}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: every key with what is wrong."""
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(problem["input"], Mapping) else f" (value {problem['input']!r})"
        problems.append(f"{key}: {message}{shown}" if key else message)
    return "; ".join(problems)
