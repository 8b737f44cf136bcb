"""Runs interventions over prompts and returns the tidy frame intervention_results.

Belongs here: which runs an intervention needs, stacking edits into forward passes, metrics of each
run. Does not belong here: what a kind of intervention changes (its own file) and summaries
(summary.py).

Weights: an intervention says which view it runs on (`view`); clean, corrupt and ablated values of
a row come from the same one. The probabilities of both views are those of the model. z is not the
same: with processed weights zero ablation of a head leaves b_V W_O, a part of b_O, in place.

How a run works: prompts are grouped by their length and that of their counterfactuals. Each group
has unedited runs, whose residual streams, keys and values are kept. Edits of one such run that
start at the same position are stacked along the batch dimension, up to `batch_rows` rows. One pass
computes that position and those behind it; each edit's rows enter it at the edit's first layer, so
that everything before the edit is shared. Only END is unembedded.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.interventions.edit_context import EditContext
from mechinterp_assets.interventions.frozen import logits_at_end
from mechinterp_assets.interventions.metrics import LOGIT_METRICS, logit_metrics
from mechinterp_assets.interventions.prompts import (
    PromptGroup,
    Source,
    absent_roles,
    aligned_groups,
    check_prompts,
    common_form,
    counterparts,
    donors,
)
from mechinterp_assets.interventions.runs import (
    KEPT,
    CleanRun,
    Edit,
    LiveRun,
    Progress,
    Runs,
    bridge_of,
    has_resid_mid,
    hook_name,
    watched_pairs,
)
from mechinterp_assets.interventions.sets import (
    InterventionSet,
    Planned,
    ablated_of,
    check_positions,
    corrupt_source,
    edited_source,
    members,
    reference_of_all,
    validate,
)
from mechinterp_assets.interventions.spec import Intervention, check_roles
from mechinterp_assets.interventions.terms import InterventionError, Weights, heads_text
from mechinterp_assets.model.hooks import Hook, NamedHook
from mechinterp_assets.model.kept_keys import before
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import run_entering
from mechinterp_assets.model.shape import ModelShape

logger = logging.getLogger(__name__)

SPEC_SCHEMA: dict[str, Any] = {
    "intervention": pl.String,
    "kind": pl.String,
    "mode": pl.String,
    "reference": pl.String,
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
    "occurrence": pl.String,
    "via_mlp": pl.Boolean,
    "error_kept": pl.Boolean,
    "is_control": pl.Boolean,
    "alpha": pl.Float64,
    "seed": pl.Int64,
    "weights": pl.String,
    "source_variant": pl.String,
    "senders": pl.String,
    "receivers": pl.String,
    "shared_with": pl.String,
    "receiver_role": pl.String,
    "direction": pl.String,
    "channel": pl.Int32,
    "ablated_run": pl.String,
    "watched": pl.String,
    "other_fields": pl.String,
}
VALUE_SCHEMA: dict[str, Any] = {
    "n_slices": pl.Int32,
    "metric": pl.String,
    "clean": pl.Float64,
    "corrupt": pl.Float64,
    "ablated": pl.Float64,
    "patched": pl.Float64,
    "cosine": pl.Float64,
    "norm_ratio": pl.Float64,
}
RESULTS_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "prompt": pl.Int64,
    **SPEC_SCHEMA,
    **VALUE_SCHEMA,
}
METRICS = (*LOGIT_METRICS, "attn_score")


@torch.no_grad()
def run_interventions(
    context: EditContext,
    prompts: pl.DataFrame,
    interventions: Sequence[Planned],
    *,
    counterfactuals: pl.DataFrame | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Run every intervention on every prompt it applies to: frame intervention_results.

    context: the model and what the interventions need beside prompts; its batch_rows bounds the
    rows of a forward pass and of an unedited run. prompts: rows of ioi_prompts, or task prompts of
    one task. counterfactuals: prompts of the variants that activations come from, found by pair_id.
    One row per prompt, intervention and metric (logit_diff, kl, loss, prob and, where a head is
    watched and for edges, attn_score). Raises InterventionError before any run.
    """
    model, batch_rows = context.model, context.batch_rows
    work, frames = _checked(context, prompts, interventions, counterfactuals)
    collected = _Collected(work, len(interventions), model.config, context.reference_variant)
    if not interventions:
        return collected.frame()
    done, total = 0, len(work) * prompts.height
    keep = _sites_to_keep(work)
    for groups in aligned_groups(frames, max_prompts=batch_rows, device=model.device):
        runs = Runs(model, groups, keep)
        for stack in _stacks(runs, work, context, collected):
            collected.add(runs, stack, *_run_stack(model, stack))
        done += len(work) * len(runs.group.prompt)
        if progress is not None:
            progress(done, total)
    return collected.frame()


