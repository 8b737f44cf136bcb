"""Means of activations that ablations replace activations by.

Belongs here: which prompts and positions a mean is over, as modes.py names them, from activations
that are given. Does not belong here: running prompts for these activations, which engines do.

Activations come as one tensor per layer, [row, position, ...] of prompts of one length. Sums are
float64.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import Cell, prompt_cells
from mechinterp_assets.model.precision import float64

CELL_PROMPTS = 4


class AblationError(ValueError):
    """Prompts that have no reference; the message names one and the remedy."""


class CellMeans:
    """Mean activations by cell, over all prompts that were added."""

    def __init__(self) -> None:
        self._sums: dict[Hashable, list[Tensor]] = {}
        self._means: dict[tuple[Hashable, int], Tensor] = {}
        self.n: dict[Hashable, int] = {}

    def add(self, cells: Sequence[Hashable], layers: Sequence[Tensor]) -> None:
        """Take prompts into the means: cells [row], layers [layer][row, position, ...]."""
        rows_of: dict[Hashable, list[int]] = {}
        for row, cell in enumerate(cells):
            rows_of.setdefault(cell, []).append(row)
        for cell, rows in rows_of.items():
            total = [float64(value[rows]).sum(dim=0) for value in layers]
            if cell in self._sums:
                total = [a + b for a, b in zip(self._sums[cell], total, strict=True)]
            self._sums[cell] = total
            self.n[cell] = self.n.get(cell, 0) + len(rows)
        self._means.clear()

    def mean(self, cell: Hashable, layer: int) -> Tensor:
        """Mean of one cell [position, ...], float64."""
        if (cell, layer) not in self._means:
            self._means[cell, layer] = self._sums[cell][layer] / self.n[cell]
        return self._means[cell, layer]

    def of(self, cells: Sequence[Hashable], layer: int) -> Tensor:
        """Means for prompts of one length [row, position, ...], float64."""
        return torch.stack([self.mean(cell, layer) for cell in cells])

    def of_others(self, cell: Hashable, own: Sequence[Tensor]) -> list[Tensor]:
        """Mean over the other prompts of a cell; own [layer][position, ...] was added, float64."""
        others = self.n[cell] - 1
        return [(a - b) / others for a, b in zip(self._sums[cell], own, strict=True)]


class Targets(Protocol):
    """What replaces z, for an engine that ablates every head."""

    def check(self, prompts: pl.DataFrame) -> None:
        """Raise AblationError for prompts that have no reference."""
        ...

    def targets(self, prompts: pl.DataFrame, z: Sequence[Tensor]) -> list[Tensor]:
        """What replaces z of prompts of one length, both [layer][row, position, head, d_head]."""
        ...

    def falls_back(self, prompts: pl.DataFrame) -> list[bool]:
        """Whether each prompt's mean is not over its cell, which is too small."""
        ...


class CounterfactualMeans(CellMeans):
    """Reference counterfactual_cell: means over counterfactual prompts of the same cell."""

    def check(self, prompts: pl.DataFrame) -> None:
        """Raise AblationError for prompts whose cell has no counterfactual prompt."""
        check_cells(prompts, [cell for cell in self.n if isinstance(cell, Cell)])

    def targets(self, prompts: pl.DataFrame, z: Sequence[Tensor]) -> list[Tensor]:
        """What replaces z of prompts of one length, both [layer][row, position, head, d_head]."""
        cells = prompt_cells(prompts)
        return [self.of(cells, layer).to(own) for layer, own in enumerate(z)]

    def falls_back(self, prompts: pl.DataFrame) -> list[bool]:
        """False for every prompt: a cell without counterfactual prompts is refused."""
        return [False] * prompts.height


class LeaveOneOutMeans:
    """References own_cell and own_task: means over the other prompts of a task.

    Of the prompt's cell, position by position, where that has CELL_PROMPTS prompts, else over all
    positions from 1 on of the task's other prompts. Position 0, BOS, is the same in all prompts and
    keeps its own value.
    """

    def __init__(self) -> None:
        self._cells = CellMeans()
        self._task_sum: dict[str, list[Tensor]] = {}
        self._task_n: dict[str, int] = {}
        self._task_prompts: dict[str, int] = {}
        self._known: set[tuple[str, int]] = set()

    def add(self, prompts: pl.DataFrame, z: Sequence[Tensor]) -> None:
        """Take prompts of one length and their z [layer][row, position, ...] into the means."""
        self._cells.add(prompt_cells(prompts), z)
        keys = prompts.select("task", "prompt").iter_rows()
        for (task, prompt), own in zip(keys, _rows(z), strict=True):
            total = [layer[1:].sum(dim=0) for layer in own]
            known = self._task_sum.get(task, [torch.zeros_like(layer) for layer in total])
            self._task_sum[task] = [a + b for a, b in zip(known, total, strict=True)]
            self._task_n[task] = self._task_n.get(task, 0) + len(own[0]) - 1
            self._task_prompts[task] = self._task_prompts.get(task, 0) + 1
            self._known.add((task, int(prompt)))

    def check(self, prompts: pl.DataFrame) -> None:
        """Raise AblationError for prompts that were not added, or are alone in their task."""
        for task, prompt in prompts.select("task", "prompt").iter_rows():
            if (task, prompt) not in self._known:
                raise AblationError(
                    f"task {task}, prompt {prompt} is not among the reference prompts of mean "
                    "ablation; give a reference that holds every prompt"
                )
            if self._task_prompts[task] < 2:
                raise AblationError(
                    f"task {task} has one prompt, and mean_leave_one_out takes the mean over the "
                    "others; give at least 2, or leave it out of task_effects.ablations"
                )

    def falls_back(self, prompts: pl.DataFrame) -> list[bool]:
        """Whether each prompt's mean is that of its task and not of its cell."""
        return [self._cells.n[cell] < CELL_PROMPTS for cell in prompt_cells(prompts)]

    def targets(self, prompts: pl.DataFrame, z: Sequence[Tensor]) -> list[Tensor]:
        """What replaces z of prompts of one length, both [layer][row, position, head, d_head]."""
        rows = []
        tasks = prompts["task"].to_list()
        for cell, task, own in zip(prompt_cells(prompts), tasks, _rows(z), strict=True):
            if self._cells.n[cell] >= CELL_PROMPTS:
                means = self._cells.of_others(cell, own)
            else:
                others = self._task_n[task] - (len(own[0]) - 1)
                means = [
                    ((total - layer[1:].sum(dim=0)) / others)[None].expand_as(layer).clone()
                    for total, layer in zip(self._task_sum[task], own, strict=True)
                ]
            for mean, layer in zip(means, own, strict=True):
                mean[0] = layer[0]
            rows.append(means)
        return [torch.stack([row[layer] for row in rows]).to(own) for layer, own in enumerate(z)]


def check_cells(prompts: pl.DataFrame, cells: Sequence[Cell]) -> None:
    """Raise AblationError unless every prompt's cell is among those of reference prompts."""
    known = set(cells)
    lacking = [
        (prompt, cell)
        for prompt, cell in zip(prompts["prompt"].to_list(), prompt_cells(prompts), strict=True)
        if cell not in known
    ]
    if lacking:
        prompt, cell = lacking[0]
        raise AblationError(
            f"{len(lacking)} prompts have no reference prompt of the same template and role "
            f"positions (prompt {prompt}: {cell}); make the counterfactuals (the ABC variant, for "
            "IOI) of these very prompts"
        )


def _rows(z: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """z of each prompt [layer][position, ...], float64."""
    for row in range(len(z[0])):
        yield [float64(layer[row]) for layer in z]
