"""The command line answers mistakes with what to do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mechinterp_assets.app.cli import app
from mechinterp_assets.app.queries import QueryError, all_queries, find_query

runner = CliRunner()


def test_help_lists_the_commands() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("quickstart", "materialize", "query", "tables", "export", "ui", "label-sheet"):
        assert command in result.output


def test_unknown_study_and_query_name_what_there_is() -> None:
    result = runner.invoke(app, ["materialize", "nothing"])
    assert result.exit_code == 2
    assert "organism" in result.output
    with pytest.raises(QueryError, match="01_heads_by_role"):
        find_query("heads_by_rol")


def test_quickstart_queries_exist() -> None:
    from mechinterp_assets.app.cli import QUICKSTART_QUERIES

    assert set(QUICKSTART_QUERIES) <= {query.name for query in all_queries()}
    assert len(all_queries()) >= 8


def test_label_sheet_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    for arguments, expected in (
        (["tiny", "--layer", "2"], "attention_sae has no data for tiny.L02"),
        (["tiny", "--layer", "1"], "layers with one: 0, 2"),
        (["tiny", "--layer", "2", "--n", "0"], "draw at least one"),
        (["tiny", "--layer", "2", "--output", str(tmp_path)], "may hold labels"),
        (["nothing", "--layer", "2"], "tiny"),
    ):
        result = runner.invoke(app, ["label-sheet", *arguments], env={"COLUMNS": "300"})
        assert result.exit_code == 2
        assert expected in " ".join(result.output.replace("│", " ").split())
