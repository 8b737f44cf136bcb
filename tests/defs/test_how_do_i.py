"""The answers of docs/how_do_i.md and docs/python.md work: SQL and Python on the tiny study,
commands as far as their arguments.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import mechinterp_assets as mi
from mechinterp_assets.app.cli import app
from mechinterp_assets.app.user_sql import run_query
from tests.conftest import ROOT
from tests.defs.conftest import Materialized

PAGE = (ROOT / "docs" / "how_do_i.md").read_text()
PYTHON_PAGE = (ROOT / "docs" / "python.md").read_text()
QUESTION = re.compile(r"^### (\d+)\. \.\.\. (.+\?)$", re.M)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_GROUP: Any = typer.main.get_command(app)
COMMANDS = _GROUP.commands


def answers(kind: str) -> list[tuple[str, str]]:
    """(number of the question, text) of every block of a kind."""
    found = []
    for part in re.split(r"^### ", PAGE, flags=re.M)[1:]:
        number = part.partition(".")[0]
        found += [(number, text) for word, text in BLOCK.findall(part) if word == kind]
    return found


def lines() -> list[str]:
    """Every command that the page names."""
    return [line for _, text in answers("sh") for line in text.strip().splitlines()]


def test_there_are_twenty_questions_and_each_is_answered() -> None:
    assert [int(number) for number, _ in QUESTION.findall(PAGE)] == list(range(1, 21))
    answered = {number for kind in ("sh", "sql", "python") for number, _ in answers(kind)}
    assert answered == {str(number) for number in range(1, 21)}
    assert {kind for kind, _ in BLOCK.findall(PAGE)} == {"sh", "sql", "python"}


@pytest.mark.parametrize(("number", "sql"), answers("sql"))
def test_sql_gives_rows(number: str, sql: str, tiny: Materialized) -> None:
    # The tiny study has an SAE of layer 2, as the page's examples.
    frame = run_query(tiny.lake, sql.replace("'organism'", "'tiny'"), "tiny")
    assert frame.height > 0, number


@pytest.mark.parametrize(("number", "code"), answers("python"))
def test_python_runs(
    number: str, code: str, tiny: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace('"organism"', '"tiny"'), f"question {number}", "exec"), {})


@pytest.mark.parametrize("line", lines())
def test_commands_take_these_arguments(line: str) -> None:
    words = shlex.split(line)
    name, *rest = words[1:] if words[0].startswith("MECHINTERP_") else words
    if name == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), line
        return
    assert name == "mechinterp"
    command, *arguments = rest
    # Parses and checks them, and runs nothing.
    COMMANDS[command].make_context(command, arguments)


def test_the_names_that_the_python_page_lists_exist(tiny: Materialized) -> None:
    study = mi.open("tiny", home=tiny.home)
    feature = study.feature(2, 12)
    things = {
        "OpenedStudy": study,
        "Tables": study.tables["head_scores"],
        "Feature": feature,
        "Head": study.head("L2H3"),
        "Origin": study.why("head_scores"),
    }
    listed = set()
    for row in re.findall(r"^\| (`.*?) \| (.*) \|$", PYTHON_PAGE, re.M):
        names = [name.partition("(")[0] for name in re.findall(r"`([^`]+)`", row[0])]
        listed |= set(names)
        if names[0] in things:
            for member in re.findall(r"`(\w+)", row[1]):
                if member not in ("why", "Table", "table"):
                    assert hasattr(things[names[0]], member), member
    assert listed & set(mi.__all__) == set(mi.__all__)


def test_the_first_block_of_the_python_page_runs(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    code = next(text for kind, text in BLOCK.findall(PYTHON_PAGE) if kind == "python")
    exec(compile(code.replace('"organism"', '"tiny"'), "docs/python.md", "exec"), {})