@torch.no_grad()
def edited_logits(
    context: EditContext,
    prompts: pl.DataFrame,
    planned: Planned,
    *,
    counterfactuals: pl.DataFrame | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits at END of every prompt, unedited and with one intervention: two [prompt, d_vocab].

    Both from the weights that the intervention runs on; a denoising one is compared with the clean
    run as everywhere. A prompt that it does not apply to keeps its own. Arguments and errors as for
    `run_interventions`.
    """
    _, frames = _checked(context, prompts, [planned], counterfactuals)
    row_of = {prompt: row for row, prompt in enumerate(prompts["prompt"])}
    shape = (len(row_of), context.model.config.d_vocab)
    clean, edited = (torch.empty(shape, device=context.model.device) for _ in range(2))
    view = members(planned)[0].view
    for groups in aligned_groups(
        frames, max_prompts=context.batch_rows, device=context.model.device
    ):
        runs = Runs(context.model, groups, _sites_to_keep([planned]))
        rows = torch.tensor([row_of[prompt] for prompt in runs.group.prompt])
        clean[rows] = edited[rows] = runs.of(None, view).logits.to(clean)
        for stack in _stacks(runs, [planned], context):
            logits, _ = _run_stack(context.model, stack)
            index = torch.cat([placed.edit.members for placed in stack]).cpu()
            edited[rows[index]] = logits.to(edited)
    return clean, edited


def check_interventions(
    context: EditContext,
    prompts: pl.DataFrame,
    interventions: Sequence[Planned],
    *,
    counterfactuals: pl.DataFrame | None = None,
) -> None:
    """Raise InterventionError for what `run_interventions` would refuse; arguments as there."""
    _checked(context, prompts, interventions, counterfactuals)


def spec_frame(
    interventions: Sequence[Planned], shape: ModelShape, reference_variant: str | None = None
) -> pl.DataFrame:
    """One row per intervention: the columns that say what is done in a model of this shape.

    reference_variant: of the prompts that means and resampled activations come from.
    """
    rows = [_spec_row(planned, shape, reference_variant) for planned in interventions]
    return pl.DataFrame(rows, schema=SPEC_SCHEMA)


def intervention_sets(
    interventions: Sequence[Planned],
    shape: ModelShape,
    task: str = "ioi",
    reference_variant: str | None = None,
) -> pl.DataFrame:
    """Members of the sets among `interventions`: frame intervention_sets."""
    rows = [
        {
            **_spec_row(member, shape, reference_variant),
            "task": task,
            "intervention": planned.id,
            "member": place,
            "member_id": member.id,
        }
        for planned in interventions
        if isinstance(planned, InterventionSet)
        for place, member in enumerate(planned.members)
    ]
    kept = [name for name in SPEC_SCHEMA if name not in ("intervention", "watched")]
    schema = {
        "task": pl.String,
        "intervention": pl.String,
        "member": pl.Int32,
        "member_id": pl.String,
    }
    return pl.DataFrame(rows, schema={**schema, **{name: SPEC_SCHEMA[name] for name in kept}})


# ---- what is needed ------------------------------------------------------------------------------


def _checked(
    context: EditContext,
    prompts: pl.DataFrame,
    interventions: Sequence[Planned],
    counterfactuals: pl.DataFrame | None,
) -> tuple[list[Planned], dict[Source, pl.DataFrame]]:
    """Interventions with the runs they are normalised by, and the prompts that all of these need.

    Raises InterventionError for whatever cannot be run.
    """
    shape = context.model.config
    if context.batch_rows < 1:
        raise InterventionError(f"batch_rows is {context.batch_rows}; at least 1 row must fit")
    check_prompts(prompts, shape)
    validate(interventions, shape, absent_roles(prompts))
    check_positions(interventions, common_form(prompts), shape)
    work = _with_ablated(interventions)
    _check_kinds(work, prompts, context)
    frames = _frames_by_source(work, prompts, counterfactuals, context.reference_prompts)
    for frame in frames.values():
        check_prompts(frame, shape)
    return work, frames


def _with_ablated(interventions: Sequence[Planned]) -> list[Planned]:
    """The interventions and, behind them, the runs they are normalised by."""
    work = {planned.id: planned for planned in interventions}
    for planned in interventions:
        ablated = ablated_of(planned)
        if ablated is not None:
            work.setdefault(ablated.id, ablated)
    return list(work.values())


def _check_kinds(
    interventions: Sequence[Planned], prompts: pl.DataFrame, context: EditContext
) -> None:
    by_kind: dict[type[Intervention], list[Intervention]] = {}
    for planned in interventions:
        for one in members(planned):
            by_kind.setdefault(type(one), []).append(one)
            if one.edited_site == "resid_mid" and not has_resid_mid(context.model, one.view):
                raise InterventionError(
                    f"{one.id}: attention and MLP of {context.model.source} read the same residual "
                    "stream, so that nothing reads resid_mid; use attn_out or resid_post"
                )
    for kind, ones in by_kind.items():
        kind.check(ones, prompts, context)


def _frames_by_source(
    interventions: Sequence[Planned],
    prompts: pl.DataFrame,
    counterfactuals: pl.DataFrame | None,
    reference_prompts: pl.DataFrame | None,
) -> dict[Source, pl.DataFrame]:
    """The prompts (None) and what belongs to each of them, row by row."""
    roles: dict[str, dict[str, set[str]]] = {}
    frames: dict[Source, pl.DataFrame] = {None: common_form(prompts)}
    for planned in interventions:
        for one in members(planned):
            if one.source is not None:
                for role in one.exchanged_roles:
                    roles.setdefault(one.source, {}).setdefault(role, set()).add(one.id)
            if one.drawn is not None and one.drawn not in frames:
                pool = None if one.drawn.own else reference_prompts
                frames[one.drawn] = donors(prompts, pool, one.drawn.seed)
    for variant, owners in roles.items():
        frames[variant] = counterparts(prompts, counterfactuals, variant, owners)
    for planned in interventions:
        source = corrupt_source(planned)
        if source is not None and planned.watch is not None:
            watch = planned.watch
            check_roles(
                planned.id,
                (watch.destination_role, watch.source_role),
                absent_roles(frames[source]),
            )
    return frames


def _sites_to_keep(interventions: Sequence[Planned]) -> list[str]:
    """Activations that unedited runs keep beside the residual stream and z."""
    ones = [one for planned in interventions for one in members(planned)]
    keep = {*KEPT}
    if any(planned.watch is not None for planned in interventions):
        keep.add("attn_scores")
    for one in ones:
        keep.update(one.needs)
    return sorted(keep)


# ---- stacks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Placed:
    """An edit and its rows in a stack."""

    place: int  # index of the intervention
    edit: Edit
    rows: slice


Stack = list[_Placed]


def _stacks(
    runs: Runs,
    interventions: Sequence[Planned],
    context: EditContext,
    collected: "_Collected | None" = None,
) -> Iterator[Stack]:
    """Edits of one run and first position, together at most `batch_rows` rows.

    Rows of the clean run at which an edit changes nothing need no pass: they are collected as they
    are, where they are asked for.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, Edit]]] = {}
    for place, planned in enumerate(interventions):
        edit = _plan(planned, runs, context)
        if edit is not None:
            edit = _without_idle(place, edit, runs, collected)
        if edit is None:
            continue
        key = (id(edit.run), edit.first_position, _entry(edit, context.model.config.n_layers))
        edits = waiting.setdefault(key, [])
        if edits and sum(len(e.members) for _, e in (*edits, (place, edit))) > context.batch_rows:
            yield _stacked(edits)
            edits = waiting[key] = []
        edits.append((place, edit))
    yield from (_stacked(edits) for edits in waiting.values() if edits)


