"""Running interventions from a script or a notebook.

Belongs here: one call from model, prompts and descriptions to results. Does not belong here:
reading descriptions (descriptions.py), kinds (kinds/), stages of a study (defs/interventions).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from mechinterp_assets.interventions.descriptions import expand
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.prompts import variants_of
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.runs import Progress
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder


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
    `limit`), those of `reference_variant` are what means and resampled activations come from.
    interventions: objects, or mappings as in YAML, where keys that take one value may hold a list.
    saes: layer -> SAE; trace_edges: frame ioi_trace_edges, for kind edge; directions: name ->
    vector [d_model], for steering. Raises InterventionError before any run.
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
    context = EditContext(
        loaded,
        reference_prompts=None if reference.is_empty() else reference,
        trace_edges=trace_edges,
        saes=saes or {},
        directions=directions or {},
        batch_rows=batch_rows,
    )
    return run_interventions(context, chosen, planned, counterfactuals=prompts, progress=progress)
