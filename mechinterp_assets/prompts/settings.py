"""The settings of prompts with answers beside IOI, the user's own among them.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mechinterp_assets.settings.section import Positive, Section

Family = Literal["greater_than", "gendered_pronoun", "colored_objects"]


TaskName = Literal["digit_copying", "url_completion", "successor_lists", "induction"]


TaskRoot = tuple[int, int] | tuple[int, int, str]


class OwnPrompt(Section):
    """A prompt of a user's task: `text`, and how it goes on.

    `answer` and `wrong` stand as they follow the text, with their leading space where a new word
    begins; the text then ends without one. Of an answer of several tokens the first is scored.
    A task whose prompts have no `answer` has no loss; its heads are measured by KL alone.
    """

    text: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)] | None = None
    wrong: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] = []

    @property
    def wrong_answers(self) -> tuple[str, ...]:
        """Wrong answers, none or several."""
        return (self.wrong,) if isinstance(self.wrong, str) else tuple(self.wrong)


class OwnTaskSection(Section):
    """A user's task: its name and exactly one of `prompts` and `path`.

    `path`: a CSV, Parquet or JSONL file with columns text and, if it likes, answer and wrong.
    Either all prompts have an answer or none has.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    prompts: list[OwnPrompt] = []
    path: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> "OwnTaskSection":
        if bool(self.prompts) == (self.path is not None):
            raise ValueError(f"task {self.name!r}: give exactly one of prompts and path")
        texts = [prompt.text for prompt in self.prompts]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"task {self.name!r}: the text {twice[0]!r} is there twice; remove it")
        without = [prompt.text for prompt in self.prompts if prompt.answer is None]
        if 0 < len(without) < len(self.prompts):
            raise ValueError(
                f"task {self.name!r}: {without[0]!r} has no answer while others have one; give it, "
                "or make a task of the texts without answers"
            )
        for prompt in self.prompts:
            if prompt.answer is None and prompt.wrong_answers:
                raise ValueError(
                    f"task {self.name!r}: {prompt.text!r} has wrong answers and no answer; give it"
                )
            if prompt.answer in prompt.wrong_answers:
                raise ValueError(
                    f"task {self.name!r}: {prompt.answer!r} is both answer and wrong of "
                    f"{prompt.text!r}; remove it from wrong"
                )
        return self


class TasksSection(Section):
    """Prompts with answers beside IOI, and the tasks whose circuit is traced (tasks/families.py).

    `families`: prompt families, each with `prompts` base prompts and as many corrupted ones; auto
    takes those that the model's tokenizer can express, a named one that it cannot is an error.
    `names`: further tasks of the platform (tasks/suite.py), by the same rule; `own`: the user's.
    `traced`: tasks that are traced, ioi among them where wanted. `roots`: task -> [layer, head] or
    [layer, head, role] that its trace starts from, at END -> role; without a role, the one that the
    head attends to most. Tasks left out start from the heads with the largest direct effect, at
    most ioi.max_roots. IOI's own are ioi.roots.
    """

    families: Literal["auto"] | list[Family] = "auto"
    names: Literal["auto"] | list[TaskName] = "auto"
    own: list[OwnTaskSection] = []
    prompts: Positive = 64
    seed: int = 0
    traced: list[str] = ["ioi"]
    roots: dict[str, list[TaskRoot]] = {}

    @field_validator("families", "names", "traced")
    @classmethod
    def _distinct_tasks(cls, names: Any, info: ValidationInfo) -> Any:
        if names != "auto" and len(set(names)) != len(names):
            raise ValueError("name each task once")
        if info.field_name == "traced" and not names:
            raise ValueError("name at least one task, such as ioi")
        return names

    @field_validator("own")
    @classmethod
    def _distinct_own_tasks(cls, own: list[OwnTaskSection]) -> list[OwnTaskSection]:
        taken = {"ioi", "random", *get_args(Family), *get_args(TaskName)}
        for number, task in enumerate(own):
            if task.name in taken:
                raise ValueError(f"own.{number}: the name {task.name!r} is taken; choose another")
            taken.add(task.name)
        return own

    @model_validator(mode="after")
    def _traced_tasks_exist(self) -> "TasksSection":
        known = ["ioi", *self.known]
        if unknown := [name for name in self.traced if name not in known]:
            raise ValueError(
                f"traced names {unknown[0]!r}, which is no task of this study; known: "
                f"{', '.join(known)}"
            )
        if foreign := [name for name in self.roots if name == "ioi" or name not in self.traced]:
            raise ValueError(
                f"roots names {foreign[0]!r}; give roots of tasks in traced, those of ioi in "
                "ioi.roots"
            )
        return self

    @property
    def known(self) -> list[str]:
        """Tasks in task_prompts; with auto, those that it may come to."""
        families = get_args(Family) if self.families == "auto" else self.families
        return [*families, *(name for name in self.to_ablate if name != "ioi")]

    @property
    def to_ablate(self) -> list[str]:
        """IOI, `names` and the user's own: tasks for head ablation; with auto, possible ones."""
        names = get_args(TaskName) if self.names == "auto" else self.names
        return ["ioi", *names, *(task.name for task in self.own)]
