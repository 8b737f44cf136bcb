"""Ablation of attention heads on prompts of any task: the runs behind effects and reuse.

Belongs here: what replaces a head's z, and runs with one head or many heads replaced. Does not
belong here: aggregation over prompts (head_effects.py, reuse.py).

z is that of the processed weights, as in interventions/: b_V is folded into b_O, so zero ablation
leaves b_V W_O in place. An ablation replaces z of a head at every position from 1 on; position 0,
BOS, attends to itself alone and is the same in all prompts. Everything behind the head is computed
anew. What replaces it:

  zero     nothing
  mean     its mean over the other prompts of its cell, position by position. A cell is a task, a
           template, a length and the positions of all roles. Prompts whose cell has fewer than
           CELL_PROMPTS prompts take the mean over all positions from 1 on of the task's other
           prompts instead, the same at every position. A prompt never takes part in its own mean.
  uniform  what it would be if the head attended equally to every position up to its own: the
           attention of a query of 0 (METHODS of Zhou et al. 2024, arXiv 2410.13708, who scale W_Q)

How a sweep runs: prompts are grouped by length. A group has one clean run, whose residual streams
are kept; all heads of a layer and all modes are rows of passes that start at that layer. In the
last layer these passes have END as their only position.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import NamedHook, run_from
from mechinterp_assets.model.precision import float64
from mechinterp_assets.prompts.answers import AnswerTokens, answer_metrics
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups

AblationMode = Literal["zero", "mean", "uniform"]
ABLATION_MODES: tuple[AblationMode, ...] = get_args(AblationMode)
METRICS = ("loss", "logit_diff", "kl")
CELL_PROMPTS = 4

Floats = NDArray[np.float64]
Cell = tuple[object, ...]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sweep:
    """Every head ablated alone.

    prompts: the rows, in the order of the arrays. modes: of the first axis. clean: metric ->
    [prompt]; ablated: metric -> [mode, layer, head, prompt], METRICS each.
    """

    prompts: pl.DataFrame
    modes: tuple[AblationMode, ...]
    clean: dict[str, Floats]
    ablated: dict[str, Floats]


@dataclass(frozen=True)
class CleanGroup:
    """Prompts of equal length, unedited.

    resid_pre, z, v [layer] of [row, position, d_model] and twice [row, position, head, d_head];
    logits [row, d_vocab] at END.
    """

    frame: pl.DataFrame
    answers: AnswerTokens
    resid_pre: list[Tensor]
    z: list[Tensor]
    v: list[Tensor]
    logits: Tensor

    @property
    def n_rows(self) -> int:
        """Number of prompts."""
        return self.frame.height


@torch.no_grad()
def clean_groups(
    model: LanguageModel, prompts: pl.DataFrame, max_prompts: int
) -> Iterator[CleanGroup]:
    """Runs `prompts` unedited, in groups of equal length and at most `max_prompts`."""
    layers = range(model.config.n_layers)
    names = ("hook_resid_pre", "attn.hook_z", "attn.hook_v")
    wanted = [f"blocks.{layer}.{name}" for layer in layers for name in names]
    for frame, ids in equal_length_groups(prompts, max_prompts):
        logits, kept = run_and_keep(
            model.processed, ids.to(model.device), wanted, last_logits_only=True
        )
        resid_pre, z, v = ([kept[f"blocks.{layer}.{name}"] for layer in layers] for name in names)
        yield CleanGroup(
            frame, AnswerTokens.of(frame, model.device), resid_pre, z, v, logits[:, -1]
        )


class MeanActivations:
    """Sums of z over prompts, by cell and by task, from which a prompt's own z can be left out."""

    def __init__(self, model: LanguageModel, prompts: pl.DataFrame, max_prompts: int) -> None:
        shape = (model.config.n_layers, model.config.n_heads, model.config.d_head)
        self._cell_sum: dict[Cell, Tensor] = {}
        self._cell_n: dict[Cell, int] = {}
        self._task_sum: dict[str, Tensor] = {}
        self._task_n: dict[str, int] = {}
        self._task_prompts: dict[str, int] = {}
        self._known: set[tuple[str, int]] = set()
        for group in clean_groups(model, prompts, max_prompts):
            for cell, row, z in zip(
                cells(group.frame), group.frame.iter_rows(named=True), _by_row(group), strict=True
            ):
                task = str(row["task"])
                if cell not in self._cell_sum:
                    self._cell_sum[cell] = torch.zeros_like(z)
                    self._task_sum.setdefault(task, z.new_zeros(shape))
                self._cell_sum[cell] += z
                self._cell_n[cell] = self._cell_n.get(cell, 0) + 1
                self._task_sum[task] += z[:, 1:].sum(dim=1)
                self._task_n[task] = self._task_n.get(task, 0) + z.shape[1] - 1
                self._task_prompts[task] = self._task_prompts.get(task, 0) + 1
                self._known.add((task, int(row["prompt"])))

    def check(self, prompts: pl.DataFrame) -> None:
        """Raise PromptError for prompts that are not among those summed, or alone in their task."""
        for task, prompt in prompts.select("task", "prompt").iter_rows():
            if (task, prompt) not in self._known:
                raise PromptError(
                    f"task {task}, prompt {prompt} is not among the reference prompts of mean "
                    "ablation; give a reference that holds every prompt"
                )
            if self._task_prompts[task] < 2:
                raise PromptError(
                    f"task {task} has one prompt, and mean ablation takes the mean over the "
                    "others; give at least 2, or leave mean out of tasks.ablations"
                )

    def by_cell(self, frame: pl.DataFrame) -> list[bool]:
        """Whether each prompt's mean is that of its cell (else of its task)."""
        return [self._cell_n[cell] >= CELL_PROMPTS for cell in cells(frame)]

    def targets(self, group: CleanGroup) -> list[Tensor]:
        """What replaces z, per layer [row, position, head, d_head]; position 0 keeps its own."""
        rows = []
        tasks = group.frame["task"].to_list()
        for cell, task, own in zip(cells(group.frame), tasks, _by_row(group), strict=True):
            n = self._cell_n[cell]
            if n >= CELL_PROMPTS:
                mean = (self._cell_sum[cell] - own) / (n - 1)
            else:
                others = self._task_n[task] - (own.shape[1] - 1)
                mean = (self._task_sum[task] - own[:, 1:].sum(dim=1)) / others
                mean = mean[:, None].expand_as(own).clone()
            mean[:, 0] = own[:, 0]
            rows.append(mean)
        stacked = torch.stack(rows, dim=1).to(group.z[0])
        return list(stacked)