def _without_idle(
    place: int, edit: Edit, runs: Runs, collected: "_Collected | None"
) -> Edit | None:
    """The edit where it changes something; the other rows are collected, None where all are."""
    if edit.idle is None or edit.pairs is not None or edit.run is not runs.of(None, edit.run.view):
        return edit
    still = edit.idle.nonzero()[:, 0]
    if not len(still):
        return edit
    moving = (~edit.idle).nonzero()[:, 0]
    if collected is not None:
        collected.add_idle(runs, place, edit, still)
    return edit.of_rows(moving) if len(moving) else None


def _entry(edit: Edit, n_layers: int) -> int:
    """Which edits may share a pass: those of any layers where the model lets rows enter late."""
    behind_all = edit.first_layer == n_layers
    return -1 if edit.run.keys is not None and not behind_all else edit.first_layer


def _stacked(edits: Sequence[tuple[int, Edit]]) -> Stack:
    """Edits with their rows, in order of the layers at which they enter."""
    stack, used = [], 0
    for place, edit in sorted(edits, key=lambda placed: placed[1].first_layer):
        stack.append(_Placed(place, edit, slice(used, used + len(edit.members))))
        used += len(edit.members)
    return stack


def _plan(planned: Planned, runs: Runs, context: EditContext) -> Edit | None:
    if isinstance(planned, Intervention):
        edit = planned.plan(runs, context)
    else:
        edits = [member.plan(runs, context) for member in planned.members]
        if any(one is None for one in edits):
            return None
        edit = _merge([one for one in edits if one is not None])
    if edit is None or planned.watch is None:
        return edit
    return replace(edit, pairs=watched_pairs(planned.watch, edit.run.group, edit.members))


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
        run=edits[0].run,
        members=edits[0].members[first],
        steps=tuple(
            step.select(keep.to(edit.members.device)) for edit, keep in pairs for step in edit.steps
        ),
        cosine=torch.stack([edit.cosine[keep] for edit, keep in pairs]).mean(dim=0),
        norm_ratio=torch.stack([edit.norm_ratio[keep] for edit, keep in pairs]).mean(dim=0),
    )


