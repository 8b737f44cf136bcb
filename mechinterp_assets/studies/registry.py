"""The registry: every study that can be used, and what is wrong with the others.

Belongs here: where study files are found, one name for one study, studies that name each other, and
that a wrong file hurts itself alone. Does not belong here: what a study file may say (study.py).

Study files lie in `mechinterp_assets/studies/` and in the folders named by the environment variable
MECHINTERP_STUDIES (separated like PATH; a file may be named too). Hidden files are passed over:
editors leave theirs.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mechinterp_assets.files.plain_text import printable, shortened
from mechinterp_assets.files.regular_file import FileError, read_text
from mechinterp_assets.files.yaml_reader import MAX_BYTES
from mechinterp_assets.studies.study import Study, StudyError
from mechinterp_assets.studies.study_file import load_study

PACKAGED_STUDIES = Path(__file__).parent
STUDIES_VARIABLE = "MECHINTERP_STUDIES"
MAX_LINES = 20
MAX_LINE = 600
_NAME_LINE = re.compile(r"^study:[ \t]*[\"']?([a-z0-9][a-z0-9_-]*)", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """A file, or a folder of MECHINTERP_STUDIES, that gives no study.

    `study`: the name that the file gives, or that of the file. `reasons`: what is wrong, a line
    each, without the file's name; all texts are printable.
    """

    file: str
    study: str
    reasons: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The reasons as lines that name the file."""
        return [f"{self.file}: {reason}" for reason in self.reasons]


@dataclass(frozen=True)
class Registry:
    """Studies by name, in the order of their files, and the files that give none."""

    studies: dict[str, Study]
    problems: list[Problem]

    def find(self, name: str) -> Study:
        """The study of that name. Raises StudyError: there is none, or its file has a problem."""
        if name in self.studies:
            return self.studies[name]
        for problem in self.problems:
            if problem.study == name:
                raise StudyError(
                    f"study {name!r}: its file {problem.file} has a problem: "
                    f"{'; '.join(problem.reasons)}"
                )
        raise StudyError(f"no study {name!r}; one of {', '.join(self.studies)}")


def load_registry(files: list[Path] | None = None) -> Registry:
    """All studies of `files`, by default of all places where study files lie.

    Never raises for what a file holds or is. Of two files with one name the first gives the study.
    """
    problems: list[Problem] = []
    if files is None:
        files, problems = study_files()
    studies: dict[str, Study] = {}
    for file in files:
        found = read_study(file)
        if isinstance(found, Study) and found.study in studies:
            taken = studies[found.study].file
            found = _problem(
                file,
                [f"study: the name {found.study!r} is taken by {taken}; rename one of them"],
                found.study,
            )
        if isinstance(found, Problem):
            problems.append(found)
        else:
            studies[found.study] = found
    _leave_out_lonely(studies, problems)
    return Registry(studies, problems)


def read_study(file: Path) -> Study | Problem:
    """The study of one file, or what is wrong with it, whatever reading it raises."""
    try:
        return load_study(file)
    except StudyError as error:
        return _problem(file, str(error).splitlines())
    except Exception as error:  # a validator may raise anything: no file may hide the others
        return _problem(file, [f"{type(error).__name__}: {error}"])


def study_files() -> tuple[list[Path], list[Problem]]:
    """Study files of the package and of the places in MECHINTERP_STUDIES, each once."""
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    named = os.environ.get(STUDIES_VARIABLE, "").split(os.pathsep)
    for place in [PACKAGED_STUDIES, *(Path(os.path.expanduser(name)) for name in named if name)]:
        try:
            for file in _yaml_files(place):
                found.setdefault(os.path.realpath(file), file)
        except FileNotFoundError:
            reason = f"does not exist; name a folder or a file in {STUDIES_VARIABLE}"
            problems.append(_problem(place, [reason], ""))
        except OSError as error:
            reason = f"not readable ({error.strerror}); correct that, or {STUDIES_VARIABLE}"
            problems.append(_problem(place, [reason], ""))
    return list(found.values()), problems


def declared_name(file: Path) -> str:
    """The name that a file gives its study, as far as it can be made out; else that of the file."""
    try:
        found = _NAME_LINE.search(read_text(file, "a YAML file", MAX_BYTES))
    except FileError:
        found = None
    return printable(file.stem) if found is None else found[1]


# ---- private -------------------------------------------------------------------------------------


def _yaml_files(place: Path) -> list[Path]:
    if not stat.S_ISDIR(place.stat().st_mode):
        return [place]
    names = sorted(os.listdir(place))
    return [place / name for name in names if name.endswith(".yaml") and name[0] != "."]


def _leave_out_lonely(studies: dict[str, Study], problems: list[Problem]) -> None:
    """Take out studies that compare with one that is not there, then those that named these."""
    while True:
        lonely: list[Problem] = []
        for study in studies.values():
            reasons = [
                f"comparisons.{number}.with: {_absence(comparison.with_study, studies, problems)}"
                for number, comparison in enumerate(study.comparisons)
                if comparison.with_study is not None and comparison.with_study not in studies
            ]
            if reasons:
                lonely.append(_problem(study.file, reasons, study.study))
        if not lonely:
            return
        for problem in lonely:
            del studies[problem.study]
        problems += lonely


def _absence(name: str, studies: Iterable[str], problems: Iterable[Problem]) -> str:
    for problem in problems:
        if problem.study == name:
            return f"study {name!r}: its file {problem.file} has a problem; correct that first"
    return f"no study {name!r}; one of {', '.join(studies)}"


def _problem(file: Path, lines: list[str], study: str | None = None) -> Problem:
    reasons = [_reason(file, line) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        reasons.append(f"and {len(lines) - MAX_LINES} more")
    return Problem(
        printable(str(file)), declared_name(file) if study is None else study, tuple(reasons)
    )


def _reason(file: Path, line: str) -> str:
    """A line of an error without the file's name."""
    rest = line.removeprefix(printable(str(file))).removeprefix(str(file))
    rest = re.sub(r"^:(\d+): ", r"line \1: ", rest).removeprefix(": ")
    return shortened(printable(rest), MAX_LINE)
