"""`mechinterp verify` and `rebuild`, and what other commands say of damaged files."""

import sqlite3
from pathlib import Path

import polars as pl
import pytest
import torch

from mechinterp_assets.app import progress
from mechinterp_assets.app.materialize import instance, prepare_instance_folder
from mechinterp_assets.app.mistakes import Mistake
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.ledger import Commit
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Tensors
from tests.command_line import call

PROVENANCE = Provenance("tiny", "run", "0")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a table of two versions and an artefact."""
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    # Set by what prepares Dagster's folder; put back after the test.
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    for tokens in (["a"], ["a", "b"]):
        write(Lake(tmp_path / "lake"), tokens)
    files = {"weights.safetensors": {"W": torch.arange(6.0)}}
    Tensors(tmp_path / "tensors").write("attention_sae", "tiny.L00", files, PROVENANCE)
    return tmp_path


def write(lake: Lake, tokens: list[str]) -> Path:
    rows = [
        {"token_id": n, "token": token, "count_train": 0, "count_held_out": 0, "is_special": False}
        for n, token in enumerate(tokens)
    ]
    frame = pl.DataFrame(rows, schema=polars_schema(table_spec("vocabulary")))
    return lake.write("vocabulary", "tiny", frame, PROVENANCE).path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_home_is_verified(home: Path) -> None:
    found = call(["verify"])
    assert found.exit_code == 0
    lines = found.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "2 versions of tables",
        "1 versions of tensors",
    ]
    assert all(line.endswith("all whole") for line in lines)


def test_every_damaged_version_is_named_and_the_exit_code_is_1(home: Path) -> None:
    old, current = sorted((home / "lake" / "vocabulary" / "tiny").iterdir())
    (weights,) = home.glob("tensors/attention_sae/*/*/weights.safetensors")
    for path in (old, weights):
        flip(path)
    found = call(["verify"])
    assert found.exit_code == 1
    for path in (old, weights):
        assert sum(str(path) in line for line in found.stdout.splitlines()) == 1
    assert str(current) not in found.stdout
    assert "2 versions of tables, 0.0 MB: 1 damaged" in found.stdout
    weights.parent.joinpath("manifest.json").unlink()
    assert "manifest.json is missing" in call(["verify"]).stdout


def test_files_that_are_not_on_record_are_listed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(home / "lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Commit, "add", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(lake, ["lost"])
    (stray,) = lake.unknown_files()
    found = call(["verify"])
    assert found.exit_code == 0
    assert f"{stray} is not on record" in found.stdout
    write(lake, ["c"])
    found = call(["verify"])
    assert f"{lake.root / '.quarantine' / stray.relative_to(lake.root)} was set aside" in (
        found.stdout
    )


def test_long_checks_show_that_they_are_alive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.Progress, "_due", lambda self: 0.0)
    found = call(["verify"])
    assert found.exit_code == 0
    assert "so far" in found.stderr


def test_a_query_of_a_damaged_file_is_one_line(home: Path) -> None:
    path = home / "lake" / Lake(home / "lake").current("vocabulary", "tiny").file
    path.write_bytes(path.read_bytes()[:-1])
    found = call(["query", "SELECT * FROM vocabulary"])
    assert found.exit_code == 1
    assert found.stderr.count("\n") == 1
    assert f"{path} has " in found.stderr
    assert "materialize the asset vocabulary" in found.stderr
    assert call(["query", "SELECT * FROM language_model"]).exit_code == 0


def test_a_damaged_ledger_is_one_line_and_rebuild_makes_it_again(home: Path) -> None:
    before = call(["query", "FROM vocabulary", "--format", "json"]).stdout
    ledger = home / "lake" / "ledger.sqlite"
    ledger.write_bytes(b"damaged" * 1000)
    for command in (["tables"], ["query", "FROM vocabulary"], ["verify"], ["refresh"]):
        found = call(command)
        assert found.exit_code != 0
        assert found.stderr.count("\n") == 1
        assert "ledger.sqlite is damaged" in found.stderr
        assert "`mechinterp rebuild`" in found.stderr
    found = call(["rebuild"])
    assert (found.exit_code, found.stdout.split()[0]) == (0, "2")
    assert call(["query", "FROM vocabulary", "--format", "json"]).stdout == before
    assert call(["verify"]).exit_code == 0
    again = call(["rebuild"])
    assert again.exit_code == 1
    assert "is whole" in again.stderr


@pytest.mark.parametrize("name", ["history/runs.db", "schedules/schedules.db"])
def test_a_damaged_database_of_dagsters_is_one_line(home: Path, name: str) -> None:
    with instance() as opened:
        opened.get_runs()
    file = home / "dagster" / name
    file.write_bytes(b"x" * file.stat().st_size)
    found = call(["materialize", "organism"])
    assert found.exit_code == 1
    assert found.stderr.splitlines()[-1].startswith(f"mechinterp: {file}, where Dagster keeps")
    assert "move it away" in found.stderr
    assert "Traceback" not in found.stderr
    with pytest.raises(Mistake, match="is damaged"):  # what `mechinterp ui` begins with
        prepare_instance_folder()
    file.rename(file.with_name(f"{file.name}.damaged"))
    with instance() as opened:
        assert opened.get_runs() == [] or name != "history/runs.db"


def test_damage_behind_the_first_page_of_a_database_is_one_line(home: Path) -> None:
    with instance() as opened:
        opened.get_runs()
    file = home / "dagster" / "schedules" / "schedules.db"
    with sqlite3.connect(file) as con:
        size = con.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(file.read_bytes())
    content[size:] = b"\xff" * (len(content) - size)
    file.write_bytes(content)

    def look() -> None:
        with instance() as opened:
            opened.all_instigator_state()

    with pytest.raises(Mistake, match=r"schedules\.db.*is damaged.*move it away"):
        look()
