"""Runs interventions over prompts and returns the tidy frame intervention_results.

Belongs here: the clean run, stacking edits into forward passes, metrics of each run. Does not
belong here: what a kind of intervention changes (heads.py, edges.py) and summaries (summary.py).

Weights: the processed view (LayerNorm folded, writing weights centred, b_V folded into b_O). The
probabilities are those of the raw model; z is not, so zero ablation leaves b_V W_O, a part of b_O,
in place.

How a run works: prompts are grouped by length. Each group has one clean run, whose residual streams
are kept. Edits that start at the same layer are stacked along the batch dimension, up to
`batch_rows` rows, and run from that layer on, so that everything before the edit is shared. Only
END is unembedded.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.metrics import LOGIT_METRICS, logit_metrics
from mechinterp_assets.interventions.prompts import (
    PromptGroup,
    absent_roles,
    check_prompts,
    prompt_groups,
)
from mechinterp_assets.interventions.spec import (
    Intervention,
    InterventionError,
    InterventionSet,
    Planned,
    members,
    validate,
)
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.precision import float64

logger = logging.getLogger(__name__)

Hook = Callable[[Tensor, Any], Tensor | None]
NamedHook = tuple[str, Hook]
Progress = Callable[[int, int], None]

SPEC_SCHEMA: dict[str, Any] = {
    "intervention": pl.String,
    "kind": pl.String,
    "mode": pl.String,
    "site": pl.String,
    "layer": pl.Int32,
    "head": pl.Int32,
    "feature": pl.Int32,
    "position_role": pl.String,
    "upstream_layer": pl.Int32,
    "upstream_head": pl.Int32,
    "destination_role": pl.String,
    "source_role": pl.String,
    "side": pl.String,
    "receiver": pl.String,
    "scope": pl.String,
    "via_mlp": pl.Boolean,
    "error_kept": pl.Boolean,
    "is_control": pl.Boolean,
    "alpha": pl.Float64,
    "seed": pl.Int64,
}
VALUE_SCHEMA: dict[str, Any] = {
    "n_slices": pl.Int32,
    "metric": pl.String,
    "clean": pl.Float64,
    "corrupt": pl.Float64,
    "reference": pl.Float64,
    "patched": pl.Float64,
    "cosine": pl.Float64,
    "norm_ratio": pl.Float64,
}
RESULTS_SCHEMA: dict[str, Any] = {"prompt": pl.Int64, **SPEC_SCHEMA, **VALUE_SCHEMA}


@dataclass(frozen=True)
class CleanRun:
    """Activations of one group of prompts, unedited, processed weights.

    resid_pre, resid_mid [layer][row, position, d_model]; z [layer][row, position, head, d_head];
    attn_scores [layer][row, head, destination, source], after division by sqrt(d_head);
    logits [row, d_vocab] at END.
    """

    group: PromptGroup
    resid_pre: list[Tensor]
    resid_mid: list[Tensor]
    z: list[Tensor]
    attn_scores: list[Tensor]
    logits: Tensor


@dataclass
class LiveRun:
    """What an edited run has computed so far; clean values for the layers before its start.

    index [row]: the clean run's row behind each stacked row.
    """

    clean: CleanRun
    index: Tensor
    start: int
    z_seen: dict[int, Tensor] = field(default_factory=dict)
    scale_seen: dict[int, Tensor] = field(default_factory=dict)

    def z(self, layer: int, rows: slice) -> Tensor:
        """z of a layer for stacked rows [row, position, head, d_head]."""
        if layer >= self.start:
            return self.z_seen[layer][rows]
        return self.clean.z[layer][self.index[rows]]

    def scale(self, layer: int, rows: slice) -> Tensor:
        """Scale of the norm before attention [row, position, 1]."""
        return self.scale_seen[layer][rows]


class Step(Protocol):
    """One change to a forward pass, for the rows of its edit."""

    @property
    def first_layer(self) -> int:
        """First layer whose computation changes."""
        ...

    @property
    def reads(self) -> tuple[tuple[str, int], ...]:
        """Activations it reads from the edited run: ("z" or "scale", layer)."""
        ...

    def hooks(self, rows: slice, live: LiveRun) -> list[NamedHook]:
        """Hooks that make the change to the stacked rows `rows`."""
        ...

    def select(self, keep: Tensor) -> "Step":
        """The same change for the edit's rows `keep` [row], renumbered from 0."""
        ...


