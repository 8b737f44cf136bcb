"""Mean activations of reference prompts, for mean ablation.

Belongs here: averaging activations within cells. Does not belong here: ablation
(ablation_fields.py) and cells (prompts.py).

Mean ablation (METHODS section 7; Wang et al. 2022 section 3): an activation is replaced by its mean
over reference prompts of the same cell, position by position. A cell is a template, a name order
and the positions of all roles; within a cell all prompts have the same length and the same role at
the same position, so the mean is per template and position role. The reference of IOI is the ABC
variant, three different names, which keeps everything but the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.prompts import (
    Cell,
    cells,
    check_prompts,
    common_form,
    prompt_groups,
)
from mechinterp_assets.interventions.runs import clean_run
from mechinterp_assets.interventions.terms import Weights
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64


@dataclass(frozen=True)
class MeanReference:
    """Mean activations of reference prompts, of one view of the weights.

    row: cell -> index; means: site -> [layer][cell, position, ...], zero beyond a cell's length;
    n [cell]: prompts behind each mean.
    """

    row: dict[Cell, int]
    means: dict[str, list[Tensor]]
    n: Tensor
    view: Weights = "processed"

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: LanguageModel,
        prompts: pl.DataFrame,
        *,
        sites: Sequence[str] = ("z",),
        view: Weights = "processed",
        batch_rows: int = 256,
    ) -> "MeanReference":
        """Run the reference prompts and average the activations `sites` within cells."""
        check_prompts(prompts, model.config)
        names = cells(prompts)
        row = {cell: place for place, cell in enumerate(dict.fromkeys(names))}
        longest = int(common_form(prompts)["n_tokens"].to_numpy().max())
        n = float64(torch.zeros(len(row), device=model.device))
        sums: dict[str, list[Tensor]] = {}
        for group in prompt_groups(prompts, max_prompts=batch_rows, device=model.device):
            run = clean_run(model, group, view=view, keep=sites)
            place = torch.tensor([row[cell] for cell in cells(group.frame)], device=n.device)
            n.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
            for site in sites:
                for layer, value in enumerate(run.kept[site]):
                    total = sums.setdefault(site, [])
                    if len(total) == layer:
                        total.append(n.new_zeros(len(row), longest, *value.shape[2:]))
                    total[layer][:, : value.shape[1]].index_add_(0, place, float64(value))
        means = {
            site: [
                (own / n.reshape(-1, *([1] * (own.ndim - 1)))).to(model.device, model.dtype)
                for own in total
            ]
            for site, total in sums.items()
        }
        return cls(row, means, n, view)

    def at(self, frame: pl.DataFrame, site: str, layer: int) -> Tensor:
        """Mean of a site for prompts of one length [row, position, ...]."""
        mean = self.means[site][layer]
        place = torch.tensor([self.row[cell] for cell in cells(frame)], device=mean.device)
        return mean[place, : int(frame["n_tokens"][0])]

    def targets(self, frame: pl.DataFrame, layer: int, head: int) -> Tensor:
        """Mean z of one head for prompts of one length [row, position, d_head]."""
        return self.at(frame, "z", layer)[:, :, head]


class ReferenceCache:
    """Mean references of one set of reference prompts, made when first asked for."""

    def __init__(
        self, model: LanguageModel, prompts: pl.DataFrame | None, batch_rows: int = 256
    ) -> None:
        self.model = model
        self.prompts = prompts
        self._batch_rows = batch_rows
        self._known: dict[tuple[str, Weights], MeanReference] = {}

    def give(self, site: str, reference: MeanReference) -> None:
        """Use a reference that is there already."""
        self._known[site, reference.view] = reference

    @property
    def cells(self) -> set[Cell] | None:
        """Cells that have a mean; None without reference prompts."""
        if self.prompts is not None:
            return set(cells(self.prompts))
        known = [set(reference.row) for reference in self._known.values()]
        return set.intersection(*known) if known else None

    def at(self, frame: pl.DataFrame, site: str, layer: int, view: Weights) -> Tensor:
        """Mean of a site for prompts of one length [row, position, ...]."""
        if (site, view) not in self._known:
            assert self.prompts is not None
            self._known[site, view] = MeanReference.of(
                self.model, self.prompts, sites=[site], view=view, batch_rows=self._batch_rows
            )
        return self._known[site, view].at(frame, site, layer)
