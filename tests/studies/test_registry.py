"""The registry: a wrong file hurts itself alone, at every level."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mechinterp_assets.studies import registry as registry_module
from mechinterp_assets.studies.registry import Problem, load_registry, read_study, study_files
from mechinterp_assets.studies.study import StudyError
from tests.conftest import HANGS

GOOD: dict[str, Any] = {
    "study": "good",
    "description": "a test study",
    "model": {"embedded": "organism"},
    "corpus": {"format": "structured", "documents": 10},
    "activations": {"layers": [1]},
    "sae": {"d_sae": 64, "k": 8, "training_tokens": 1000, "batch_size": 100},
}


def write(folder: Path, name: str = "good", **changes: Any) -> Path:
    """A study file called after its study."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "study": name, **changes}))
    return file


def compared(*names: str) -> list[dict[str, str]]:
    return [{"with": name} for name in names]


def make_text(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "alias bomb": (
        make_text("a: &a [x]\n" + "".join(f"{c}: [{'*a,' * 9}]\n" for c in "bcdefgh")),
        "line 7: more than 50 aliases",
    ),
    "FIFO": (os.mkfifo, "not a file (a FIFO)"),
    "endless device": (lambda file: file.symlink_to("/dev/zero"), "not a file (a device)"),
    "no UTF-8": (lambda file: file.write_bytes(b"study: \xff"), "line 1: not UTF-8"),
    "deep": (make_text("[" * 100_000), "line 1: nested deeper than 50"),
    "key twice": (make_text("study: x\nstudy: y\n"), "line 2: key study is there twice"),
    "folder": (Path.mkdir, "not a file (a folder)"),
    "link to nothing": (lambda file: file.symlink_to("gone"), "link to nothing"),
    "empty": (make_text(""), "this file holds nothing"),
    "a list": (make_text("- 1\n"), "this file holds a list"),
    "no text keys": (make_text("1: 2\n~: 3\n"), "Keys should be strings"),
    "infinity": (
        make_text(yaml.safe_dump({**GOOD, "rdfa": {"min_share": float("inf")}})),
        "finite",
    ),
    "missing": (make_text("study: x\n"), "sae: required key is missing"),
    "NUL in a path": (
        make_text(yaml.safe_dump({**GOOD, "model": {"path": "a\0b"}})),
        "model.path: embedded null byte",
    ),
    "nobody's home": (
        make_text(yaml.safe_dump({**GOOD, "model": {"path": "~nobody-here/x"}})),
        "model.path: there is no home folder of that user",
    ),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_a_wrong_file_is_a_problem_and_the_others_stay(tmp_path: Path, what: str) -> None:
    make, expected = WRONG[what]
    bad = tmp_path / "bad.yaml"
    make(bad)
    registry = load_registry([write(tmp_path, "first"), bad, write(tmp_path, "last")])
    assert list(registry.studies) == ["first", "last"]
    (problem,) = registry.problems
    assert problem.file == str(bad)
    assert any(expected in reason for reason in problem.reasons)
    assert all(line.startswith(f"{bad}: ") and line.isprintable() for line in problem.lines)


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), OSError(5, "no disk"), KeyError("x")]
)
def test_whatever_reading_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raising(file: Path) -> None:
        raise error

    monkeypatch.setattr(registry_module, "load_study", raising)
    found = read_study(write(tmp_path))
    assert isinstance(found, Problem)
    assert found.reasons == (f"{type(error).__name__}: {error}",)


def test_long_and_many_reasons_are_cut(tmp_path: Path) -> None:
    changes = {f"key{i}": "x" * 100_000 for i in range(9)}
    (problem,) = load_registry([write(tmp_path, **changes)]).problems
    assert len(problem.reasons) == 9
    assert all("unknown key" in reason and len(reason) <= 600 for reason in problem.reasons)
    (problem,) = load_registry([write(tmp_path, **{f"key{i}": 1 for i in range(99)})]).problems
    assert len(problem.reasons) == 21
    assert problem.reasons[-1] == "and 79 more"


def test_of_two_files_with_one_name_the_first_stays(tmp_path: Path) -> None:
    first, second = write(tmp_path), tmp_path / "other.yaml"
    second.write_text(first.read_text())
    registry = load_registry([first, second])
    assert registry.studies["good"].file == first
    (problem,) = registry.problems
    assert problem.lines == [
        f"{second}: study: the name 'good' is taken by {first}; rename one of them"
    ]


