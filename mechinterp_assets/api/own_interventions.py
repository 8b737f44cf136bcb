"""Interventions of one's own on a study's model, with its prompts, SAEs and traced edges.

Belongs here: which prompts, SAEs and edges a call gets. Does not belong here: kinds, checks and
runs (interventions/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.api.not_there import NotThereError, perhaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from mechinterp_assets.api.tables import Tables
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.prompts.user import Example as PromptExample
    from mechinterp_assets.sae.base import SparseAutoencoder

    Prompt = str | Sequence[str] | PromptExample

IOI = "ioi"


def prompts_of(tables: Tables, task: str) -> pl.DataFrame:
    """Prompts of a task, all variants: rows of ioi_prompts, or of task_prompts.

    Raises NotThereError where the study has none.
    """
    if task == IOI:
        return tables["ioi_prompts"].frame()
    every = tables["task_prompts"].frame()
    found = every.filter(task=task)
    if found.is_empty():
        known = [IOI, *every["task"].unique(maintain_order=True).to_list()]
        raise NotThereError(f"no prompts of task {task!r}; {perhaps(task, known)}")
    return found


def own_prompts(model: LanguageModel, prompts: Iterable[Prompt], task: str) -> pl.DataFrame:
    """Texts as a frame of prompts: each a text, or (text, answer), or (text, answer, wrong ...).

    Raises PromptError, one line for each prompt that cannot be used.
    """
    from mechinterp_assets.prompts.user import Example, own_task

    examples = []
    for prompt in prompts:
        if isinstance(prompt, Example):
            examples.append(prompt)
        elif isinstance(prompt, str):
            examples.append(Example(prompt))
        else:
            text, answer, *wrong = prompt
            examples.append(Example(text, answer, tuple(wrong)))
    return own_task(task, examples, model.encode, model.first_token_id, model.config.n_ctx)


def run_own(
    model: LanguageModel,
    interventions: Iterable[Any],
    prompts: pl.DataFrame,
    *,
    sae_of: Callable[[int], SparseAutoencoder],
    trace_edges: pl.DataFrame | None,
    variant: str,
    reference_variant: str,
    limit: int | None,
    directions: Mapping[str, Tensor] | None,
) -> pl.DataFrame:
    """Frame intervention_results; see `interventions.api.run`. SAEs are opened where needed."""
    from mechinterp_assets.interventions.api import run
    from mechinterp_assets.interventions.descriptions import expand, layers_with_saes

    planned = list(expand(interventions, model.config))
    return run(
        model,
        prompts,
        planned,
        variant=variant,
        reference_variant=reference_variant,
        limit=limit,
        saes={layer: sae_of(layer) for layer in layers_with_saes(planned)},
        trace_edges=trace_edges,
        directions=directions,
    )
