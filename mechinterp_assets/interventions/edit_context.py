"""What kinds are given to work their edits out with.

Belongs here: a model and what belongs to one call of the runner: reference prompts, traced edges,
SAEs, named directions, and what is made of them once. Does not belong here: what a kind does with
them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import polars as pl
from torch import Tensor

from mechinterp_assets.interventions.frozen import mlp_gap, unembedding_gap
from mechinterp_assets.interventions.prompts import prompt_groups, variants_of
from mechinterp_assets.interventions.reference import ReferenceMeans
from mechinterp_assets.interventions.runs import KEPT, CleanRun, clean_run
from mechinterp_assets.interventions.terms import Weights
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

Made = TypeVar("Made")


@dataclass
class EditContext:
    """A model and what edits of it may need.

    reference_prompts: what means, and resampled activations, come from. trace_edges: frame
    trace_edges, for kind edge. saes: layer -> SAE of raw z; directions: name -> [d_model]; both
    are moved to the model's device. batch_rows: rows of a forward pass, edited or not.
    """

    model: LanguageModel
    reference_prompts: pl.DataFrame | None = None
    trace_edges: pl.DataFrame | None = None
    saes: Mapping[int, SparseAutoencoder] = field(default_factory=dict)
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    batch_rows: int = 256
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        device = self.model.device
        self.saes = {layer: sae.to(device) for layer, sae in self.saes.items()}
        self.directions = {name: vector.to(device) for name, vector in self.directions.items()}

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` returns, made when first asked for under `name` and kept."""
        if name not in self._made:
            self._made[name] = make()
        return cast("Made", self._made[name])

    def mlp_gap(self, view: Weights, prompts: pl.DataFrame) -> str | None:
        """Why MLPs cannot be recomputed with heads frozen; measured once, on one prompt."""
        return self.once(f"MLPs {view}", lambda: mlp_gap(self.model, self._one_run(view, prompts)))

    def unembedding_gap(self, view: Weights, prompts: pl.DataFrame) -> str | None:
        """Why paths to the logits cannot be patched; measured once, on one prompt."""
        return self.once(
            f"logits {view}", lambda: unembedding_gap(self.model, self._one_run(view, prompts))
        )

    def _one_run(self, view: Weights, prompts: pl.DataFrame) -> CleanRun:
        def first() -> CleanRun:
            groups = prompt_groups(prompts.head(1), max_prompts=1, device=self.model.device)
            return clean_run(self.model, next(groups), view=view, keep=KEPT)

        return self.once(f"one run {view}", first)

    @property
    def references(self) -> ReferenceMeans:
        """Means over the reference prompts, which must be there."""
        assert self.reference_prompts is not None  # checks of ablations have seen to it
        prompts = self.reference_prompts
        return self.once(
            "means of reference prompts",
            lambda: ReferenceMeans(self.model, prompts, self.batch_rows),
        )

    @property
    def reference_variant(self) -> str | None:
        """Variant of the reference prompts, variants joined by "+" where there are several."""
        if self.reference_prompts is None:
            return None
        return "+".join(sorted(variants_of(self.reference_prompts).unique()))
