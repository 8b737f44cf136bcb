"""The command line answers mistakes with one line that says what to do."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.app import cli, run_commands
from mechinterp_assets.app.ports import HOST
from mechinterp_assets.app.queries import NoQueryError, all_queries, find_query
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.command_line import Called, call


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home in a folder with a name longer than any terminal is wide."""
    folder = tmp_path / ("long-" * 20) / "home"
    folder.parent.mkdir()
    monkeypatch.setenv("MECHINTERP_HOME", str(folder))
    return folder


@pytest.fixture
def lake(home: Path) -> Lake:
    """A lake with a vocabulary of twelve tokens, some of which terminals and csv stumble over."""
    made = Lake(home / "lake")
    tokens = [" a", "[red]", 'quote"', "comma,", "line\nbreak", *map(str, range(7))]
    schema = polars_schema(table_spec("vocabulary"))
    rows = [
        {"token_id": n, "token": token, "count_train": 0, "count_held_out": 0, "is_special": False}
        for n, token in enumerate(tokens)
    ]
    frame = pl.DataFrame(rows, schema=schema)
    made.write("vocabulary", "tiny", frame, Provenance("tiny", "run", "0"))
    return made


def mistake(called: Called, code: int = 2) -> str:
    """The one line that a mistake is told in."""
    assert called.exit_code == code, called
    assert called.stdout == ""
    assert called.stderr.count("\n") == 1
    assert called.stderr.startswith("mechinterp: ")
    return called.stderr


def test_help_and_version_name_what_there_is() -> None:
    for arguments in (["--help"], []):
        shown = call(arguments)
        assert shown.exit_code == 0
        for command in ("quickstart", "materialize", "query", "tables", "export", "ui"):
            assert f"  {command} " in shown.stdout
    assert call(["--version"]).stdout.startswith("mechinterp-assets 0.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quer"], "Did you mean 'query'"),
        (["query"], "Missing argument"),
        (["query", "5", "--rows", "0"], "--rows"),
        (["query", "5", "--format", "xml"], "'table', 'csv', 'json'"),
        (["query", "99"], "no query 99"),
        (["query", "9" * 5000], "the last is"),
        (["query", "heads_by_rol"], "perhaps 01_heads_by_role"),
        (["materialize", "tinny"], "no study 'tinny'; perhaps tiny"),
        (
            ["materialize", "zzz"],
            "no study 'zzz'; one of gpt2-small-k24, gpt2-small, organism, smollm2-gpu, smollm2,",
        ),
        (["label-sheet", "tiny", "--layer", "2"], "nothing is materialized in"),
        (["label-sheet", "tiny"], "name a layer with --layer"),
        (["sae-folder", "tiny", "0"], "there is no attention_sae for tiny.L00"),
        (["sae-folder", "tiny", "1"], "layer 1 has no SAE in tiny; layers with one: 0, 2"),
        (["sae-folder", "tinny", "1"], "no study 'tinny'; perhaps tiny"),
        (["neuronpedia", "tiny", "out", "--creator-id", "1", "--layer", "9"], "no layer [9]"),
        (["ui", "--port", "99999"], "--port"),
        (["ui", "--port", "3000", "--dashboards-port", "3000"], "name the same port"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(home: Path, arguments: list[str], expected: str) -> None:
    assert expected in mistake(call(arguments))
    assert not home.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["tables"],
        ["query", "5"],
        ["refresh"],
        ["checks", "tiny"],
        ["export", "results.duckdb"],
        ["trace-graph", "tiny", "trace.graphml"],
        ["reproduce", "tiny", "--no-run"],
        ["neuronpedia", "tiny", "out", "--creator-id", "1"],
        ["mcp"],
    ],
)
def test_reading_an_empty_home_makes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(home.parent)
    line = mistake(call(arguments))
    assert f"nothing is materialized in {home}; run `mechinterp materialize organism`" in line
    assert list(home.parent.iterdir()) == []


def test_sql_mistakes_name_the_nearest(lake: Lake) -> None:
    for sql, expected in (
        ("SELECT tokn FROM vocabulary", 'Candidate bindings: "token"'),
        ("FROM vocabulry", 'Did you mean "vocabulary"?'),
        ("SELCT 1 FROM vocabulary", 'syntax error at or near "SELCT"'),
    ):
        assert expected in mistake(call(["query", sql]))


def test_a_study_without_rows_is_no_empty_answer(lake: Lake) -> None:
    line = mistake(call(["query", "05", "organism"]))
    assert "nothing of study 'organism' is materialized" in line
    assert "there is: tiny" in line
    assert call(["query", "5", "tiny"]).exit_code == 0


