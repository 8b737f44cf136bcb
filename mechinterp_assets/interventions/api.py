"""Running interventions from a script or a notebook.

Belongs here: one call from model, prompts and descriptions to results; reading descriptions from
YAML. Does not belong here: kinds (a file per kind), stages of a study (assets/interventions.py).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from mechinterp_assets.files.yaml_reader import YamlError, read_yaml
from mechinterp_assets.interventions.kinds import SAE_KINDS, all_editors
from mechinterp_assets.interventions.prompts import variants_of
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.runs import Progress
from mechinterp_assets.interventions.spec import (
    InterventionError,
    Planned,
    members,
    parse_planned,
)
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape
from mechinterp_assets.sae.base import SparseAutoencoder

# Keys that may hold a list, one intervention for each of its values; for layer and head also "all".
SWEPT = (
    "layer",
    "head",
    "feature",
    "position_role",
    "source_variant",
    "mode",
    "site",
    "alpha",
    "channel",
    "reference",
)


def run(
    model: LanguageModel | str | Path,
    prompts: pl.DataFrame,
    interventions: Iterable[Planned | Mapping[str, Any]],
    *,
    variant: str = "base",
    reference_variant: str = "ABC",
    limit: int | None = None,
    saes: Mapping[int, SparseAutoencoder] | None = None,
    trace_edges: pl.DataFrame | None = None,
    directions: Mapping[str, Tensor] | None = None,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Run interventions on prompts: frame intervention_results.

    model: a loaded model, or its folder or hub name. prompts: rows of ioi_prompts or of one task,
    with all variants that activations are taken from; those of `variant` are run (the first
    `limit`), those of `reference_variant` are what means and resampled activations come from
    (without any: resampling draws from the prompts that are run). interventions: objects, or
    mappings as in YAML, where keys of SWEPT may hold lists. saes: layer -> SAE; trace_edges: frame
    ioi_trace_edges, for kind edge; directions: name -> vector [d_model], for steering. Raises
    InterventionError before any run.
    """
    loaded = model if isinstance(model, LanguageModel) else LanguageModel.load(model)
    planned = expand(interventions, loaded.config)
    variants = variants_of(prompts)
    chosen = prompts.filter(variants == variant)
    if chosen.is_empty():
        known = sorted(variants.unique())
        raise InterventionError(f"there are no prompts of variant {variant!r}; given: {known}")
    chosen = chosen if limit is None else chosen.head(limit)
    reference = prompts.filter(variants == reference_variant)
    editors = all_editors(
        loaded,
        reference_prompts=None if reference.is_empty() else reference,
        trace_edges=trace_edges,
        saes=saes,
        directions=directions,
        batch_rows=batch_rows,
    )
    return run_interventions(
        loaded,
        chosen,
        planned,
        editors,
        counterfactuals=prompts,
        reference_prompts=None if reference.is_empty() else reference,
        batch_rows=batch_rows,
        progress=progress,
    )


def expand(
    interventions: Iterable[Planned | Mapping[str, Any]], shape: ModelShape | None = None
) -> list[Planned]:
    """Interventions of descriptions, one for each combination of the values of swept keys.

    `layer: all` and `head: all` stand for layer and head 0 without the model's shape. Raises
    InterventionError for descriptions that cannot be read, with their number.
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
    return sorted(
        {
            one.layer
            for planned in interventions
            for one in members(planned)
            if one.kind in SAE_KINDS
            or (one.kind == "steering" and getattr(one, "feature", None) is not None)
        }
    )


def _combinations(
    given: Mapping[str, Any], shape: ModelShape | None
) -> Iterable[Mapping[str, Any]]:
    sizes = {"layer": 1, "head": 1}
    if shape is not None:
        sizes = {"layer": shape.n_layers, "head": shape.n_heads}
    swept: dict[str, Sequence[Any]] = {}
    for key in SWEPT:
        value = given.get(key)
        if value == "all" and key in sizes:
            swept[key] = range(sizes[key])
        elif isinstance(value, list | tuple | range):
            if not value:
                raise InterventionError(f"{key} is an empty list; name at least one value")
            swept[key] = value
    for values in itertools.product(*swept.values()):
        yield {**given, **dict(zip(swept, values, strict=True))}
