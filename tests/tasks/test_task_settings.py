"""What a study file may say about tasks, and the errors of wrong ones."""

from pathlib import Path

import pytest

from mechinterp_assets.studies.study import StudyError
from mechinterp_assets.studies.study_file import load_study

STUDY = """
study: mine
description: a study
model: {embedded: organism}
corpus: {format: structured, documents: 10, context_size: 64}
sae: {d_sae: 64, k: 4, training_tokens: 10000}
"""


def test_own_tasks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,answer\nA, b\n")
    study = load_study(_file(tmp_path, "tasks: {own: [{name: mine, path: a.csv}]}\n"))
    assert study.tasks.own[0].path == tmp_path / "a.csv"
    assert study.tasks.to_ablate[-1] == "mine"


def _file(folder: Path, more: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(STUDY + more)
    return file


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("tasks: {own: [{name: mine}]}", "task 'mine': give exactly one of prompts and path"),
        (
            "tasks: {own: [{name: mine, path: gone.csv}]}",
            "tasks.own.0.path: {folder}/gone.csv does not exist; correct the path",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, anwser: b}]}]}",
            "tasks.own.0.prompts.0.anwser: unknown key (value 'b'); did you mean 'answer'?",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, answer: ''}]}]}",
            "tasks.own.0.prompts.0.answer: String should have at least 1 character",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, answer: b}, {text: A, answer: c}]}]}",
            "task 'mine': the text 'A' is there twice; remove it",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, answer: b, wrong: [c, b]}]}]}",
            "task 'mine': 'b' is both answer and wrong of 'A'; remove it from wrong",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, answer: b}, {text: B}]}]}",
            "task 'mine': 'B' has no answer while others have one; give it, or make a task of the "
            "texts without answers",
        ),
        (
            "tasks: {own: [{name: mine, prompts: [{text: A, wrong: c}]}]}",
            "task 'mine': 'A' has wrong answers and no answer; give it",
        ),
        (
            "tasks: {own: [{name: ioi, prompts: [{text: A, answer: b}]}]}",
            "own.0: the name 'ioi' is taken; choose another",
        ),
        ("tasks: {names: [digit_copyin]}", "tasks.names"),
        ("tasks: {families: [shapes]}", "tasks.families"),
        ("tasks: {families: [greater_than, greater_than]}", "name each task once"),
        ("tasks: {traced: []}", "name at least one task, such as ioi"),
        (
            "tasks: {families: [greater_than], traced: [colored_objects]}",
            "traced names 'colored_objects', which is no task of this study; known: ioi, greater",
        ),
        (
            "tasks: {roots: {greater_than: [[1, 0]]}}",
            "roots names 'greater_than'; give roots of tasks in traced, those of ioi in ioi.roots",
        ),
        (
            "tasks: {traced: [greater_than], roots: {greater_than: [[9, 0, YEAR]]}}",
            "tasks.roots.greater_than: layer 9 does not exist",
        ),
        ("ioi: {trace_rule: mixed}", "ioi.trace_rule"),
        (
            "task_effects: {tasks: [ioi, mine]}",
            "task_effects.tasks names 'mine', which is no task of this study; known: ioi, ",
        ),
        ("task_effects: {ablations: []}", "task_effects.ablations: name at least one"),
        ("task_effects: {top_shares: [0.1, 0.1]}", "task_effects.top_shares: name each once"),
        ("task_effects: {null_prompts: 4}", "task_effects.null_prompts"),
    ],
)
def test_mistakes(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(StudyError) as raised:
        load_study(_file(tmp_path, more + "\n"))
    assert message.replace("{folder}", str(tmp_path)) in str(raised.value)
