"""Zero and mean ablation of attention heads.

Belongs here: kind head_ablation, the mean reference and the sweep over all heads. Does not belong
here: running (runner.py).

Mean ablation (METHODS section 7; Wang et al. 2022 section 3): z of the head is replaced by its mean
over reference prompts of the same cell, position by position. A cell is a template, a name order
and the positions of all roles; within a cell all prompts have the same length and the same role at
the same position, so the mean is per template and position role. The reference is the ABC variant,
three different names, which keeps everything but the answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.prompts import check_prompts, prompt_groups, role_columns
from mechinterp_assets.interventions.residual import cosine_and_norm_ratio
from mechinterp_assets.interventions.runner import (
    CleanRun,
    Edit,
    LiveRun,
    NamedHook,
    Progress,
    clean_run,
    run_interventions,
)
from mechinterp_assets.interventions.spec import (
    ALL_POSITIONS,
    Intervention,
    InterventionError,
    Mode,
)
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.precision import float64

Cell = tuple[Any, ...]


def head_ablations(
    n_layers: int,
    n_heads: int,
    *,
    modes: Iterable[Mode] = ("zero", "mean"),
    position_roles: Iterable[str] = (ALL_POSITIONS,),
) -> list[Intervention]:
    """Every head in every mode at every given role."""
    return [
        Intervention(kind="head_ablation", mode=mode, layer=layer, head=head, position_role=role)
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
    modes: Sequence[Mode] = ("zero", "mean"),
    position_roles: Sequence[str] = (ALL_POSITIONS,),
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Sweep of all heads: frame intervention_results.

    reference_prompts: the ABC rows of the same study; needed for mode "mean".
    """
    interventions = head_ablations(
        model.config.n_layers, model.config.n_heads, modes=modes, position_roles=position_roles
    )
    reference = None
    if "mean" in modes:
        if reference_prompts is None:
            raise InterventionError(
                "mean ablation needs reference prompts: give the ABC variant of the prompts, or "
                'leave "mean" out of the modes'
            )
        check_prompts(prompts, model.config)
        check_cells(prompts, reference_prompts)
        reference = MeanReference.of(model, reference_prompts, batch_rows=batch_rows)
    editors = {"head_ablation": HeadAblation(model, reference)}
    return run_interventions(
        model, prompts, interventions, editors, batch_rows=batch_rows, progress=progress
    )


# ---- mean reference ------------------------------------------------------------------------------


def cells(prompts: pl.DataFrame) -> list[Cell]:
    """Cell of every prompt: template, name order, length and the positions of all roles."""
    columns = ["template", "name_order", "n_tokens", *role_columns(prompts).values()]
    if missing := [name for name in columns[:3] if name not in prompts.columns]:
        raise InterventionError(f"prompts lack the columns {missing}; give rows of ioi_prompts")
    return [tuple(row) for row in prompts.select(columns).iter_rows()]


def check_cells(prompts: pl.DataFrame, reference: pl.DataFrame) -> None:
    """Raise InterventionError unless every prompt's cell occurs in the reference."""
    known = set(cells(reference))
    lacking = [
        (prompt, cell)
        for prompt, cell in zip(prompts["prompt"].to_list(), cells(prompts), strict=True)
        if cell not in known
    ]
    if lacking:
        prompt, cell = lacking[0]
        raise InterventionError(
            f"{len(lacking)} prompts have no reference prompt of the same template, name order and "
            f"role positions (prompt {prompt}: template {cell[0]}, {cell[1]}, {cell[2]} tokens); "
            "make the ABC variant of these very prompts"
        )