def test_checks_say_what_does_not_hold(lake: Lake) -> None:
    shown = call(["checks", "tiny"])
    assert shown.exit_code == 1
    assert "n_rows 12" in shown.stdout  # tokens, where no model says how many there are
    n = len(table_checks()["vocabulary"])
    assert shown.stdout.endswith(f"{n} checks of 1 tables: 2 failed, 0 warn\n")
    listed = json.loads(call(["checks", "tiny", "--format", "json"]).stdout)
    failed = [(one["table"], one["check"], one["partition"]) for one in listed if not one["passed"]]
    assert {name for _, name, _ in failed} == {"rows", "below"}
    assert (len(failed), len(listed)) == (2, n)
    sizes = {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_model": 1, "d_head": 1, "d_mlp": 1}
    words = ("weights_source", "model_type", "dtype")
    model = pl.DataFrame(
        {
            **{name: [value] for name, value in sizes.items()},
            **{name: ["test"] for name in words},
            **{name: ["0123456789abcdef"] for name in ("weights_hash", "tokenizer_hash")},
            "d_vocab": [12],
            "n_ctx": [8],
            "n_parameters": [1],
            "bos_token_id": [0],
            "bos_token": ["a"],
            "left_out_token_ids": [[0]],
            "bridge_error": [0.0],
            "bridge_error_allowed": [1e-4],
            "position_encoding": ["other"],
            "normalization": ["LN"],
            "prepend_bos": [True],
        }
    )
    lake.write("language_model", "tiny", model, Provenance("tiny", "run", "0"))
    passed = call(["checks", "tiny"])
    assert (passed.exit_code, passed.stdout.count("\n")) == (0, 1)
    assert "of 2 tables: 0 failed, 0 warn" in passed.stdout


def test_whole_rows_for_other_programs(lake: Lake) -> None:
    sql = "SELECT token_id, token, [token_id, 1] AS pair FROM vocabulary ORDER BY token_id"
    tokens = lake.read("vocabulary").collect()["token"].to_list()
    rows = list(csv.DictReader(io.StringIO(call(["query", sql, "--format", "csv"]).stdout)))
    assert [row["token"] for row in rows] == tokens
    assert [json.loads(row["pair"]) for row in rows] == [[n, 1] for n in range(12)]
    rows = json.loads(call(["query", sql, "--format", "json"]).stdout)
    assert [row["token"] for row in rows] == tokens
    assert [row["pair"] for row in rows] == [[n, 1] for n in range(12)]
    assert len(json.loads(call(["query", sql, "--format", "json", "--rows", "3"]).stdout)) == 3
    table = json.loads(call(["tables", "--format", "json"]).stdout)
    assert table == [{"table_name": "vocabulary", "partitions": 1, "row_count": 12}]


def test_a_table_breaks_no_value(lake: Lake) -> None:
    value = "word " * 100
    shown = call(["query", f"SELECT '{value}' AS text, token FROM vocabulary"])
    assert value in shown.stdout
    assert "8 of 12 rows; --rows 12 shows all" in shown.stdout
    assert "[red]" in call(["query", "FROM vocabulary"]).stdout


def test_nothing_is_overwritten(lake: Lake, tmp_path: Path) -> None:
    old = tmp_path / "old.duckdb"
    old.write_text("mine")
    assert f"{old} exists; name another file, or replace it with --force" in mistake(
        call(["export", str(old)])
    )
    assert "is a folder; name a file" in mistake(call(["export", str(tmp_path), "--force"]))
    missing = tmp_path / "missing"
    assert f"there is no folder {missing}" in mistake(call(["export", str(missing / "x")]))
    sheet = ["label-sheet", "tiny", "--layer", "2", "--output", str(old)]
    assert "may hold labels" in mistake(call(sheet))
    assert old.read_text() == "mine"
    assert call(["export", str(old), "--force"]).exit_code == 0
    assert old.read_bytes()[8:12] == b"DUCK"


def test_label_sheet_says_what_is_missing(lake: Lake) -> None:
    for arguments, expected in (
        (["tiny", "--layer", "2"], "attention_sae has no data for tiny.L02"),
        (["tiny", "--layer", "1"], "layers with one: 0, 2"),
        (["tiny", "--layer", "2", "--n", "0"], "draw at least one"),
    ):
        assert expected in mistake(call(["label-sheet", *arguments]))


def test_every_worked_query_goes_by_its_number(home: Path) -> None:
    found = all_queries()
    assert len(found) >= 8
    assert set(run_commands.QUICKSTART_QUERIES) <= {query.name for query in found}
    for number, query in enumerate(found, start=1):
        assert find_query(str(number)) == find_query(f"{number:02d}") == find_query(query.name)
    listed = json.loads(call(["queries", "--format", "json"]).stdout)
    assert [(row["query"], row["question"]) for row in listed] == [
        (query.name, query.question) for query in found
    ]
    with pytest.raises(NoQueryError, match="the last is"):
        find_query("0")


def test_a_port_that_is_taken_is_told_before_anything_starts(home: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = mistake(call(["ui", "--port", str(port)]), code=1)
    assert f"port {port} of 127.0.0.1: address already in use; name another with --port" in line
    assert not home.exists()


def test_a_broken_study_file_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("study: [")
    monkeypatch.setenv("MECHINTERP_STUDIES", str(file))
    called = call(["materialize", "organism-2"])
    assert called.exit_code == 2
    assert f"left out: {file}" in called.stderr
    assert "Traceback" not in called.stderr


def test_a_home_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path / "file" / "home"))
    assert "not a directory" in mistake(call(["materialize", "tiny"]), code=1)


def test_an_interruption_is_one_line_and_a_bug_keeps_its_traceback(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Lake, query: str) -> pl.DataFrame:
        raise KeyboardInterrupt

    def broken(self: Lake, query: str) -> pl.DataFrame:
        raise RuntimeError("a mistake of the program")

    monkeypatch.setattr(Lake, "sql", interrupted)
    assert mistake(call(["tables"]), code=130) == "mechinterp: interrupted\n"
    monkeypatch.setattr(Lake, "sql", broken)
    with pytest.raises(RuntimeError, match="a mistake of the program"):
        call(["tables"])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["tables"], ["query", "5", "tiny"], ["export", "--help"]],
)
def test_commands_that_need_no_model_load_none(lake: Lake, arguments: list[str]) -> None:
    program = (
        "import sys; from mechinterp_assets.app.cli import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'dagster', 'transformer_lens'} & sys.modules.keys();"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_reader_that_has_enough_is_no_error(lake: Lake) -> None:
    program = [sys.executable, "-m", "mechinterp_assets", "query", "FROM range(200000)"]
    command = [*program, "--format", "csv"]
    # Unbuffered, Python drops what a full pipe does not take.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_exit_codes_reach_the_shell(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mechinterp", "tables"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
