"""Cells of prompts: groups within which positions correspond.

Belongs here: what makes two prompts comparable position by position. Does not belong here: means
over cells (references.py), making prompts.
"""

from typing import NamedTuple

import polars as pl


class Cell(NamedTuple):
    """A task, a template, a length, and every role with its position.

    Within a cell all prompts have the same length and the same role at the same position. Name
    order is part of it: the roles IO and S1 stand where the names do.
    """

    task: str
    template: int | None
    n_tokens: int
    roles: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        roles = ", ".join(f"{role} at {position}" for role, position in self.roles)
        return f"task {self.task}, template {self.template}, {self.n_tokens} tokens, {roles}"


class TemplateCell(NamedTuple):
    """A task and a template, whatever the length: for activations at END alone."""

    task: str
    template: int | None


def prompt_cells(prompts: pl.DataFrame) -> list[Cell]:
    """Cell of each prompt; prompts in the common form of all tasks (prompts/common.py)."""
    columns = ("task", "template", "n_tokens", "roles", "positions")
    return [
        Cell(task, template, length, tuple(sorted(zip(roles, positions, strict=True))))
        for task, template, length, roles, positions in prompts.select(columns).iter_rows()
    ]


def template_cells(prompts: pl.DataFrame, task: str) -> list[TemplateCell]:
    """Task and template of each prompt."""
    return [TemplateCell(task, template) for template in prompts["template"].to_list()]
