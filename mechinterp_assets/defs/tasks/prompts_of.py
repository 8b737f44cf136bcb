"""Prompts of any task, whichever table they are in.

Belongs here: reading prompts for assets, and tasks that have none in this study. Does not belong
here: making them (task_prompts.py).
"""

from collections.abc import Iterable

import polars as pl

from mechinterp_assets.orchestration.run import Run

NO_PROMPTS = (
    "task {task} has no prompts in this study: its model cannot express them "
    "(task_baseline.skipped says why)"
)
NO_IOI = NO_PROMPTS.format(task="ioi")


class NoPromptsError(Exception):
    """A task that this study has no prompts of, since its model cannot express them."""


def prompts_of(run: Run, task: str) -> pl.DataFrame:
    """Prompts of a task, all variants: rows of ioi_prompts, or of task_prompts.

    Raises NoPromptsError where there are none.
    """
    from mechinterp_assets.prompts.common import IOI

    if task == IOI:
        prompts = run.frame("ioi_prompts")
    else:
        prompts = run.table("task_prompts").filter(pl.col("task") == task).collect()
    if prompts.is_empty():
        raise NoPromptsError(NO_PROMPTS.format(task=task))
    return prompts


def base_prompts(run: Run, task: str) -> pl.DataFrame:
    """As `prompts_of`, base prompts alone."""
    from mechinterp_assets.prompts.common import BASE

    base = prompts_of(run, task).filter(pl.col("variant") == BASE)
    if base.is_empty():
        raise NoPromptsError(f"task {task} has no base prompts")
    return base


def prompts_of_tasks(run: Run, tasks: Iterable[str]) -> dict[str, pl.DataFrame]:
    """Prompts of those of the tasks that have some; the log says which have none."""
    found = {}
    for task in tasks:
        try:
            found[task] = prompts_of(run, task)
        except NoPromptsError as reason:
            run.log.warning(f"{task} is left out: {reason}")
    return found