def test_who_compares_with_what_is_not_there_is_left_out_and_nobody_else(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "alone", comparisons=compared("gone")),
        write(tmp_path, "on-bad", comparisons=compared("bad")),
        write(tmp_path, "bad", sae={}),
        write(tmp_path, "second", comparisons=[{"layer": "next"}, *compared("alone")]),
        write(tmp_path, "good", comparisons=compared("other")),
        write(tmp_path, "other", comparisons=compared("good")),
    ]
    registry = load_registry(files)
    assert list(registry.studies) == ["good", "other"]
    reasons = {problem.study: problem.reasons[0] for problem in registry.problems}
    assert set(reasons) == {"alone", "on-bad", "bad", "second"}
    assert reasons["alone"].startswith("comparisons.0.with: no study 'gone'; one of ")
    bad = "comparisons.0.with: study 'bad': its file {} has a problem; correct that first"
    assert reasons["on-bad"] == bad.format(tmp_path / "bad.yaml")
    assert reasons["second"] == (
        f"comparisons.1.with: study 'alone': its file {files[0]} has a problem; correct that first"
    )


def test_a_name_cannot_hold_what_separates_layers(tmp_path: Path) -> None:
    """`a.L00` would be both a study and the first layer of `a`."""
    (problem,) = load_registry([write(tmp_path, "a.L00")]).problems
    assert "use lower-case letters, digits, '-' and '_'" in problem.reasons[0]


def test_a_study_is_found_or_its_absence_explained(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("# mine\nstudy: named-inside\nsae: [\n")
    registry = load_registry([write(tmp_path), tmp_path / "broken.yaml"])
    assert registry.find("good").study == "good"
    with pytest.raises(StudyError) as raised:
        registry.find("named-inside")
    assert str(raised.value).startswith(
        f"study 'named-inside': its file {tmp_path / 'broken.yaml'} has a problem: line 4: not YAML"
    )
    with pytest.raises(StudyError, match=r"^no study 'x'; one of good$"):
        registry.find("x")


def test_studies_variable_adds_folders_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    in_folder, named = write(tmp_path / "a", "one"), write(tmp_path, "two")
    (tmp_path / "a" / ".#one.yaml").symlink_to("somebody@host:1")  # of an editor that is open
    (tmp_path / "link").symlink_to(tmp_path / "a")
    places = [tmp_path / "a", named, tmp_path / "gone", tmp_path / "link", tmp_path / "a"]
    monkeypatch.setenv("MECHINTERP_STUDIES", os.pathsep.join(map(str, places)))
    files, problems = study_files()
    packaged = [file.name for file in files if file.parent == registry_module.PACKAGED_STUDIES]
    assert packaged == sorted(packaged)
    assert {"organism.yaml", "gpt2-small.yaml"} <= set(packaged)
    assert files[len(packaged) :] == [in_folder, named]
    (problem,) = problems
    assert problem.lines == [
        f"{tmp_path / 'gone'}: does not exist; name a folder or a file in MECHINTERP_STUDIES"
    ]
    registry = load_registry()
    assert {"one", "two", "organism"} <= set(registry.studies)
    assert registry.problems == [problem]


PROGRAM = """
import dagster as dg
from mechinterp_assets.definitions import build_definitions
graph = build_definitions().resolve_asset_graph()
for table in ("language_model", "attention_sae"):
    print(*graph.get(dg.AssetKey(table)).partitions_def.get_partition_keys())
"""


def test_partitions_of_good_studies_are_there_and_each_problem_is_one_warning(
    tmp_path: Path,
) -> None:
    write(tmp_path, "good")
    write(tmp_path, "lonely", comparisons=compared("bad"))
    os.mkfifo(tmp_path / "bad.yaml")
    (tmp_path / "worse.yaml").write_text("study: worse\nsea: 1\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "MECHINTERP_STUDIES": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    studies, sites = done.stdout.splitlines()[-2:]
    packaged = {file.stem for file in registry_module.PACKAGED_STUDIES.glob("*.yaml")}
    assert set(studies.split()) == packaged | {"good"}
    assert "good.L01" in sites.split()
    warnings = [line for line in done.stderr.splitlines() if "left out" in line]
    assert [line.split(": ")[1] for line in warnings] == [
        str(tmp_path / f"{name}.yaml") for name in ("bad", "worse", "lonely")
    ]
    assert "Traceback" not in done.stderr
