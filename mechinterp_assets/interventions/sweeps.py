"""Sweeps that a study runs by default: every head ablated, the heaviest traced edges edited.

Belongs here: a sweep in one call, from model and prompts to intervention_results. Does not belong
here: which interventions a sweep consists of (their kinds, edge_choice.py) and any list of them
(api.py).
"""

from collections.abc import Sequence

import polars as pl

from mechinterp_assets.interventions.ablation_fields import AblationMode
from mechinterp_assets.interventions.edge_choice import edge_interventions, heaviest_edges
from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.kinds.edge import EdgeMode
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.runs import Progress
from mechinterp_assets.interventions.terms import ALL_POSITIONS, Scope
from mechinterp_assets.model.language_model import LanguageModel


def ablate_heads(
    model: LanguageModel,
    prompts: pl.DataFrame,
    reference_prompts: pl.DataFrame | None = None,
    *,
    modes: Sequence[AblationMode] = ("zero", "mean_counterfactual"),
    position_roles: Sequence[str] = (ALL_POSITIONS,),
    seed: int = 0,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Sweep of all heads: frame intervention_results.

    prompts: rows of ioi_prompts, or task prompts of one task. reference_prompts: the ABC rows of
    the same study, for the modes that take from counterfactual prompts.
    """
    interventions = head_ablations(
        model.config.n_layers,
        model.config.n_heads,
        modes=modes,
        position_roles=position_roles,
        seed=seed,
    )
    context = EditContext(model, reference_prompts=reference_prompts, batch_rows=batch_rows)
    return run_interventions(context, prompts, interventions, progress=progress)


def intervene_on_edges(
    model: LanguageModel,
    prompts: pl.DataFrame,
    trace_edges: pl.DataFrame,
    *,
    n_edges: int = 10,
    modes: Sequence[EdgeMode] = ("ablate", "boost"),
    scopes: Sequence[Scope] = ("local", "global"),
    n_controls: int = 1,
    seed: int = 0,
    authors_receiver: bool = False,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Ablate and boost the heaviest edges, each in the prompts it occurs in, with controls.

    prompts: rows of ioi_prompts; trace_edges: frame trace_edges, of which the rows of these
    prompts are used. Returns frame intervention_results.
    """
    trace_edges = trace_edges.filter(pl.col("prompt").is_in(prompts["prompt"].implode()))
    interventions = edge_interventions(
        heaviest_edges(trace_edges, n_edges),
        modes=modes,
        scopes=scopes,
        n_controls=n_controls,
        seed=seed,
        authors_receiver=authors_receiver,
    )
    context = EditContext(model, trace_edges=trace_edges, batch_rows=batch_rows)
    return run_interventions(context, prompts, interventions, progress=progress)
