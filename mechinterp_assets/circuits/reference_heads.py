"""Lists of heads that traces are compared with.

Belongs here: reading published circuits (reference_heads.yaml) and a study's own lists. Does not
belong here: the comparison (trace_summary.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.model.names import head_name
from mechinterp_assets.model.shape import ModelShape

Heads = frozenset[tuple[int, int]]
_FILE = Path(__file__).resolve().parent / "reference_heads.yaml"


def published_circuits() -> dict[str, dict[str, Any]]:
    """Name -> citation, model (the shape it is about), heads (role -> [layer, head] pairs)."""
    return dict(yaml.safe_load(_FILE.read_text()))


def reference_lists(
    shape: ModelShape, own: Mapping[str, Sequence[Sequence[int]]] | None = None
) -> dict[str, Heads]:
    """Reference lists of a model: published circuits of its shape, role by role too, and its own.

    Keys: a circuit's name, "name: role" for its parts, "name, work" for the parts that another
    published work compares with, and the names in `own`. Raises CircuitError
    for heads that the model does not have and for empty lists.
    """
    lists: dict[str, Heads] = {}
    for name, circuit in published_circuits().items():
        if all(getattr(shape, key) == value for key, value in circuit["model"].items()):
            parts = {role: _heads(heads) for role, heads in circuit["heads"].items()}
            lists[name] = frozenset().union(*parts.values())
            for other, roles in circuit.get("compared", {}).items():
                chosen = frozenset().union(*(parts[role] for role in roles))
                lists[f"{name}, {other}"] = chosen
            lists |= {f"{name}: {role}": heads for role, heads in parts.items()}
    for name, heads in (own or {}).items():
        lists[name] = _heads(heads)
        if not heads:
            raise CircuitError(f"reference list {name!r} is empty; name heads as [layer, head]")
        for layer, head in lists[name]:
            if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
                raise CircuitError(
                    f"reference list {name!r} names head {head_name(layer, head)}; the model has "
                    f"{shape.n_layers} layers of {shape.n_heads} heads"
                )
    return lists


def part_names() -> list[str]:
    """Names of the parts of all published circuits, "circuit: role"."""
    return [
        f"{name}: {role}"
        for name, circuit in published_circuits().items()
        for role in circuit["heads"]
    ]


def published_part(shape: ModelShape, name: str) -> Heads:
    """Heads of a part of a published circuit. Raises CircuitError if it is not of this model."""
    lists = reference_lists(shape)
    if name not in lists:
        known = [part for part in part_names() if part in lists]
        raise CircuitError(
            f"{name!r} is no part of a published circuit of this model; "
            + (f"one of {', '.join(known)}" if known else "none is published: name heads yourself")
        )
    return lists[name]


def _heads(pairs: Sequence[Sequence[int]]) -> Heads:
    return frozenset((int(layer), int(head)) for layer, head in pairs)
