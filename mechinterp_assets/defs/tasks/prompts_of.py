"""Prompts of any task, whichever table they are in.

Belongs here: reading prompts for assets. Does not belong here: making them (task_prompts.py).
"""

import polars as pl

from mechinterp_assets.orchestration.run import Run
from mechinterp_assets.studies.study import StudyError


def prompts_of(run: Run, task: str, *, setting: str) -> pl.DataFrame:
    """Prompts of a task, all variants: rows of ioi_prompts, or of task_prompts.

    setting: the setting that names the task. Raises StudyError where there are none.
    """
    from mechinterp_assets.prompts.common import IOI

    if task == IOI:
        return run.frame("ioi_prompts")
    prompts = run.table("task_prompts").filter(pl.col("task") == task).collect()
    if prompts.is_empty():
        raise StudyError(
            f"{run.study.file}: {setting}: task {task!r} has no prompts in this study; its "
            "tokenizer may not be able to express them (the log of task_prompts says why): "
            "take it out, or name another task"
        )
    return prompts


def base_prompts(run: Run, task: str, *, setting: str) -> pl.DataFrame:
    """As `prompts_of`, base prompts alone."""
    from mechinterp_assets.prompts.common import BASE

    base = prompts_of(run, task, setting=setting).filter(pl.col("variant") == BASE)
    if base.is_empty():
        raise StudyError(f"{run.study.file}: {setting}: task {task!r} has no base prompts")
    return base
