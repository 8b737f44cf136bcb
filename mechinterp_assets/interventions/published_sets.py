"""Layers, heads and edges that published experiments name, for models of the published shape.

Belongs here: reading published_sets.yaml. Does not belong here: published circuits, which are lists
of heads (circuits/reference_heads.py), and choosing layers from a model's own measurements.
"""

from pathlib import Path
from typing import Any

import yaml

from mechinterp_assets.model.shape import ModelShape

_FILE = Path(__file__).resolve().parent / "published_sets.yaml"


def published_sets() -> dict[str, dict[str, Any]]:
    """Name -> citation, model (the shape it is about) and what is named: layers, heads, edges."""
    return dict(yaml.safe_load(_FILE.read_text()))


def published_layers(name: str, shape: ModelShape) -> tuple[tuple[int, ...], ...]:
    """Groups of layers of a set; empty for a model of another shape."""
    groups = published_entries(name, "layers", shape)
    return tuple(tuple(int(layer) for layer in group) for group in groups)


def published_entries(name: str, key: str, shape: ModelShape) -> list[Any]:
    """What a set lists under `key`; empty for a model of another shape."""
    given = published_sets()[name]
    if any(getattr(shape, dimension) != value for dimension, value in given["model"].items()):
        return []
    return list(given[key])
