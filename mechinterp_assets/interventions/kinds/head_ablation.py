"""Ablation of attention heads.

Belongs here: kind head_ablation and the sweep over all heads. Does not belong here: running
(runner.py), references (reference.py), whole layers (layers.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mechinterp_assets.interventions.ablation_fields import Ablation, AblationEditor, AblationMode
from mechinterp_assets.interventions.prompts import Cell, cells, check_cells, check_prompts
from mechinterp_assets.interventions.reference import MeanReference, ReferenceCache
from mechinterp_assets.interventions.runner import run_interventions
from mechinterp_assets.interventions.runs import Progress
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Index,
    InterventionError,
    Site,
)
from mechinterp_assets.model.language_model import LanguageModel

__all__ = [
    "AblateHead",
    "Cell",
    "HeadAblation",
    "MeanReference",
    "ablate_heads",
    "cells",
    "check_cells",
    "head_ablations",
]


class AblateHead(Ablation):
    """z of `head` of `layer` at `position_role` ("all": every position): zero, mean or resample.

    cosine and norm ratio are those of the residual stream after the layer's attention (resid_mid).
    """

    kind: Literal["head_ablation"] = "head_ablation"
    head: Index

    @property
    def edited_site(self) -> str:
        return "z"

    @property
    def label(self) -> str:
        return f"{self.verb}:L{self.layer}H{self.head}:{self.position_role}"

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(what="z", layer=self.layer, head=self.head, role=self.position_role),)


def head_ablations(
    n_layers: int,
    n_heads: int,
    *,
    modes: Iterable[AblationMode] = ("zero", "mean"),
    position_roles: Iterable[str] = (ALL_POSITIONS,),
    seed: int = 0,
) -> list[AblateHead]:
    """Every head in every mode at every given role; `seed` is that of mode "resample"."""
    return [
        AblateHead(
            mode=mode,
            layer=layer,
            head=head,
            position_role=role,
            seed=seed if mode == "resample" else None,
        )
        for layer in range(n_layers)
        for mode in modes
        for role in position_roles
        for head in range(n_heads)
    ]


def ablate_heads(
    model: LanguageModel,
    prompts: pl.DataFrame,
    reference_prompts: pl.DataFrame | None = None,
    *,
    modes: Sequence[AblationMode] = ("zero", "mean"),
    position_roles: Sequence[str] = (ALL_POSITIONS,),
    seed: int = 0,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Sweep of all heads: frame intervention_results.

    prompts: rows of ioi_prompts, or task prompts of one task. reference_prompts: the ABC rows of
    the same study; needed for mode "mean", and where mode "resample" draws from (default: prompts).
    """
    interventions = head_ablations(
        model.config.n_layers,
        model.config.n_heads,
        modes=modes,
        position_roles=position_roles,
        seed=seed,
    )
    if "mean" in modes:
        if reference_prompts is None:
            raise InterventionError(
                "mean ablation needs reference prompts: give the ABC variant of the prompts, or "
                'leave "mean" out of the modes'
            )
        check_prompts(prompts, model.config)
        check_cells(prompts, reference_prompts)
    editor = HeadAblation(model, ReferenceCache(model, reference_prompts, batch_rows))
    return run_interventions(
        model,
        prompts,
        interventions,
        {"head_ablation": editor},
        reference_prompts=reference_prompts,
        batch_rows=batch_rows,
        progress=progress,
    )


@dataclass(frozen=True, init=False)
class HeadAblation(AblationEditor):
    """Editor of kind head_ablation; a reference is needed for mode "mean"."""

    def __init__(
        self, model: LanguageModel, reference: MeanReference | ReferenceCache | None = None
    ) -> None:
        if isinstance(reference, MeanReference):
            cache = ReferenceCache(model, None)
            cache.give("z", reference)
            reference = cache
        super().__init__(model, reference)
