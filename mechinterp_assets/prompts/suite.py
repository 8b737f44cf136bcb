"""The tasks that head ablation runs on, by name, and building them for one tokenizer.

Belongs here: the list of tasks of the platform, what a tokenizer cannot express, the user's own
tasks beside them. Does not belong here: their wording (a file each), prompt families that exist for
tracing (families.py). A new task is a file, a line in TASKS and one in settings.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, check_length
from mechinterp_assets.prompts.digit_copying import DIGIT_COPYING, digit_copying_prompts
from mechinterp_assets.prompts.induction import INDUCTION, induction_prompts
from mechinterp_assets.prompts.ioi import Encode, PromptError
from mechinterp_assets.prompts.successor_lists import SUCCESSOR_LISTS, successor_list_prompts
from mechinterp_assets.prompts.url_completion import URL_COMPLETION, url_completion_prompts
from mechinterp_assets.prompts.url_string import URL_STRING, url_string_prompts
from mechinterp_assets.prompts.user import Example, own_task


@dataclass(frozen=True)
class TaskTokenizer:
    """What a task may know of a model: its tokenizer and the length of its context.

    bos_token_id: what prompts begin with; None: text. token_strings: text of every token id;
    ordinary_ids: those that the tokenizer has and that stand for text.
    """

    encode: Encode
    bos_token_id: int | None
    token_strings: Sequence[str]
    ordinary_ids: Sequence[int]
    n_ctx: int


@dataclass(frozen=True)
class TaskSuite:
    """prompts: TASK_PROMPTS_SCHEMA of all tasks built. skipped: name -> why it was not."""

    prompts: pl.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)


Maker = Callable[[TaskTokenizer, int, int], pl.DataFrame]


def _worded(make: Callable[[Encode, int, int, int | None], pl.DataFrame]) -> Maker:
    return lambda tokenizer, n, seed: make(tokenizer.encode, n, seed, tokenizer.bos_token_id)


def _induction(tokenizer: TaskTokenizer, n: int, seed: int) -> pl.DataFrame:
    return induction_prompts(
        tokenizer.token_strings,
        n,
        seed,
        tokenizer.bos_token_id,
        ordinary_ids=tokenizer.ordinary_ids,
    )


TASKS: Mapping[str, Maker] = {
    DIGIT_COPYING: _worded(digit_copying_prompts),
    URL_COMPLETION: _worded(url_completion_prompts),
    URL_STRING: _worded(url_string_prompts),
    SUCCESSOR_LISTS: _worded(successor_list_prompts),
    INDUCTION: _induction,
}


def task_suite(
    names: Sequence[str] | None,
    own: Mapping[str, Sequence[Example]],
    tokenizer: TaskTokenizer,
    n: int,
    seed: int,
) -> TaskSuite:
    """`n` pairs of prompts of each named task, and the user's own tasks as they are.

    names: of TASKS; None for all. A task that the tokenizer cannot express is skipped with the
    reason, one of the user's own too. A task's rows depend on its own name, `n` and the seed alone.
    Raises PromptError for an unknown name.
    """
    if unknown := [name for name in names or () if name not in TASKS]:
        raise PromptError(f"unknown tasks {unknown}; known: {list(TASKS)}")
    if taken := [name for name in own if name in TASKS]:
        raise PromptError(f"task {taken[0]} is one of the platform's; give your own another name")
    frames, skipped = [pl.DataFrame(schema=TASK_PROMPTS_SCHEMA)], {}
    for name in TASKS if names is None else names:
        try:
            prompts = TASKS[name](tokenizer, n, seed)
            frames.append(check_length(name, prompts, tokenizer.n_ctx))
        except PromptError as error:
            skipped[name] = str(error)
    for name, examples in own.items():
        try:
            frames.append(
                own_task(name, examples, tokenizer.encode, tokenizer.bos_token_id, tokenizer.n_ctx)
            )
        except PromptError as error:
            skipped[name] = str(error)
    return TaskSuite(pl.concat(frames), skipped)
