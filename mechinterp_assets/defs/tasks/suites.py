"""All tasks of a study beside IOI: families, the platform's further tasks, the user's own.

Belongs here: turning study settings into what the prompts package is given. Does not belong here:
assets (task_prompts.py, task_effects.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.orchestration.run import Run

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Sequence

    from mechinterp_assets.circuits.settings import IoiSettings
    from mechinterp_assets.prompts.settings import OwnTaskSettings, TaskSettings
    from mechinterp_assets.prompts.suite import TaskSuite
    from mechinterp_assets.prompts.user import Example

IOI_SETTINGS = (
    *("ioi.prompts", "ioi.seed", "ioi.variants", "ioi.held_out_pairs"),
    *("ioi.chat_template", "ioi.chat_request"),
)
"""What the prompts of `study_ioi` depend on."""


def study_ioi(run: Run) -> tuple[pl.DataFrame, str | None]:
    """IOI prompts of a study; none of them and the reason where its model cannot express them."""
    from mechinterp_assets.corpora.name_moving import is_held_out_pair
    from mechinterp_assets.prompts.common import check_length
    from mechinterp_assets.prompts.ioi import IOI_SCHEMA, PromptError, ioi_prompts

    ioi, model = run.study.ioi, run.model
    try:
        prompts = ioi_prompts(
            model.encode,
            ioi.prompts,
            ioi.seed,
            model.first_token_id,
            ioi.variants,
            allowed_pair=is_held_out_pair if ioi.held_out_pairs else None,
        )
        return check_length("ioi", _in_chat(run, prompts, ioi), model.config.n_ctx), None
    except PromptError as error:
        return pl.DataFrame(schema=IOI_SCHEMA), str(error)


def study_suite(run: Run) -> TaskSuite:
    """Prompts of every task of a study but IOI, and why tasks were left out.

    Raises PromptError for files of own tasks that cannot be read.
    """
    from mechinterp_assets.prompts.families import family_prompts
    from mechinterp_assets.prompts.ioi import PromptError
    from mechinterp_assets.prompts.suite import TaskSuite, TaskTokenizer, task_suite

    settings, model = run.study.tasks, run.model
    families = family_prompts(
        None if settings.families == "auto" else settings.families,
        model.encode,
        settings.prompts,
        settings.seed,
        model.first_token_id,
        n_ctx=model.config.n_ctx,
    )
    tokenizer = TaskTokenizer(
        encode=model.encode,
        bos_token_id=model.first_token_id,
        token_strings=model.token_strings(),
        ordinary_ids=model.ordinary_ids,
        n_ctx=model.config.n_ctx,
    )
    suite = task_suite(
        None if settings.names == "auto" else settings.names,
        {task.name: _examples(run, task) for task in settings.own},
        tokenizer,
        settings.prompts,
        settings.seed,
    )
    prompts = pl.concat([families.prompts, suite.prompts])
    skipped = {**families.skipped, **suite.skipped}
    if (reason := _unknown_strings(run, prompts)) is not None:
        skipped |= reason
        prompts = prompts.filter(~pl.col("task").is_in(list(reason)))
    try:
        prompts = _in_chat(run, prompts, settings)
    except PromptError as error:
        skipped |= dict.fromkeys(prompts["task"].unique(maintain_order=True), str(error))
        prompts = prompts.clear()
    return TaskSuite(prompts, skipped)


def _unknown_strings(run: Run, prompts: pl.DataFrame) -> dict[str, str] | None:
    """Why URL strings are left out, for a model that does not know them."""
    from mechinterp_assets.prompts.url_string import URL_STRING, unknown_form
    from mechinterp_assets.tasks.baseline import task_baseline

    own = prompts.filter(task=URL_STRING)
    if own.is_empty():
        return None
    losses = task_baseline(run.model, own).join(own.select("prompt", "pair_id"), on="prompt")
    reason = unknown_form(losses, run.study.tasks.seed)
    return None if reason is None else {URL_STRING: reason}


def _in_chat(run: Run, prompts: pl.DataFrame, asked: IoiSettings | TaskSettings) -> pl.DataFrame:
    """Prompts in a chat where that is asked for. Raises PromptError as prompts/chat.py does."""
    from mechinterp_assets.prompts.chat import chat_turn, in_chat

    if not asked.chat_template or prompts.is_empty():
        return prompts
    model = run.model
    turn = chat_turn(model.tokenizer, asked.chat_request, model.first_token_id)
    return in_chat(prompts, turn, model.encode, model.first_token_id, model.config.n_ctx)


def _examples(run: Run, task: OwnTaskSettings) -> Sequence[Example]:
    from mechinterp_assets.prompts.user import Example, read_examples

    if task.path is None:
        return [Example(p.text, p.answer, p.wrong_answers) for p in task.prompts]
    return read_examples(task.path)
