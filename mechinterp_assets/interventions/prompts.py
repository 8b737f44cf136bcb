"""Prompts as interventions need them: ids, answers and role positions, in groups of equal length.

Belongs here: reading a frame of prompts (table ioi_prompts, or the common form of
prompts/common.py), finding each prompt's counterfactual and donor. Does not belong here: making
prompts and running them.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.ablation.cells import Cell, prompt_cells
from mechinterp_assets.interventions.terms import EVERYWHERE, Draw, InterventionError
from mechinterp_assets.model.shape import ModelShape
from mechinterp_assets.prompts.common import IOI, TASK_PROMPTS_SCHEMA, from_ioi
from mechinterp_assets.prompts.ioi import ROLE_PRECEDENCE

ROLE_COLUMNS: dict[str, str] = dict(ROLE_PRECEDENCE)
IOI_NEEDED = ("prompt", "token_ids", "n_tokens", "pos_end", "io_token_id", "s_token_id")
NEEDED = ("task", "prompt", "token_ids", "n_tokens", "roles", "positions", "answer_token_ids")
END = "END"

Source = str | Draw | None


@dataclass(frozen=True)
class PromptGroup:
    """Prompts of equal length, on the model's device.

    prompt [row]; token_ids [row, position], the last position is END; answers, wrong: token ids of
    each row; positions: role -> [row], -1 where a prompt lacks the role.
    """

    frame: pl.DataFrame
    prompt: tuple[int, ...]
    token_ids: Tensor
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    positions: dict[str, Tensor]


CONJUNCTION = "and_"
"""What names of variants begin with that replace the word between the names."""


def with_one_conjunction(group: PromptGroup) -> Tensor:
    """Rows of base prompts in which the word between the names stands nowhere else.

    Of templates with a second one ("and {subject} threw") a variant that replaces the first keeps
    another "and" right before S2, so that it does not show what the word does. All rows where
    prompts have no such role.
    """
    at = group.positions.get("AND")
    if at is None or bool((at < 0).all()):
        return torch.arange(len(group.prompt))
    word = group.token_ids.gather(1, at.clamp(min=0)[:, None])
    once = (group.token_ids == word).sum(1) == 1
    return (once | (at < 0)).nonzero()[:, 0].cpu()


# ---- reading prompts -----------------------------------------------------------------------------


def common_form(prompts: pl.DataFrame) -> pl.DataFrame:
    """Rows of ioi_prompts, or task prompts as they are, in the common form.

    Columns that ioi_prompts has and the frame lacks are filled: pair_id by prompt, variant "base",
    template by NULL. Raises InterventionError where columns are missing or several tasks are mixed.
    """
    if "pos_end" in prompts.columns:
        _require(prompts, IOI_NEEDED, "give rows of ioi_prompts")
        defaults = {
            "pair_id": pl.col("prompt"),
            "variant": pl.lit("base"),
        }
        given = prompts.with_columns(
            value.alias(name) for name, value in defaults.items() if name not in prompts.columns
        )
        return from_ioi(given)
    _require(prompts, NEEDED, "give rows of task_prompts or of ioi_prompts")
    if prompts["task"].n_unique() > 1:
        raise InterventionError(
            f"prompts of several tasks ({sorted(prompts['task'].unique())}) are mixed; run one "
            "task at a time"
        )
    defaults = {
        "pair_id": pl.col("prompt"),
        "template": pl.lit(None, pl.Int32),
        "variant": pl.lit("base"),
        "text": pl.lit(None, pl.String),
        "wrong_token_ids": pl.lit([], pl.List(pl.Int32)),
    }
    filled = prompts.with_columns(
        value.alias(name) for name, value in defaults.items() if name not in prompts.columns
    )
    return filled.select(*TASK_PROMPTS_SCHEMA).cast(pl.Schema(TASK_PROMPTS_SCHEMA))


def variants_of(prompts: pl.DataFrame) -> pl.Series:
    """Variant of every prompt, as in the common form, which takes longer to make."""
    if "variant" in prompts.columns:
        return prompts["variant"]
    return pl.repeat("base", prompts.height, eager=True)


def check_prompts(prompts: pl.DataFrame, shape: ModelShape) -> None:
    """Raises InterventionError for prompts that cannot be run, before anything is."""
    if "pos_end" in prompts.columns:
        _require(prompts, IOI_NEEDED, "give rows of ioi_prompts")
    else:
        _require(prompts, NEEDED, "give rows of task_prompts or of ioi_prompts")
    if prompts.is_empty():
        raise InterventionError("there are no prompts; give at least one row of ioi_prompts")
    form = common_form(prompts)
    if form["prompt"].n_unique() < form.height:
        raise InterventionError("prompt ids occur more than once; give one row per prompt")
    longest = int(form["n_tokens"].to_numpy().max())
    if longest > shape.n_ctx:
        raise InterventionError(
            f"a prompt has {longest} tokens but the context is {shape.n_ctx}; leave it out"
        )
    for prompt, ids, n, roles, positions, answers in form.select(
        "prompt", "token_ids", "n_tokens", "roles", "positions", "answer_token_ids"
    ).iter_rows():
        end = dict(zip(roles, positions, strict=True)).get(END)
        if end != n - 1 or len(ids) != n:
            raise InterventionError(
                f"prompt {prompt}: END is not its last token; cut prompts after END"
            )
        if (highest := max(*ids, *answers)) >= shape.d_vocab:
            raise InterventionError(
                f"prompt {prompt} has token id {highest} but the model has {shape.d_vocab} tokens; "
                "make the prompts with this model's tokenizer"
            )


def absent_roles(prompts: pl.DataFrame) -> dict[str, list[int]]:
    """Role -> ids of the prompts that lack it, for all roles that some prompt has."""
    form = common_form(prompts)
    have = {prompt: set(roles) for prompt, roles in form.select("prompt", "roles").iter_rows()}
    known = dict.fromkeys(role for roles in form["roles"] for role in roles)
    if "pos_end" in prompts.columns:  # a role of IOI that no prompt has is a known role
        known |= dict.fromkeys(r for r, c in ROLE_COLUMNS.items() if c in prompts.columns)
    return {role: [p for p, roles in have.items() if role not in roles] for role in known}


def cells(prompts: pl.DataFrame) -> list[Cell]:
    """Cell of every prompt, in either form. Raises InterventionError without a template."""
    if "template" not in prompts.columns:
        raise InterventionError(
            "prompts lack the columns ['template'], by which reference prompts are found; give "
            "rows of ioi_prompts or of task_prompts"
        )
    return prompt_cells(common_form(prompts))


# ---- counterfactuals and donors ------------------------------------------------------------------


def counterparts(
    prompts: pl.DataFrame,
    pool: pl.DataFrame | None,
    variant: str,
    roles: Mapping[str, Collection[str]],
) -> pl.DataFrame:
    """The prompt of `variant` with the pair_id of each of `prompts`, in their order, common form.

    pool: prompts of any variants; roles: role ("all" too) -> ids of the interventions that patch
    there. Raises InterventionError for an unknown variant, a pair without it, a counterpart that
    lacks a role, and lengths that differ where every position is patched.
    """
    form = common_form(prompts)
    asked = sorted({owner for owners in roles.values() for owner in owners})
    known = [] if pool is None else sorted(variants_of(pool).unique())
    if pool is None or variant not in known:
        raise InterventionError(
            f"{asked[0]}: there are no prompts of variant {variant!r}; given: {known or 'none'}; "
            "add it to the variants of the prompts"
        )
    theirs = common_form(pool.filter(variants_of(pool) == variant))
    row_of = {pair: row for row, pair in enumerate(theirs["pair_id"])}
    lacking = [pair for pair in form["pair_id"] if pair not in row_of]
    if lacking:
        raise InterventionError(
            f"{asked[0]}: {len(lacking)} prompts have no {variant} prompt of their pair (pair "
            f"{lacking[0]}, for one); make the variants of these very prompts"
        )
    chosen = theirs[[row_of[pair] for pair in form["pair_id"]]]
    roles_of = list(chosen.select("prompt", "roles").iter_rows())
    for role, owners in roles.items():
        owner = sorted(owners)[0]
        if role in EVERYWHERE:
            for prompt, n, other in zip(
                form["prompt"], form["n_tokens"], chosen["n_tokens"], strict=True
            ):
                if n != other:
                    raise InterventionError(
                        f"{owner}: prompt {prompt} has {n} tokens and its {variant} prompt "
                        f"{other}, so that positions do not correspond; name a position_role"
                    )
        elif absent := [p for p, has in roles_of if role not in has]:
            raise InterventionError(
                f"{owner}: {len(absent)} prompts of variant {variant} have no {role} (prompt "
                f"{absent[0]}, for one); leave these pairs out or choose another role"
            )
    return chosen


def donors(prompts: pl.DataFrame, pool: pl.DataFrame | None, seed: int) -> pl.DataFrame:
    """Another prompt of the same cell for each of `prompts`, drawn with `seed`, common form.

    pool: the reference prompts (ABC, for IOI), or the prompts themselves if None. The draw of a
    prompt depends on the seed, the prompt and its cell's pool alone. Raises InterventionError for a
    prompt whose cell has no other prompt.
    """
    form, theirs = common_form(prompts), common_form(prompts if pool is None else pool)
    by_cell: dict[Cell, list[int]] = {}
    for row, cell in enumerate(cells(theirs)):
        by_cell.setdefault(cell, []).append(row)
    texts = theirs["token_ids"].to_list()
    chosen = []
    for prompt, ids, cell in zip(form["prompt"], form["token_ids"], cells(form), strict=True):
        own = ids.to_list()
        others = [row for row in by_cell.get(cell, ()) if texts[row] != own]
        if not others:
            raise InterventionError(
                f"resample: prompt {prompt} has no other prompt of the same template and role "
                "positions to take activations from; give reference prompts (the ABC variant of "
                "these very prompts) and mode resample_counterfactual, or more prompts"
            )
        chosen.append(random.Random(f"resample/{seed}/{prompt}").choice(others))
    return theirs[chosen]


# ---- groups --------------------------------------------------------------------------------------


def prompt_groups(
    prompts: pl.DataFrame, *, max_prompts: int, device: torch.device
) -> Iterator[PromptGroup]:
    """Groups of equal length and at most `max_prompts` rows, shortest first."""
    for groups in aligned_groups({None: prompts}, max_prompts=max_prompts, device=device):
        yield groups[None]


def aligned_groups(
    prompts: Mapping[Source, pl.DataFrame], *, max_prompts: int, device: torch.device
) -> Iterator[dict[Source, PromptGroup]]:
    """Groups of prompts and what belongs to each, row by row, such as its counterfactuals.

    prompts: key -> frame, all of the same height. Within a group all prompts of a key are equally
    long.
    """
    forms = {key: common_form(frame) for key, frame in prompts.items()}
    lengths = list(zip(*(form["n_tokens"].to_list() for form in forms.values()), strict=True))
    by_length: dict[tuple[int, ...], list[int]] = {}
    for row, own in enumerate(lengths):
        by_length.setdefault(own, []).append(row)
    for _, rows in sorted(by_length.items()):
        for start in range(0, len(rows), max_prompts):
            chosen = rows[start : start + max_prompts]
            yield {key: _group(form[chosen], device) for key, form in forms.items()}


def _group(frame: pl.DataFrame, device: torch.device) -> PromptGroup:
    known = dict.fromkeys(role for roles in frame["roles"] for role in roles)
    placed = [
        dict(zip(roles, positions, strict=True))
        for roles, positions in frame.select("roles", "positions").iter_rows()
    ]
    ids = np.stack([np.asarray(own, dtype=np.int64) for own in frame["token_ids"]])
    return PromptGroup(
        frame=frame,
        prompt=tuple(frame["prompt"].to_list()),
        token_ids=torch.from_numpy(ids).to(device),
        answers=_id_tuples(frame["answer_token_ids"]),
        wrong=_id_tuples(frame["wrong_token_ids"]),
        positions={
            role: torch.tensor([own.get(role, -1) for own in placed], device=device)
            for role in known
        },
    )


def _id_tuples(column: pl.Series) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(ids or ()) for ids in column.to_list())


def _require(prompts: pl.DataFrame, names: Sequence[str], remedy: str) -> None:
    if missing := [name for name in names if name not in prompts.columns]:
        raise InterventionError(f"prompts lack the columns {missing}; {remedy}")


__all__ = [
    "IOI",
    "ROLE_COLUMNS",
    "PromptGroup",
    "absent_roles",
    "aligned_groups",
    "cells",
    "check_prompts",
    "common_form",
    "counterparts",
    "donors",
    "prompt_groups",
]
