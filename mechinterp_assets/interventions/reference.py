"""Mean activations of reference prompts at any site, made when first asked for.

Belongs here: running reference prompts for the means of ablation/references.py. Does not belong
here: ablation (ablation_fields.py), which prompts are averaged (ablation/).
"""

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import prompt_cells
from mechinterp_assets.ablation.references import CellMeans
from mechinterp_assets.interventions.prompts import check_prompts, prompt_groups
from mechinterp_assets.interventions.runs import clean_run
from mechinterp_assets.interventions.terms import Weights
from mechinterp_assets.model.language_model import LanguageModel


class ReferenceMeans:
    """Means over the cells of one set of reference prompts, by site and view of the weights."""

    def __init__(self, model: LanguageModel, prompts: pl.DataFrame, batch_rows: int = 256) -> None:
        check_prompts(prompts, model.config)
        self._model, self._prompts, self._batch_rows = model, prompts, batch_rows
        self._known: dict[tuple[str, Weights], CellMeans] = {}

    def at(self, prompts: pl.DataFrame, site: str, layer: int, view: Weights) -> Tensor:
        """Mean of a site for prompts of one length in the common form [row, position, ...]."""
        if (site, view) not in self._known:
            self._known[site, view] = self._means(site, view)
        return self._known[site, view].of(prompt_cells(prompts), layer)

    @torch.no_grad()
    def _means(self, site: str, view: Weights) -> CellMeans:
        means = CellMeans()
        for group in prompt_groups(
            self._prompts, max_prompts=self._batch_rows, device=self._model.device
        ):
            run = clean_run(self._model, group, view=view, keep=[site])
            means.add(prompt_cells(group.frame), run.kept[site])
        return means