def cells(prompts: pl.DataFrame) -> list[Cell]:
    """Cell of each prompt: task, template, length, and every role with its position."""
    columns = ("task", "template", "n_tokens", "roles", "positions")
    return [
        (task, template, length, tuple(sorted(zip(roles, positions, strict=True))))
        for task, template, length, roles, positions in prompts.select(columns).iter_rows()
    ]


@torch.no_grad()
def sweep_heads(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    modes: Sequence[AblationMode] = ("zero", "mean"),
    reference: MeanActivations | None = None,
    alpha: float = 1.0,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> Sweep:
    """Ablate every head alone, in every mode, on every prompt.

    prompts: rows of TASK_PROMPTS_SCHEMA; reference: needed for mode "mean". alpha: z moves that
    far from its own value (0) to its replacement (1). `batch_rows` bounds the rows of a pass.
    Raises PromptError before any run.
    """
    check_sweep(model, prompts, modes, reference, batch_rows)
    L, H, n = model.config.n_layers, model.config.n_heads, prompts.height
    place = {key: i for i, key in enumerate(prompts.select("task", "prompt").iter_rows())}
    clean = {name: np.full(n, np.nan) for name in METRICS}
    ablated = {name: np.full((len(modes), L, H, n), np.nan) for name in METRICS}
    done = 0
    for group in clean_groups(model, prompts, batch_rows):
        rows = np.array([place[key] for key in group.frame.select("task", "prompt").iter_rows()])
        for name, values in answer_metrics(group.logits, group.answers, group.logits).items():
            if name in METRICS:
                clean[name][rows] = values.cpu().numpy()
        targets = replacements(group, modes, reference)
        for layer in range(L):
            for job in _jobs(len(modes), H, group.n_rows, batch_rows, model.device):
                found = _run_job(model, group, layer, job, targets[layer], alpha)
                where = (job.mode.cpu(), layer, job.head.cpu(), rows[job.row.cpu()])
                for name in METRICS:
                    ablated[name][where] = found[name].cpu().numpy()
        done += group.n_rows
        if progress is not None:
            progress(done, n)
    return Sweep(prompts, tuple(modes), clean, ablated)


@torch.no_grad()
def run_head_sets(
    model: LanguageModel,
    prompts: pl.DataFrame,
    kept: Tensor,
    reference: MeanActivations,
    *,
    batch_rows: int = 256,
) -> dict[str, Floats]:
    """Mean-ablate every head outside a set, for several sets: metric -> [set, prompt].

    kept [set, layer, head]: heads whose z is computed as ever, from what the rest leaves of the
    residual stream. MLPs are never ablated. Raises PromptError before any run.
    """
    check_sweep(model, prompts, ("mean",), reference, batch_rows)
    place = {key: i for i, key in enumerate(prompts.select("task", "prompt").iter_rows())}
    out = {name: np.full((len(kept), prompts.height), np.nan) for name in METRICS}
    for group in clean_groups(model, prompts, batch_rows):
        rows = np.array([place[key] for key in group.frame.select("task", "prompt").iter_rows()])
        targets = reference.targets(group)
        for sets, row in _grid((len(kept), group.n_rows), batch_rows):
            hooks = [
                _set_hook(layer, kept[sets, layer].to(model.device), targets[layer][row])
                for layer in range(model.config.n_layers)
            ]
            row = row.to(model.device)
            logits = run_from(model.processed, group.resid_pre[0][row], 0, hooks)
            found = answer_metrics(logits, group.answers[row], group.logits[row])
            for name in METRICS:
                out[name][sets, rows[row.cpu()]] = found[name].cpu().numpy()
    return out


def check_sweep(
    model: LanguageModel,
    prompts: pl.DataFrame,
    modes: Sequence[AblationMode],
    reference: MeanActivations | None,
    batch_rows: int,
) -> None:
    """Raise PromptError for what cannot be run."""
    if batch_rows < 1:
        raise PromptError(f"batch_rows is {batch_rows}; at least 1 row must fit")
    if not modes or len(set(modes)) != len(modes) or set(modes) - set(ABLATION_MODES):
        raise PromptError(
            f"modes {list(modes)}: name each of {', '.join(ABLATION_MODES)} at most once, and one "
            "at least"
        )
    check_prompts_fit(prompts, model)
    if prompts.select("task", "prompt").is_duplicated().any():
        raise PromptError("a prompt of a task is given twice; give every prompt once")
    if "mean" in modes:
        if reference is None:
            raise PromptError("mean ablation needs reference prompts: give MeanActivations")
        reference.check(prompts)


def replacements(
    group: CleanGroup, modes: Sequence[AblationMode], reference: MeanActivations | None
) -> list[Tensor]:
    """Per layer what replaces z [mode, row, position, head, d_head]; position 0 keeps its own."""
    by_mode: dict[AblationMode, list[Tensor]] = {"zero": [torch.zeros_like(z) for z in group.z]}
    if reference is not None and "mean" in modes:
        by_mode["mean"] = reference.targets(group)
    if "uniform" in modes:
        by_mode["uniform"] = [_uniform(v, z) for v, z in zip(group.v, group.z, strict=True)]
    out = []
    for layer, z in enumerate(group.z):
        stacked = torch.stack([by_mode[mode][layer] for mode in modes])
        stacked[:, :, 0] = z[:, 0]
        out.append(stacked)
    return out


# ---- private -------------------------------------------------------------------------------------


def _by_row(group: CleanGroup) -> Iterator[Tensor]:
    """z of each prompt [layer, position, head, d_head], float64."""
    for row in range(group.n_rows):
        yield float64(torch.stack([z[row] for z in group.z]))


def _uniform(v: Tensor, z: Tensor) -> Tensor:
    """Mean of v over positions up to each [row, position, head, d_head]; GQA repeats v."""
    v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
    counts = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
    return v.cumsum(dim=1) / counts[:, None, None]


@dataclass(frozen=True)
class _Job:
    """Rows of one pass: which mode, head and prompt of the group each is, [row] each."""

    mode: Tensor
    head: Tensor
    row: Tensor


def _jobs(
    n_modes: int, n_heads: int, n_rows: int, batch_rows: int, device: torch.device
) -> Iterator[_Job]:
    for mode, head, row in _grid((n_modes, n_heads, n_rows), batch_rows):
        yield _Job(mode.to(device), head.to(device), row.to(device))


def _grid(sizes: tuple[int, ...], batch_rows: int) -> Iterator[Sequence[Tensor]]:
    """All combinations of indices below `sizes`, at most `batch_rows` at a time, by axis."""
    total = math.prod(sizes)
    for start in range(0, total, batch_rows):
        flat = torch.arange(start, min(total, start + batch_rows))
        yield torch.unravel_index(flat, sizes)


def _run_job(
    model: LanguageModel, group: CleanGroup, layer: int, job: _Job, targets: Tensor, alpha: float
) -> dict[str, Tensor]:
    # Of the last layer only END is read, and its attention there is known but for the edit.
    last = layer == model.config.n_layers - 1
    positions = slice(-1 if last else 0, None)
    target = targets[job.mode, job.row, positions, job.head]
    everywhere = torch.arange(len(job.row), device=target.device)

    def replace(z: Tensor, hook: Any) -> Tensor:
        edited = group.z[layer][job.row, positions] if last else z
        own = edited[everywhere, :, job.head]
        edited[everywhere, :, job.head] = own + alpha * (target - own)
        return edited

    logits = run_from(
        model.processed,
        group.resid_pre[layer][job.row, positions],
        layer,
        [(f"blocks.{layer}.attn.hook_z", replace)],
    )
    return answer_metrics(logits, group.answers[job.row], group.logits[job.row])


def _set_hook(layer: int, kept: Tensor, target: Tensor) -> NamedHook:
    def replace(z: Tensor, hook: Any) -> Tensor:
        return torch.where(kept[:, None, :, None], z, target.to(z))

    return f"blocks.{layer}.attn.hook_z", replace