@dataclass(frozen=True)
class MeanReference:
    """Mean z of reference prompts, processed weights.

    row: cell -> index; z [layer][cell, position, head, d_head], zero beyond a cell's length;
    n [cell]: prompts behind each mean.
    """

    row: dict[Cell, int]
    z: list[Tensor]
    n: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: LanguageModel, prompts: pl.DataFrame, *, batch_rows: int = 256
    ) -> "MeanReference":
        """Run the reference prompts and average z within cells."""
        check_prompts(prompts, model.config)
        names = cells(prompts)
        row = {cell: place for place, cell in enumerate(dict.fromkeys(names))}
        longest = int(prompts["n_tokens"].to_numpy().max())
        shape = (len(row), longest, model.config.n_heads, model.config.d_head)
        n = float64(torch.zeros(len(row), device=model.device))
        sums = [n.new_zeros(shape) for _ in range(model.config.n_layers)]
        for group in prompt_groups(prompts, max_prompts=batch_rows, device=model.device):
            run = clean_run(model, group)
            place = torch.tensor([row[cell] for cell in cells(group.frame)], device=n.device)
            n.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
            for layer, z in enumerate(run.z):
                sums[layer][:, : z.shape[1]].index_add_(0, place, float64(z))
        means = [
            (total / n[:, None, None, None]).to(model.dtype).to(model.device) for total in sums
        ]
        return cls(row, means, n)

    def targets(self, frame: pl.DataFrame, layer: int, head: int) -> Tensor:
        """Mean z of one head for prompts of one length [row, position, d_head]."""
        place = torch.tensor([self.row[cell] for cell in cells(frame)])
        length = int(frame["n_tokens"][0])
        return self.z[layer][:, :length, head][place.to(self.z[layer].device)]


# ---- kind head_ablation --------------------------------------------------------------------------


@dataclass(frozen=True)
class SetZ:
    """z of one head -> z + alpha * (target - z) where `mask` holds.

    target [row, position, d_head]; mask [row, position].
    """

    layer: int
    head: int
    target: Tensor
    mask: Tensor
    alpha: float

    @property
    def first_layer(self) -> int:
        return self.layer

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        return ()

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        def hook(z: Tensor, hook: Any) -> Tensor:
            own = z[rows, :, self.head]
            z[rows, :, self.head] = own + self.change(own)
            return z

        return [(f"blocks.{self.layer}.attn.hook_z", hook)]

    def change(self, z: Tensor) -> Tensor:
        """What is added to z [row, position, d_head]."""
        return self.alpha * self.mask[..., None] * (self.target - z)

    def select(self, keep: Tensor) -> "SetZ":
        return replace(self, target=self.target[keep], mask=self.mask[keep])


@dataclass(frozen=True)
class HeadAblation:
    """Editor of kind head_ablation; `reference` is needed for mode "mean".

    cosine and norm ratio are those of the residual stream after the layer's attention (resid_mid).
    """

    model: LanguageModel
    reference: MeanReference | None = None

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        if any(one.mode == "mean" for one in interventions):
            if self.reference is None:
                raise InterventionError("mean ablation needs a MeanReference; none was given")
            lacking = [cell for cell in cells(prompts) if cell not in self.reference.row]
            if lacking:
                raise InterventionError(
                    f"{len(lacking)} prompts have no cell in the mean reference (template "
                    f"{lacking[0][0]}, {lacking[0][1]}); make the reference from their ABC variant"
                )

    def plan(self, intervention: Intervention, run: CleanRun) -> Edit | None:
        layer, head = intervention.layer, intervention.head
        z = run.z[layer][:, :, head]
        n_rows, length = z.shape[:2]
        if intervention.mode == "zero":
            target = torch.zeros_like(z)
        else:
            assert self.reference is not None
            target = self.reference.targets(run.group.frame, layer, head)
        mask = torch.ones(n_rows, length, dtype=torch.bool, device=z.device)
        if intervention.position_role != ALL_POSITIONS:
            place = run.group.positions[intervention.position_role]
            mask = torch.arange(length, device=z.device) == place[:, None]
        step = SetZ(layer, head, target, mask, intervention.alpha)
        row, position = mask.nonzero(as_tuple=True)
        before = run.resid_mid[layer][row, position]
        after = before + step.change(z)[row, position] @ self.model.weights.W_O[layer, head]
        cosine, norm_ratio = cosine_and_norm_ratio(before, after, row, n_rows)
        return Edit(torch.arange(n_rows, device=z.device), (step,), cosine, norm_ratio)
