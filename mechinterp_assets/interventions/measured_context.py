"""What published experiments choose from, measured on a model.

Belongs here: an ExperimentContext of a model, its prompts and tables. Does not belong here: what
experiments make of it (experiment_context.py and the experiments).
"""

from collections.abc import Mapping, Sequence

import polars as pl

from mechinterp_assets.interventions.api import Request
from mechinterp_assets.interventions.experiment_context import ExperimentContext
from mechinterp_assets.interventions.feature_attribution import feature_attribution
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.settings import InterventionSettings
from mechinterp_assets.interventions.terms import Head
from mechinterp_assets.prompts.roles import role_names, role_positions


def experiment_context(
    asked: Request,
    *,
    with_role: Mapping[str, Sequence[Head]],
    scores: pl.DataFrame,
    trace_edges: pl.DataFrame,
    trace_graph: pl.DataFrame,
    settings: InterventionSettings | None = None,
) -> ExperimentContext:
    """The context of a request for IOI prompts; what is measured is so on its prompts.

    asked: with the model and its SAEs; trace_edges: all of the task, as in the request.
    """
    model, saes = asked.context.model, asked.context.saes
    known: dict[str, pl.DataFrame] = {}

    def attribution(role: str) -> pl.DataFrame:
        if role not in known:
            known[role] = feature_attribution(model, asked.prompts, saes, position_role=role)
        return known[role]

    def mean_effects(planned: Sequence[Planned]) -> dict[str, float]:
        results = asked.with_only(asked.with_only(planned).plan().runs).run()
        means = (
            results.filter(pl.col("metric") == "logit_diff")
            .group_by("intervention")
            .agg((pl.col("patched") - pl.col("clean")).mean())
        )
        return {str(name): float(value) for name, value in means.rows()}

    return ExperimentContext(
        shape=model.config,
        variants=tuple(asked.every["variant"].unique(maintain_order=True)),
        prompt_roles=_roles_of_all(asked.every.filter(pl.col("variant") == "base")),
        with_role=with_role,
        scores=scores.select("layer", "head", "score", "value"),
        trace_edges=trace_edges.filter(pl.col("prompt").is_in(asked.prompts["prompt"].implode())),
        trace_graph=trace_graph,
        sae_layers=tuple(sorted(saes)),
        attribution=attribution,
        mean_effects=mean_effects,
        settings=settings or InterventionSettings(),
        check=asked.check,
    )


def _roles_of_all(prompts: pl.DataFrame) -> frozenset[str]:
    """Roles that every prompt has."""
    known = role_names(prompts)
    return frozenset(role for role in known if min(role_positions(prompts, role)) >= 0)
