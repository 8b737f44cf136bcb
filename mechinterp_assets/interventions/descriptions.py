"""Lists of interventions as they are described: swept keys, files, and what they need.

Belongs here: descriptions to interventions. Does not belong here: one description (parsing.py, and
sets.py for sets), running (api.py).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from mechinterp_assets.files.yaml_reader import YamlError, read_yaml
from mechinterp_assets.interventions.kinds import known_kinds
from mechinterp_assets.interventions.sets import Planned, members, parse_planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.shape import ModelShape

# Swept keys vary in this order, the first one slowest; others follow by name.
ORDER = ("layer", "head", "feature", "position_role", "source_variant", "mode", "site")


def expand(
    interventions: Iterable[Planned | Mapping[str, Any]], shape: ModelShape | None = None
) -> list[Planned]:
    """Interventions of descriptions, one for each combination of the values of swept keys.

    Every key of a kind that takes one value may hold a list instead. `layer: all` and `head: all`
    stand for layer and head 0 without the model's shape. Raises InterventionError for descriptions
    that cannot be read, with their number.
    """
    planned: list[Planned] = []
    for number, given in enumerate(interventions):
        if not isinstance(given, Mapping):
            planned.append(parse_planned(given))
            continue
        try:
            planned += [parse_planned(one) for one in _combinations(given, shape)]
        except InterventionError as error:
            raise InterventionError(f"interventions.{number}: {error}") from None
    return planned


def load_interventions(file: Path, shape: ModelShape | None = None) -> list[Planned]:
    """Interventions of a YAML file that is a list of them. Raises InterventionError."""
    return expand(read_descriptions(file), shape)


def read_descriptions(file: Path) -> list[dict[str, Any]]:
    """Descriptions in a YAML file, unchecked but for being a list of mappings."""
    try:
        data = read_yaml(file)
    except YamlError as error:
        raise InterventionError(str(error)) from None
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise InterventionError(f"{file}: an intervention file is a list of mappings")
    return data


def layers_with_saes(interventions: Sequence[Planned]) -> list[int]:
    """Layers whose SAEs the interventions need."""
    needed = (one.sae_layers for planned in interventions for one in members(planned))
    return sorted({layer for layers in needed for layer in layers})


def _combinations(
    given: Mapping[str, Any], shape: ModelShape | None
) -> Iterable[Mapping[str, Any]]:
    sizes = {"layer": 1, "head": 1}
    if shape is not None:
        sizes = {"layer": shape.n_layers, "head": shape.n_heads}
    swept: dict[str, Sequence[Any]] = {}
    for key in sorted(_takes_one_value(given), key=lambda key: (_rank(key), key)):
        value = given.get(key)
        if value == "all" and key in sizes:
            swept[key] = range(sizes[key])
        elif isinstance(value, list | tuple | range):
            if not value:
                raise InterventionError(f"{key} is an empty list; name at least one value")
            swept[key] = value
    for values in itertools.product(*swept.values()):
        yield {**given, **dict(zip(swept, values, strict=True))}


def _rank(key: str) -> int:
    return ORDER.index(key) if key in ORDER else len(ORDER)


def _takes_one_value(given: Mapping[str, Any]) -> list[str]:
    """Fields of the description's kind that hold no list; none for sets and unknown kinds."""
    kind = known_kinds().get(str(given.get("kind")))
    if kind is None:
        return []
    fields = kind.model_fields.items()
    return [name for name, field in fields if name != "kind" and not _holds_list(field.annotation)]


def _holds_list(annotation: Any) -> bool:
    if get_origin(annotation) in (tuple, list):
        return True
    return any(_holds_list(part) for part in get_args(annotation))