@dataclass(frozen=True)
class Pairs:
    """(destination, source) pairs of one head whose attention score is a metric.

    row, destination, source [pair]; rows are those of the edit. A row with several pairs scores
    their mean.
    """

    layer: int
    head: int
    row: Tensor
    destination: Tensor
    source: Tensor

    def mean_scores(self, scores: Tensor, n_rows: int) -> Tensor:
        """[row] mean score over each row's pairs; scores [row, head, destination, source]."""
        values = float64(scores[self.row, self.head, self.destination, self.source])
        row = self.row.to(values.device)
        total = values.new_zeros(n_rows).index_add_(0, row, values)
        return total / torch.bincount(row, minlength=n_rows)


@dataclass(frozen=True)
class Edit:
    """An intervention worked out for the prompts of one group that it applies to.

    members [row]: rows of the clean run. cosine, norm_ratio [row]: between the residual stream at
    the edited site with and without the edit, mean over edited positions. n_slices [row] for edges.
    """

    members: Tensor
    steps: tuple[Step, ...]
    cosine: Tensor
    norm_ratio: Tensor
    n_slices: Tensor | None = None
    pairs: Pairs | None = None

    @property
    def first_layer(self) -> int:
        """First layer whose computation changes."""
        return min(step.first_layer for step in self.steps)


class Editor(Protocol):
    """Works out one kind of intervention for a group of prompts."""

    def check(self, interventions: Sequence[Intervention], prompts: pl.DataFrame) -> None:
        """Raise InterventionError for what cannot be run, before anything is."""
        ...

    def plan(self, intervention: Intervention, run: CleanRun) -> Edit | None:
        """The edit, or None where it applies to no prompt of the group."""
        ...


