"""Running interventions from a script or a notebook.

Belongs here: one call from model, prompts and descriptions to results, or to what of them can be
run. Does not belong here: reading descriptions (descriptions.py), kinds (kinds/), stages of a study
(defs/interventions).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from mechinterp_assets.interventions.descriptions import expand
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.plan import Plan, fitting
from mechinterp_assets.interventions.prompts import variants_of
from mechinterp_assets.interventions.runner import check_interventions, run_interventions
from mechinterp_assets.interventions.runs import Progress
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class Request:
    """Interventions on prompts of one model, not run yet.

    prompts: those that are run; every: those that activations may be taken from too.
    """

    context: EditContext
    prompts: pl.DataFrame
    every: pl.DataFrame
    interventions: tuple[Planned, ...]

    def plan(self) -> Plan:
        """What of the interventions can be run, and why not the rest. Nothing runs."""
        return fitting(self.interventions, self.check)

    def check(self, interventions: Sequence[Planned]) -> None:
        """Raise InterventionError unless these can be run as the request's own are."""
        check_interventions(self.context, self.prompts, interventions, counterfactuals=self.every)

    def with_only(self, interventions: Sequence[Planned]) -> "Request":
        """The same for other interventions."""
        return replace(self, interventions=tuple(interventions))

    def run(self, progress: Progress | None = None) -> pl.DataFrame:
        """Frame intervention_results. Raises InterventionError before any run."""
        return run_interventions(
            self.context,
            self.prompts,
            self.interventions,
            counterfactuals=self.every,
            progress=progress,
        )


def request(
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
) -> Request:
    """Interventions on prompts, to be planned or run; arguments as for `run`.

    Raises InterventionError for descriptions that cannot be read and a variant without prompts.
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
    return Request(context, chosen, prompts, tuple(planned))


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
    saes: layer -> SAE; trace_edges: frame trace_edges, for kind edge; directions: name ->
    vector [d_model], for steering. Raises InterventionError before any run.
    """
    asked = request(
        model,
        prompts,
        interventions,
        variant=variant,
        reference_variant=reference_variant,
        limit=limit,
        saes=saes,
        trace_edges=trace_edges,
        directions=directions,
        batch_rows=batch_rows,
    )
    return asked.run(progress)