def _run_stack(model: LanguageModel, stack: Stack) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits at END [row, d_vocab] and, by intervention, mean attention scores of its pairs."""
    run, first = stack[0].edit.run, stack[0].edit.first_position
    index = torch.cat([placed.edit.members for placed in stack])
    live = LiveRun(run, index, first)
    edit_hooks: list[NamedHook] = []
    reads: set[tuple[str, int]] = set()
    scores: dict[int, Tensor] = {}
    watched: dict[int, Stack] = {}
    for placed in stack:
        edit, start = placed.edit, placed.edit.first_layer
        for step in edit.steps:
            edit_hooks += step.hooks(placed.rows, live)
            reads.update(read for read in step.reads if read[0] == "scale" or read[1] >= start)
        if edit.pairs is not None and edit.pairs.layer >= start:
            watched.setdefault(edit.pairs.layer, []).append(placed)
        elif edit.pairs is not None:
            own = run.attn_scores[edit.pairs.layer][edit.members]
            scores[placed.place] = edit.pairs.mean_scores(own, len(edit.members))

    hooks = [_reading_hook(site, layer, live) for site, layer in sorted(reads)] + edit_hooks
    for layer, own_stack in sorted(watched.items()):
        hooks.append((hook_name("attn_scores", layer), _score_hook(own_stack, first, scores)))
    if stack[0].edit.first_layer == model.config.n_layers:
        return _unembedded(model, run, run.last[index, first:], hooks), scores
    entering = {
        layer: run.before(layer)[torch.cat([placed.edit.members for placed in own]), first:]
        for layer, own in groupby(stack, key=lambda placed: placed.edit.first_layer)
    }
    behind = before(run.keys, first, index)
    return run_entering(bridge_of(model, run.view), entering, hooks, behind=behind), scores


def _unembedded(
    model: LanguageModel, run: CleanRun, residual: Tensor, hooks: Sequence[NamedHook]
) -> Tensor:
    """Logits at END when only the residual stream behind the last layer is edited."""
    for _, hook in hooks:
        edited = hook(residual, None)
        residual = residual if edited is None else edited
    return logits_at_end(bridge_of(model, run.view), residual)


def _reading_hook(site: str, layer: int, live: LiveRun) -> NamedHook:
    def read(value: Tensor, hook: Any) -> None:
        live.seen[site, layer] = value

    return hook_name(site, layer), read


def _score_hook(stack: Stack, first: int, scores: dict[int, Tensor]) -> Hook:
    def hook(attn_scores: Tensor, hook: Any) -> None:
        for placed in stack:
            assert placed.edit.pairs is not None
            pairs, rows = placed.edit.pairs.behind(first), attn_scores[placed.rows]
            scores[placed.place] = pairs.mean_scores(rows, len(placed.edit.members))

    return hook


# ---- results -------------------------------------------------------------------------------------


class _Collected:
    """Values of all runs, column by column."""

    def __init__(
        self,
        interventions: Sequence[Planned],
        n_asked: int,
        shape: ModelShape,
        reference_variant: str | None,
    ) -> None:
        self._work = interventions
        self._shape = shape
        self._reference_variant = reference_variant
        self._n_asked = n_asked
        self._columns: dict[str, list[np.ndarray]] = {}
        self._task = "ioi"
        self._unedited: tuple[Runs | None, dict[Any, dict[str, Tensor]]] = (None, {})

    def add(self, runs: Runs, stack: Stack, logits: Tensor, scores: Mapping[int, Tensor]) -> None:
        """Values of one stack: clean and corrupt ones from the group's unedited runs."""
        group, view = runs.group, stack[0].edit.run.view
        self._task = str(group.frame["task"][0])
        index = torch.cat([placed.edit.members for placed in stack])
        rows = index.tolist()
        clean_run = runs.of(None, view)
        answers, wrong = ([ids[row] for row in rows] for ids in (group.answers, group.wrong))
        patched = logit_metrics(logits, clean_run.logits[index], answers, wrong)
        common = {
            "place": np.concatenate([[p.place] * len(p.edit.members) for p in stack]),
            "prompt": np.asarray(group.prompt)[index.cpu().numpy()],
            "cosine": _numpy(torch.cat([p.edit.cosine for p in stack])),
            "norm_ratio": _numpy(torch.cat([p.edit.norm_ratio for p in stack])),
            "n_slices": np.concatenate([_slice_counts(p.edit) for p in stack]),
        }
        clean = self._unedited_metrics(runs, None, view)
        sources = [corrupt_source(self._work[placed.place]) for placed in stack]
        corrupt = [
            None if source is None else self._unedited_metrics(runs, source, view)
            for source in sources
        ]
        for number, name in enumerate(LOGIT_METRICS):
            self._append(
                common,
                number,
                _numpy(clean[name][index.to(clean[name].device)]),
                np.concatenate(
                    [
                        np.full(len(placed.edit.members), np.nan)
                        if own is None
                        else _numpy(own[name][placed.edit.members.to(own[name].device)])
                        for placed, own in zip(stack, corrupt, strict=True)
                    ]
                ),
                _numpy(patched[name]),
            )
        for placed, source in zip(stack, sources, strict=True):
            pairs, own_rows = placed.edit.pairs, placed.rows
            if pairs is None:
                continue
            n = len(placed.edit.members)
            before = self._score(runs, placed, None)
            self._append(
                {name: column[own_rows] for name, column in common.items()},
                len(LOGIT_METRICS),
                _numpy(before),
                np.full(n, np.nan) if source is None else _numpy(self._score(runs, placed, source)),
                _numpy(scores[placed.place]),
            )

    def add_idle(self, runs: Runs, place: int, edit: Edit, rows: Tensor) -> None:
        """Values of the rows of an edit of the clean run at which it changes nothing."""
        view, index = edit.run.view, edit.members[rows]
        clean = self._unedited_metrics(runs, None, view)
        source = corrupt_source(self._work[place])
        corrupt = None if source is None else self._unedited_metrics(runs, source, view)
        n = len(index)
        common = {
            "place": np.full(n, place),
            "prompt": np.asarray(runs.group.prompt)[index.cpu().numpy()],
            "cosine": _numpy(edit.cosine[rows]),
            "norm_ratio": _numpy(edit.norm_ratio[rows]),
            "n_slices": _slice_counts(edit)[rows.cpu().numpy()],
        }
        for number, name in enumerate(LOGIT_METRICS):
            own = _numpy(clean[name][index.to(clean[name].device)])
            self._append(
                common,
                number,
                own,
                np.full(n, np.nan)
                if corrupt is None
                else _numpy(corrupt[name][index.to(corrupt[name].device)]),
                own,
            )

    def _unedited_metrics(self, runs: Runs, source: str | None, view: Weights) -> dict[str, Tensor]:
        """Metrics of an unedited run with the answers of the clean prompts [row of the group]."""
        if self._unedited[0] is not runs:
            self._unedited = (runs, {})
        known = self._unedited[1]
        if (source, view) not in known:
            known[source, view] = logit_metrics(
                runs.of(source, view).logits,
                runs.of(None, view).logits,
                runs.group.answers,
                runs.group.wrong,
            )
        return known[source, view]

    def _score(self, runs: Runs, placed: _Placed, source: str | None) -> Tensor:
        """Attention score of the edit's pairs in an unedited run."""
        run: CleanRun = runs.of(source, placed.edit.run.view)
        members_, pairs = placed.edit.members, placed.edit.pairs
        assert pairs is not None
        watch = self._work[placed.place].watch
        if watch is not None:
            group: PromptGroup = runs.groups[source]
            pairs = watched_pairs(watch, group, members_)
        return pairs.mean_scores(run.attn_scores[pairs.layer][members_], len(members_))

    def _append(
        self,
        common: Mapping[str, np.ndarray],
        metric: int,
        clean: np.ndarray,
        corrupt: np.ndarray,
        patched: np.ndarray,
    ) -> None:
        columns = {**common, "clean": clean, "corrupt": corrupt, "patched": patched}
        columns["metric"] = np.full(len(clean), metric)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def frame(self) -> pl.DataFrame:
        """The frame intervention_results, ordered by intervention as given, metric, prompt."""
        if not self._columns:
            return pl.DataFrame(schema=RESULTS_SCHEMA)
        values = pl.DataFrame({name: np.concatenate(c) for name, c in self._columns.items()})
        values = values.cast({"place": pl.Int64}).with_columns(
            pl.col("clean", "corrupt", "patched").fill_nan(None),
            pl.col("n_slices").replace(-1, None),
        )
        place_of = {planned.id: place for place, planned in enumerate(self._work)}
        ablations = pl.DataFrame(
            [
                {"place": place, "ablated_place": place_of[ablated.id]}
                for place, planned in enumerate(self._work)
                if (ablated := ablated_of(planned)) is not None
            ],
            schema={"place": pl.Int64, "ablated_place": pl.Int64},
        )
        by_ablation = values.select(
            pl.col("place").alias("ablated_place"),
            "prompt",
            "metric",
            pl.col("patched").alias("ablated"),
        )
        specs = (
            spec_frame(self._work, self._shape, self._reference_variant)
            .with_row_index("place")
            .cast({"place": pl.Int64})
        )
        names = pl.Series("metric", METRICS)
        ordered = (
            values.filter(pl.col("place") < self._n_asked)
            .join(ablations, on="place", how="left")
            .join(by_ablation, on=["ablated_place", "prompt", "metric"], how="left")
            .sort("place", "metric", "prompt")
        )
        return (
            ordered.join(specs, on="place", how="left", maintain_order="left")
            .with_columns(
                names.gather(ordered["metric"]).alias("metric"),
                pl.lit(self._task).alias("task"),
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


def _spec_row(
    planned: Planned, shape: ModelShape, reference_variant: str | None
) -> dict[str, object]:
    shared = {head for member in members(planned) for head in member.shared_with(shape)}
    ablated, reference = ablated_of(planned), reference_of_all(planned)
    taken_from = reference_variant if reference == "counterfactual_cell" else None
    common: dict[str, object] = {
        "intervention": planned.id,
        "shared_with": heads_text(sorted(shared)) if shared else None,
        "reference": reference,
        "ablated_run": None if ablated is None else ablated.id,
        "watched": None if planned.watch is None else str(planned.watch),
    }
    if isinstance(planned, InterventionSet):
        return {
            **common,
            "kind": "set",
            "site": "set",
            "via_mlp": True,
            "is_control": all(getattr(m, "is_control", False) for m in planned.members),
            "weights": planned.members[0].view,
            "source_variant": corrupt_source(planned) or edited_source(planned) or taken_from,
        }
    given = planned.model_dump()
    row = {name: given[name] for name in SPEC_SCHEMA if name in given}
    shown = {*SPEC_SCHEMA, *Intervention.model_fields, *planned.columns, "versus"}
    others = {name: value for name, value in given.items() if name not in shown}
    return {
        "via_mlp": True,
        "is_control": False,
        **row,
        **common,
        "site": planned.edited_site,
        "position_role": planned.edited_role,
        "weights": planned.view,
        "source_variant": planned.source or taken_from,
        "other_fields": json.dumps(others) if others else None,
        **planned.columns,
    }
