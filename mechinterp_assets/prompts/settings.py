"""The section `tasks` of a study: prompts with answers beside IOI.

Belongs here: its keys, the names of families and tasks, and the checks that concern it alone. Does
not belong here: the prompts (a file each), what is done with them (tasks/, circuits/).
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mechinterp_assets.settings.section import (
    Index,
    LocalPath,
    Positive,
    Section,
    Text,
    repeated,
)

FamilyName = Literal["greater_than", "gendered_pronoun", "colored_objects"]
TaskName = Literal["digit_copying", "url_completion", "url_string", "successor_lists", "induction"]
TaskRoot = tuple[Index, Index] | tuple[Index, Index, str]


class OwnPrompt(Section):
    """A prompt of a user's task: `text`, and how it goes on.

    A task whose prompts have no `answer` has no loss; its heads are measured by KL alone.
    """

    text: Text
    """The prompt, without a space at its end."""
    answer: Text | None = None
    """As it follows the text, with its leading space where a new word begins. Of several tokens the
    first is scored."""
    wrong: Text | list[Text] = []
    """Wrong answers, one or several, written likewise."""

    @property
    def wrong_answers(self) -> tuple[str, ...]:
        """Wrong answers, none or several."""
        return (self.wrong,) if isinstance(self.wrong, str) else tuple(self.wrong)


class OwnTaskSettings(Section):
    """A user's task: its name and exactly one of `prompts` and `path`.

    Either all prompts have an answer or none has.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    """What tables call it: lower-case letters, digits and _."""
    prompts: list[OwnPrompt] = []
    """The prompts."""
    path: LocalPath | None = None
    """A CSV, Parquet or JSONL file with columns text and, if it likes, answer and wrong."""

    @model_validator(mode="after")
    def _usable(self) -> "OwnTaskSettings":
        if bool(self.prompts) == (self.path is not None):
            raise ValueError(f"task {self.name!r}: give exactly one of prompts and path")
        if (i := repeated(prompt.text for prompt in self.prompts)) is not None:
            raise ValueError(
                f"task {self.name!r}: the text {self.prompts[i].text!r} is there twice; remove it"
            )
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


class TaskSettings(Section):
    """Prompts with answers beside IOI, and the tasks whose circuit is traced.

    `families` and `names`: auto takes those that the model's tokenizer can express, a named one
    that it cannot is an error.
    """

    families: Literal["auto"] | list[FamilyName] = "auto"
    """Prompt families, each with `prompts` base prompts and as many corrupted ones."""
    names: Literal["auto"] | list[TaskName] = "auto"
    """Further tasks of the platform (prompts/suite.py)."""
    own: list[OwnTaskSettings] = []
    """The user's own tasks."""
    prompts: Positive = 64
    """Base prompts of each family and task."""
    seed: int = 0
    """Seed of the prompts."""
    chat_template: bool = False
    """true: prompts begin the assistant's turn of a chat, in the tokenizer's chat template."""
    chat_request: Text = "Continue the text."
    """What the user of that chat says before."""
    traced: list[str] = ["ioi"]
    """Tasks that are traced, ioi among them where wanted."""
    roots: dict[str, list[TaskRoot]] = {}
    """Task -> [layer, head] or [layer, head, role] that its trace starts from, at END -> role;
    without a role, the one that the head attends to most. Tasks left out start from the heads with
    the largest direct effect, at most ioi.max_roots. IOI's own are ioi.roots."""

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
    def _distinct_own_tasks(cls, own: list[OwnTaskSettings]) -> list[OwnTaskSettings]:
        taken = {"ioi", "random", *get_args(FamilyName), *get_args(TaskName)}
        for number, task in enumerate(own):
            if task.name in taken:
                raise ValueError(f"own.{number}: the name {task.name!r} is taken; choose another")
            taken.add(task.name)
        return own

    @model_validator(mode="after")
    def _traced_tasks_exist(self) -> "TaskSettings":
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
        families = get_args(FamilyName) if self.families == "auto" else self.families
        return [*families, *(name for name in self.to_ablate if name != "ioi")]

    @property
    def to_ablate(self) -> list[str]:
        """IOI, `names` and the user's own: tasks for head ablation; with auto, possible ones."""
        names = get_args(TaskName) if self.names == "auto" else self.names
        return ["ioi", *names, *(task.name for task in self.own)]
