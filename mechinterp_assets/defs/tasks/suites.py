"""All tasks of a study beside IOI: families, the platform's further tasks, the user's own.

Belongs here: turning study settings into what the tasks package is given. Does not belong here:
assets (tasks.py, task_effects.py).
"""

import hashlib
from collections.abc import Sequence

import polars as pl

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.publishing import Inputs
from mechinterp_assets.prompts.families import family_prompts
from mechinterp_assets.prompts.suite import TaskSuite, TaskTokenizer, task_suite
from mechinterp_assets.prompts.user import Example, read_examples
from mechinterp_assets.studies.sections import OwnTaskSection
from mechinterp_assets.studies.study import Study


def study_suite(study: Study, model: LanguageModel, inputs: Inputs) -> TaskSuite:
    """Prompts of every task of a study but IOI, and why tasks were left out.

    Files of the user's tasks are recorded in `inputs`. Raises PromptError as family_prompts,
    task_suite and read_examples do.
    """
    settings = study.tasks
    families = family_prompts(
        None if settings.families == "auto" else settings.families,
        model.encode,
        settings.prompts,
        settings.seed,
        model.bos_token_id,
    )
    tokenizer = TaskTokenizer(
        encode=model.encode,
        bos_token_id=model.bos_token_id,
        token_strings=model.token_strings(),
        special_ids=frozenset(model.tokenizer.all_special_ids),
        n_ctx=model.config.n_ctx,
    )
    suite = task_suite(
        None if settings.names == "auto" else settings.names,
        {task.name: _examples(task, inputs) for task in settings.own},
        tokenizer,
        settings.prompts,
        settings.seed,
    )
    return TaskSuite(
        pl.concat([families.prompts, suite.prompts]), {**families.skipped, **suite.skipped}
    )


def _examples(task: OwnTaskSection, inputs: Inputs) -> Sequence[Example]:
    if task.path is None:
        return [Example(p.text, p.answer, p.wrong_answers) for p in task.prompts]
    digest = hashlib.sha256(task.path.read_bytes()).hexdigest()[:16]
    inputs.versions[f"prompts:{task.path.name}"] = digest
    return read_examples(task.path)
