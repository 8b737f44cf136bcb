"""Prompts as interventions need them: ids, answer tokens and role positions, in groups.

Belongs here: reading a frame of prompts (table ioi_prompts). Does not belong here: making prompts
(circuits/ioi.py) and running them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.ioi import ROLE_PRECEDENCE, equal_length_groups
from mechinterp_assets.interventions.spec import InterventionError
from mechinterp_assets.model_shape import ModelShape

ROLE_COLUMNS: dict[str, str] = dict(ROLE_PRECEDENCE)
NEEDED = ("prompt", "token_ids", "n_tokens", "pos_end", "io_token_id", "s_token_id")


@dataclass(frozen=True)
class PromptGroup:
    """Prompts of equal length, on the model's device.

    prompt, io, s [row]; token_ids [row, position], the last position is END; positions: role ->
    [row], -1 where a prompt lacks the role.
    """

    frame: pl.DataFrame
    prompt: tuple[int, ...]
    token_ids: Tensor
    io: Tensor
    s: Tensor
    positions: dict[str, Tensor]


def role_columns(prompts: pl.DataFrame) -> dict[str, str]:
    """Role -> position column, for the roles that these prompts have a column of."""
    return {role: column for role, column in ROLE_COLUMNS.items() if column in prompts.columns}


def absent_roles(prompts: pl.DataFrame) -> dict[str, list[int]]:
    """Role -> ids of the prompts that lack it."""
    return {
        role: prompts.filter(pl.col(column).is_null())["prompt"].to_list()
        for role, column in role_columns(prompts).items()
    }


def check_prompts(prompts: pl.DataFrame, shape: ModelShape) -> None:
    """Raises InterventionError for prompts that cannot be run, before anything is."""
    if missing := [name for name in NEEDED if name not in prompts.columns]:
        raise InterventionError(f"prompts lack the columns {missing}; give rows of ioi_prompts")
    if prompts.is_empty():
        raise InterventionError("there are no prompts; give at least one row of ioi_prompts")
    if prompts["prompt"].n_unique() < prompts.height:
        raise InterventionError("prompt ids occur more than once; give one row per prompt")
    longest = int(prompts["n_tokens"].to_numpy().max())
    if longest > shape.n_ctx:
        raise InterventionError(
            f"a prompt has {longest} tokens but the context is {shape.n_ctx}; leave it out"
        )
    odd = prompts.filter(
        (pl.col("pos_end") != pl.col("n_tokens") - 1)
        | (pl.col("token_ids").list.len() != pl.col("n_tokens"))
    )
    if odd.height:
        raise InterventionError(
            f"prompt {odd['prompt'][0]}: END is not its last token; cut prompts after END"
        )


def prompt_groups(
    prompts: pl.DataFrame, *, max_prompts: int, device: torch.device
) -> Iterator[PromptGroup]:
    """Groups of equal length and at most `max_prompts` rows, shortest first."""
    columns = role_columns(prompts)
    for frame, ids in equal_length_groups(prompts, max_prompts):
        yield PromptGroup(
            frame=frame,
            prompt=tuple(frame["prompt"].to_list()),
            token_ids=ids.to(device),
            io=_column(frame, "io_token_id", device),
            s=_column(frame, "s_token_id", device),
            positions={role: _column(frame, column, device) for role, column in columns.items()},
        )


def _column(frame: pl.DataFrame, name: str, device: torch.device) -> Tensor:
    return torch.tensor(frame[name].fill_null(-1).to_list(), dtype=torch.long, device=device)