@torch.no_grad()
def run_interventions(
    model: LanguageModel,
    prompts: pl.DataFrame,
    interventions: Sequence[Planned],
    editors: Mapping[str, Editor],
    *,
    batch_rows: int = 256,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Run every intervention on every prompt it applies to: frame intervention_results.

    prompts: rows of table ioi_prompts; editors: one per kind of intervention that occurs.
    One row per prompt, intervention and metric (logit_diff, kl, loss, prob and, for edges,
    attn_score). `batch_rows` bounds the rows of a forward pass and of a clean run.
    Raises InterventionError before any run.
    """
    if batch_rows < 1:
        raise InterventionError(f"batch_rows is {batch_rows}; at least 1 row must fit")
    check_prompts(prompts, model.config)
    validate(interventions, model.config, absent_roles(prompts))
    _check_kinds(interventions, prompts, editors)

    collected = _Collected()
    if not interventions:
        return collected.frame(interventions)
    done, total = 0, len(interventions) * prompts.height
    for group in prompt_groups(prompts, max_prompts=batch_rows, device=model.device):
        run = clean_run(model, group)
        for stack in _stacks(run, interventions, editors, batch_rows):
            collected.add(run, stack, *_run_stack(model, run, stack))
        done += len(interventions) * len(group.prompt)
        if progress is not None:
            progress(done, total)
    return collected.frame(interventions)


@torch.no_grad()
def clean_run(model: LanguageModel, group: PromptGroup) -> CleanRun:
    """Run a group unedited and keep what edits start from and read."""
    layers = range(model.config.n_layers)
    names = ("hook_resid_pre", "hook_resid_mid", "attn.hook_z", "attn.hook_attn_scores")
    kept: dict[str, Tensor] = {}

    def keep_as(name: str) -> NamedHook:
        def keep(value: Tensor, hook: Any) -> None:
            kept[name] = value.clone()

        return name, keep

    hooks = [keep_as(f"blocks.{layer}.{name}") for layer in layers for name in names]
    logits = model.processed.run_with_hooks(
        group.token_ids, fwd_hooks=[*hooks, ("unembed.hook_in", _last_position)]
    )
    resid_pre, resid_mid, z, scores = (
        [kept[f"blocks.{layer}.{name}"] for layer in layers] for name in names
    )
    return CleanRun(group, resid_pre, resid_mid, z, scores, logits[:, -1])


def spec_frame(interventions: Sequence[Planned]) -> pl.DataFrame:
    """One row per intervention: the columns that say what was done."""
    return pl.DataFrame([_spec_row(planned) for planned in interventions], schema=SPEC_SCHEMA)


def intervention_sets(interventions: Sequence[Planned]) -> pl.DataFrame:
    """Members of the sets among `interventions`: frame intervention_sets."""
    rows = [
        {**_spec_row(member), "intervention": planned.id, "member": place, "member_id": member.id}
        for planned in interventions
        if isinstance(planned, InterventionSet)
        for place, member in enumerate(planned.members)
    ]
    kept = [name for name in SPEC_SCHEMA if name != "intervention"]
    schema = {"intervention": pl.String, "member": pl.Int32, "member_id": pl.String}
    return pl.DataFrame(rows, schema={**schema, **{name: SPEC_SCHEMA[name] for name in kept}})


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Placed:
    """An edit and its rows in a stack."""

    place: int  # index of the intervention
    edit: Edit
    rows: slice


Stack = list[_Placed]


def _check_kinds(
    interventions: Sequence[Planned], prompts: pl.DataFrame, editors: Mapping[str, Editor]
) -> None:
    by_kind: dict[str, list[Intervention]] = {}
    for planned in interventions:
        for one in members(planned):
            by_kind.setdefault(one.kind, []).append(one)
    for kind, ones in by_kind.items():
        if kind not in editors:
            raise InterventionError(
                f"{ones[0].id}: no editor for kind {kind!r} was given (given: {sorted(editors)})"
            )
        editors[kind].check(ones, prompts)


def _stacks(
    run: CleanRun,
    interventions: Sequence[Planned],
    editors: Mapping[str, Editor],
    batch_rows: int,
) -> Iterator[Stack]:
    """Edits of one first layer, together at most `batch_rows` rows."""
    waiting: dict[int, Stack] = {}
    for place, planned in enumerate(interventions):
        edit = _plan(planned, run, editors)
        if edit is None:
            continue
        stack = waiting.setdefault(edit.first_layer, [])
        used = stack[-1].rows.stop if stack else 0
        if stack and used + len(edit.members) > batch_rows:
            yield stack
            stack = waiting[edit.first_layer] = []
            used = 0
        stack.append(_Placed(place, edit, slice(used, used + len(edit.members))))
    yield from (stack for stack in waiting.values() if stack)


def _plan(planned: Planned, run: CleanRun, editors: Mapping[str, Editor]) -> Edit | None:
    if isinstance(planned, Intervention):
        return editors[planned.kind].plan(planned, run)
    edits = [editors[member.kind].plan(member, run) for member in planned.members]
    if any(edit is None for edit in edits):
        return None
    return _merge([edit for edit in edits if edit is not None])


def _merge(edits: Sequence[Edit]) -> Edit | None:
    """Edits made together, on the prompts that all of them apply to."""
    common = set(edits[0].members.tolist()).intersection(*(e.members.tolist() for e in edits[1:]))
    if not common:
        return None
    keeps = [
        torch.tensor([row for row, member in enumerate(e.members.tolist()) if member in common])
        for e in edits
    ]
    first = keeps[0].to(edits[0].members.device)
    pairs = list(zip(edits, keeps, strict=True))
    return Edit(
        members=edits[0].members[first],
        steps=tuple(
            step.select(keep.to(edit.members.device)) for edit, keep in pairs for step in edit.steps
        ),
        cosine=torch.stack([edit.cosine[keep] for edit, keep in pairs]).mean(dim=0),
        norm_ratio=torch.stack([edit.norm_ratio[keep] for edit, keep in pairs]).mean(dim=0),
    )


def _run_stack(
    model: LanguageModel, run: CleanRun, stack: Stack
) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits at END [row, d_vocab] and, by intervention, mean attention scores of its pairs."""
    start = stack[0].edit.first_layer
    index = torch.cat([placed.edit.members for placed in stack])
    live = LiveRun(run, index, start)
    edit_hooks: list[NamedHook] = []
    reads: set[tuple[str, int]] = set()
    for placed in stack:
        for step in placed.edit.steps:
            edit_hooks += step.hooks(placed.rows, live)
            reads.update(read for read in step.reads if read[0] == "scale" or read[1] >= start)

    scores: dict[int, Tensor] = {}
    hooks = [_reading_hook(what, layer, live) for what, layer in sorted(reads)] + edit_hooks
    for layer in sorted({p.edit.pairs.layer for p in stack if p.edit.pairs is not None}):
        hooks.append((f"blocks.{layer}.attn.hook_attn_scores", _score_hook(stack, layer, scores)))
    logits = model.processed.run_with_hooks(
        run.resid_pre[start][index],
        start_at_layer=start,
        fwd_hooks=[*hooks, ("unembed.hook_in", _last_position)],
    )
    return logits[:, -1], scores


def _reading_hook(what: str, layer: int, live: LiveRun) -> NamedHook:
    def read_z(z: Tensor, hook: Any) -> None:
        live.z_seen[layer] = z

    def read_scale(scale: Tensor, hook: Any) -> None:
        live.scale_seen[layer] = scale

    if what == "z":
        return f"blocks.{layer}.attn.hook_z", read_z
    return f"blocks.{layer}.ln1.hook_scale", read_scale


def _score_hook(stack: Stack, layer: int, scores: dict[int, Tensor]) -> Hook:
    def hook(attn_scores: Tensor, hook: Any) -> None:
        for placed in stack:
            pairs = placed.edit.pairs
            if pairs is not None and pairs.layer == layer:
                rows = attn_scores[placed.rows]
                scores[placed.place] = pairs.mean_scores(rows, len(placed.edit.members))

    return hook


def _last_position(residual: Tensor, hook: Any) -> Tensor:
    return residual[:, -1:]


class _Collected:
    """Values of all runs, column by column."""

    def __init__(self) -> None:
        self._columns: dict[str, list[np.ndarray]] = {}

    def add(
        self, run: CleanRun, stack: Stack, logits: Tensor, scores: Mapping[int, Tensor]
    ) -> None:
        group = run.group
        index = torch.cat([placed.edit.members for placed in stack])
        io, s = group.io[index], group.s[index]
        patched = logit_metrics(logits, run.logits[index], io, s)
        clean = logit_metrics(run.logits[index], run.logits[index], io, s)
        place = np.concatenate([[p.place] * len(p.edit.members) for p in stack])
        common = {
            "place": place,
            "prompt": np.asarray(group.prompt)[index.cpu().numpy()],
            "cosine": _numpy(torch.cat([p.edit.cosine for p in stack])),
            "norm_ratio": _numpy(torch.cat([p.edit.norm_ratio for p in stack])),
            "n_slices": np.concatenate([_slice_counts(p.edit) for p in stack]),
        }
        for number, name in enumerate(LOGIT_METRICS):
            self._append(common, number, _numpy(clean[name]), _numpy(patched[name]))
        for placed in stack:
            pairs, rows = placed.edit.pairs, placed.rows
            if pairs is None:
                continue
            before = pairs.mean_scores(
                run.attn_scores[pairs.layer][placed.edit.members], len(placed.edit.members)
            )
            self._append(
                {name: column[rows] for name, column in common.items()},
                len(LOGIT_METRICS),
                _numpy(before),
                _numpy(scores[placed.place]),
            )

    def _append(
        self, common: Mapping[str, np.ndarray], metric: int, clean: np.ndarray, patched: np.ndarray
    ) -> None:
        columns = {**common, "clean": clean, "patched": patched}
        columns["metric"] = np.full(len(clean), metric)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def frame(self, interventions: Sequence[Planned]) -> pl.DataFrame:
        """The frame intervention_results, ordered by intervention as given, metric, prompt."""
        if not self._columns:
            return pl.DataFrame(schema=RESULTS_SCHEMA)
        values = pl.DataFrame({name: np.concatenate(c) for name, c in self._columns.items()})
        names = pl.Series("metric", [*LOGIT_METRICS, "attn_score"])
        specs = spec_frame(interventions).with_row_index("place").cast({"place": pl.Int64})
        return (
            values.sort("place", "metric", "prompt")
            .cast({"place": pl.Int64})
            .join(specs, on="place", how="left", maintain_order="left")
            .with_columns(
                names.gather(values.sort("place", "metric", "prompt")["metric"]).alias("metric"),
                pl.col("n_slices").replace(-1, None),
                pl.lit(None, pl.Float64).alias("corrupt"),
                pl.lit(None, pl.Float64).alias("reference"),
            )
            .select(RESULTS_SCHEMA.keys())
            .cast(pl.Schema(RESULTS_SCHEMA))
        )


def _slice_counts(edit: Edit) -> np.ndarray:
    if edit.n_slices is None:
        return np.full(len(edit.members), -1)
    return _numpy(edit.n_slices)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _spec_row(planned: Planned) -> dict[str, object]:
    if isinstance(planned, InterventionSet):
        return {
            "intervention": planned.id,
            "kind": "set",
            "site": "set",
            "via_mlp": True,
            "is_control": all(member.is_control for member in planned.members),
        }
    given = planned.model_dump()
    row = {name: given[name] for name in SPEC_SCHEMA if name in given}
    return {
        **row,
        "intervention": planned.id,
        "site": planned.site,
        "position_role": planned.edited_role,
        "via_mlp": True,
    }
