"""Ablation of attention heads on prompts of any task: the runs behind effects and reuse.

Belongs here: runs with one head or many heads replaced. Does not belong here: what replaces z
(ablation/), aggregation over prompts (head_effects.py, reuse.py).

z is that of the processed weights, as in interventions/: b_V is folded into b_O, so zero ablation
leaves b_V W_O in place. An ablation replaces z of a head at every position from 1 on (position role
all_but_bos), or at END alone; position 0, BOS, attends to itself alone and is the same in all
prompts. Everything behind the head is computed anew. Modes are those of ablation/modes.py that
SWEEP_MODES names; means come from `references`, by mode.

Why not the interventions' runner: a sweep is every head in every mode on every prompt. Here all
heads and modes of a layer are rows of one pass that takes its targets from one tensor, and metrics
stay arrays; the runner plans and records each intervention alone. Effects are the same
(tests/ablation/test_engines.py).

How a sweep runs: prompts are grouped by length. A group has one clean run, whose residual streams,
keys and values are kept. Heads, modes and layers are rows of passes that begin at the first
position that is edited; each row enters at its head's layer. Of the last layer END alone is
computed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.ablation.cells import prompt_cells
from mechinterp_assets.ablation.modes import ALL_BUT_BOS
from mechinterp_assets.ablation.references import CounterfactualMeans, LeaveOneOutMeans, Targets
from mechinterp_assets.ablation.replacements import change, uniform_attention
from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_keys import KeptKeys, before
from mechinterp_assets.model.kept_run import run_and_keep_keys
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import run_entering
from mechinterp_assets.prompts.answers import AnswerTokens, answer_metrics
from mechinterp_assets.prompts.common import END
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups
from mechinterp_assets.tasks.settings import SweepRole

SweepMode = Literal["zero", "mean_counterfactual", "mean_leave_one_out", "uniform_attention"]
SWEEP_MODES: tuple[SweepMode, ...] = get_args(SweepMode)
METRICS = ("loss", "logit_diff", "kl")

Floats = NDArray[np.float64]
Means = Mapping[str, Targets]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sweep:
    """Every head ablated alone.

    prompts: the rows, in the order of the arrays. modes: of the first axis. position_role: where z
    was replaced. clean: metric -> [prompt]; ablated: metric -> [mode, layer, head, prompt], METRICS
    each. falls_back: mode -> [prompt], whether its mean is not over its cell; means that have no
    fallback are not in it.
    """

    prompts: pl.DataFrame
    modes: tuple[SweepMode, ...]
    position_role: SweepRole
    falls_back: dict[str, NDArray[np.bool_]]
    clean: dict[str, Floats]
    ablated: dict[str, Floats]


@dataclass(frozen=True)
class CleanGroup:
    """Prompts of equal length, unedited.

    resid_pre, z, v [layer] of [row, position, d_model] and twice [row, position, head, d_head];
    logits [row, d_vocab] at END; keys: for passes over later positions, None where there are none.
    """

    frame: pl.DataFrame
    answers: AnswerTokens
    resid_pre: list[Tensor]
    z: list[Tensor]
    v: list[Tensor]
    logits: Tensor
    keys: KeptKeys | None

    @property
    def n_rows(self) -> int:
        """Number of prompts."""
        return self.frame.height

    @property
    def length(self) -> int:
        """Number of positions; END is the last."""
        return self.resid_pre[0].shape[1]

    def run_from(
        self,
        model: LanguageModel,
        entering: Mapping[int, Tensor],
        position: int,
        hooks: Sequence[NamedHook],
    ) -> Tensor:
        """Logits at END [row, d_vocab] of prompts that enter at several layers.

        entering: layer -> rows of the group, in order of layers. Hooks change positions from
        `position` on; what they see begins at `computed_from`.
        """
        first = self.computed_from(position)
        streams = {layer: self.resid_pre[layer][rows, first:] for layer, rows in entering.items()}
        behind = before(self.keys, first, torch.cat(list(entering.values())))
        return run_entering(model.processed, streams, hooks, behind=behind)

    def computed_from(self, position: int) -> int:
        """First position of a pass whose edits begin at `position`."""
        return 0 if self.keys is None else position


@torch.no_grad()
def clean_groups(
    model: LanguageModel, prompts: pl.DataFrame, max_prompts: int
) -> Iterator[CleanGroup]:
    """Runs `prompts` unedited, in groups of equal length and at most `max_prompts`."""
    layers = range(model.config.n_layers)
    names = ("hook_resid_pre", "attn.hook_z", "attn.hook_v")
    wanted = [f"blocks.{layer}.{name}" for layer in layers for name in names]
    for frame, ids in equal_length_groups(prompts, max_prompts):
        logits, kept, keys = run_and_keep_keys(model.processed, ids.to(model.device), wanted)
        resid_pre, z, v = ([kept[f"blocks.{layer}.{name}"] for layer in layers] for name in names)
        answers = AnswerTokens.of(frame, model.device)
        yield CleanGroup(frame, answers, resid_pre, z, v, logits, keys)


def leave_one_out_means(
    model: LanguageModel, prompts: pl.DataFrame, max_prompts: int
) -> LeaveOneOutMeans:
    """Means of z over the other prompts of each task, from clean runs of `prompts`."""
    means = LeaveOneOutMeans()
    for group in clean_groups(model, prompts, max_prompts):
        means.add(group.frame, group.z)
    return means


def counterfactual_means(
    model: LanguageModel, prompts: pl.DataFrame, max_prompts: int
) -> CounterfactualMeans:
    """Means of z over counterfactual prompts of each cell, from clean runs of `prompts`."""
    means = CounterfactualMeans()
    for group in clean_groups(model, prompts, max_prompts):
        means.add(prompt_cells(group.frame), group.z)
    return means


@torch.no_grad()
def sweep_heads(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    modes: Sequence[SweepMode] = ("zero",),
    references: Means | None = None,
    position_role: SweepRole = ALL_BUT_BOS,
    alpha: float = 1.0,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> Sweep:
    """Ablate every head alone, in every mode, on every prompt.

    prompts: rows of TASK_PROMPTS_SCHEMA; references: mode -> means, for the modes that are means.
    position_role: where z is replaced, at every position from 1 on or at END alone. alpha: z moves
    that far from its own value (0) to its replacement (1). `batch_rows` bounds the rows of a pass.
    Raises PromptError, or AblationError for prompts without reference, before any run.
    """
    references = references or {}
    check_sweep(model, prompts, modes, references, batch_rows)
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
        targets = replacements(group, modes, references)
        for job in _jobs(group, len(modes), H, position_role, batch_rows):
            found = _run_job(model, group, job, targets, alpha)
            where = (job.mode, job.layer, job.head, rows[job.row])
            for name in METRICS:
                ablated[name][where] = found[name].cpu().numpy()
        done += group.n_rows
        if progress is not None:
            progress(done, n)
    falls_back: dict[str, NDArray[np.bool_]] = {
        mode: np.array(references[mode].falls_back(prompts))
        for mode in modes
        if mode == "mean_leave_one_out"
    }
    return Sweep(prompts, tuple(modes), position_role, falls_back, clean, ablated)


@torch.no_grad()
def run_head_sets(
    model: LanguageModel,
    prompts: pl.DataFrame,
    kept: Tensor,
    means: Targets,
    *,
    batch_rows: int = 256,
) -> dict[str, Floats]:
    """Mean-ablate every head outside a set, for several sets: metric -> [set, prompt].

    kept [set, layer, head]: heads whose z is computed as ever, from what the rest leaves of the
    residual stream. means: which mean ablation it is. MLPs are never ablated. Raises PromptError or
    AblationError before any run.
    """
    check_sweep(model, prompts, ("zero",), {}, batch_rows)
    means.check(prompts)
    place = {key: i for i, key in enumerate(prompts.select("task", "prompt").iter_rows())}
    out = {name: np.full((len(kept), prompts.height), np.nan) for name in METRICS}
    for group in clean_groups(model, prompts, batch_rows):
        rows = np.array([place[key] for key in group.frame.select("task", "prompt").iter_rows()])
        targets = means.targets(group.frame, group.z)
        for sets, row in _grid((len(kept), group.n_rows), batch_rows):
            # Position 0 keeps its z, and layers before the first that loses a head change nothing.
            start = _first_layer(kept[sets])
            computed = slice(group.computed_from(1), None)
            hooks = [
                _set_hook(layer, kept[sets, layer].to(model.device), targets[layer][row, computed])
                for layer in range(start, model.config.n_layers)
            ]
            row = row.to(model.device)
            logits = group.run_from(model, {start: row}, 1, hooks)
            found = answer_metrics(logits, group.answers[row], group.logits[row])
            for name in METRICS:
                out[name][sets, rows[row.cpu()]] = found[name].cpu().numpy()
    return out


def check_sweep(
    model: LanguageModel,
    prompts: pl.DataFrame,
    modes: Sequence[SweepMode],
    references: Means,
    batch_rows: int,
) -> None:
    """Raise PromptError for what cannot be run, AblationError for prompts without reference."""
    if batch_rows < 1:
        raise PromptError(f"batch_rows is {batch_rows}; at least 1 row must fit")
    if not modes or len(set(modes)) != len(modes) or set(modes) - set(SWEEP_MODES):
        raise PromptError(
            f"modes {list(modes)}: name each of {', '.join(SWEEP_MODES)} at most once, and one "
            "at least"
        )
    check_prompts_fit(prompts, model)
    if prompts.select("task", "prompt").is_duplicated().any():
        raise PromptError("a prompt of a task is given twice; give every prompt once")
    for mode in modes:
        if mode.startswith("mean") and mode not in references:
            raise PromptError(
                f"{mode} needs reference prompts: give their means under references[{mode!r}]"
            )
        if mode in references:
            references[mode].check(prompts)


def replacements(group: CleanGroup, modes: Sequence[SweepMode], references: Means) -> list[Tensor]:
    """Per layer what replaces z [mode, row, position, head, d_head]; position 0 keeps its own."""
    by_mode: dict[str, list[Tensor]] = {}
    for mode in modes:
        if mode == "zero":
            by_mode[mode] = [torch.zeros_like(z) for z in group.z]
        elif mode == "uniform_attention":
            by_mode[mode] = [uniform_attention(v, z) for v, z in zip(group.v, group.z, strict=True)]
        else:
            by_mode[mode] = references[mode].targets(group.frame, group.z)
    out = []
    for layer, z in enumerate(group.z):
        stacked = torch.stack([by_mode[mode][layer] for mode in modes])
        stacked[:, :, 0] = z[:, 0]
        out.append(stacked)
    return out


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """Rows of one pass: which layer, mode, head and prompt of the group each is, [row] each.

    Rows are in order of their layers. first: the first position whose z is replaced.
    """

    layer: Tensor
    mode: Tensor
    head: Tensor
    row: Tensor
    first: int


def _jobs(
    group: CleanGroup, n_modes: int, n_heads: int, position_role: SweepRole, batch_rows: int
) -> Iterator[_Job]:
    """Passes of a group: as many layers in one as the model lets rows enter late.

    Of the last layer END alone is read.
    """
    end, n_layers = group.length - 1, len(group.z)
    first = end if position_role == END else 1
    spans = [(range(n_layers - 1), first), (range(n_layers - 1, n_layers), end)]
    if group.keys is None:
        spans = [(range(layer, layer + 1), first) for layer in range(n_layers)]
    elif first == end:
        spans = [(range(n_layers), end)]
    for layers, start in spans:
        sizes = (len(layers), n_modes, n_heads, group.n_rows)
        for layer, mode, head, row in _grid(sizes, batch_rows):
            yield _Job(layer + layers.start, mode, head, row, start)


def _grid(sizes: tuple[int, ...], batch_rows: int) -> Iterator[Sequence[Tensor]]:
    """All combinations of indices below `sizes`, at most `batch_rows` at a time, by axis."""
    total = math.prod(sizes)
    for start in range(0, total, batch_rows):
        flat = torch.arange(start, min(total, start + batch_rows))
        yield torch.unravel_index(flat, sizes)


def _run_job(
    model: LanguageModel, group: CleanGroup, job: _Job, targets: Sequence[Tensor], alpha: float
) -> dict[str, Tensor]:
    edited = slice(job.first - group.computed_from(job.first), None)
    hooks: list[NamedHook] = []
    entering: dict[int, Tensor] = {}
    for layer, count in Counter(job.layer.tolist()).items():
        start = sum(len(rows) for rows in entering.values())
        mode, head, row = (part[start : start + count] for part in (job.mode, job.head, job.row))
        target, rows = targets[layer][mode, row, job.first :, head], torch.arange(count) + start
        hooks.append(_replacing(layer, rows, edited, head, target, alpha))
        entering[layer] = row.to(model.device)
    logits = group.run_from(model, entering, job.first, hooks)
    row = torch.cat(list(entering.values()))
    return answer_metrics(logits, group.answers[row], group.logits[row])


def _replacing(
    layer: int, rows: Tensor, positions: slice, head: Tensor, target: Tensor, alpha: float
) -> NamedHook:
    def replace(z: Tensor, hook: Any) -> Tensor:
        own = z[rows, positions, head]
        z[rows, positions, head] = own + change(own, target, alpha)
        return z

    return f"blocks.{layer}.attn.hook_z", replace


def _first_layer(kept: Tensor) -> int:
    """First layer of which a set lacks a head, kept [set, layer, head]; the last if none does."""
    lacking = (~kept).any(dim=2).any(dim=0).nonzero()[:, 0]
    return int(lacking[0]) if len(lacking) else kept.shape[1] - 1


def _set_hook(layer: int, kept: Tensor, target: Tensor) -> NamedHook:
    def replace(z: Tensor, hook: Any) -> Tensor:
        return torch.where(kept[:, None, :, None], z, target.to(z))

    return f"blocks.{layer}.attn.hook_z", replace
