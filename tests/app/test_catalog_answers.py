"""Answers for programs: bounded in every direction, hostile text as data, nothing written."""

import json
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.app.catalog_answers import (
    MOST_CHARACTERS,
    MOST_IN_A_CELL,
    AnswerError,
    CatalogAnswers,
    visible,
)
from mechinterp_assets.app.user_sql import Limits
from mechinterp_assets.storage.declarations import declarations, polars_schema, table_spec
from mechinterp_assets.storage.joins import joins
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from tests.dashboards.hostile_layer import HOSTILE

TOKENS = [token for token in HOSTILE if token != "\ud800"]  # no text of a Parquet file


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> CatalogAnswers:
    """A home whose vocabulary attacks whoever reads it."""
    home = tmp_path_factory.mktemp("home")
    rows = [
        {"token_id": i, "token": token, "count_train": 0, "count_held_out": 0, "is_special": False}
        for i, token in enumerate(TOKENS)
    ]
    frame = pl.DataFrame(rows, schema=polars_schema(table_spec("vocabulary")))
    Lake(home / "lake").write("vocabulary", "tiny", frame, Provenance("tiny", "run", "0"))
    return CatalogAnswers(home, Limits(rows=200, seconds=60, megabytes=500))


def test_rows_are_json_with_every_hidden_character_written_out(answers: CatalogAnswers) -> None:
    text = answers.query("SELECT token FROM vocabulary ORDER BY token_id", rows=100)
    assert [row[0] for row in json.loads(text)["rows"]] == TOKENS
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("rows", [1, 5, len(TOKENS)])
def test_an_answer_says_whether_there_are_more_rows(answers: CatalogAnswers, rows: int) -> None:
    said = json.loads(answers.query("FROM vocabulary", rows=rows))
    assert len(said["rows"]) == rows
    assert said["more"] is (rows < len(TOKENS))
    assert ("note" in said) is said["more"]


@pytest.mark.parametrize("rows", [0, -1, 201])
def test_too_many_rows_are_refused(answers: CatalogAnswers, rows: int) -> None:
    with pytest.raises(AnswerError, match=f"rows is {rows}; ask for 1 to 200"):
        answers.query("FROM vocabulary", rows=rows)


def test_large_cells_and_answers_are_cut(answers: CatalogAnswers) -> None:
    text = answers.query("SELECT repeat('x', 100000) AS long, range(100000) AS many")
    (row,) = json.loads(text)["rows"]
    assert all(len(cell) < MOST_IN_A_CELL + 100 for cell in row)
    assert "(cut; 100002 characters of JSON)" in row[0]
    text = answers.query("SELECT repeat('x', 1900) FROM range(200)", rows=200)
    assert MOST_CHARACTERS - 2000 < len(text) < MOST_CHARACTERS + 500
    assert json.loads(text)["more"] is True


def test_every_type_of_value_is_json(answers: CatalogAnswers) -> None:
    text = answers.query(
        "SELECT 1.5 AS a, 'nan'::DOUBLE AS b, DATE '2026-01-02' AS c, MAP {'x': [1, NULL]} AS d,"
        " '\\xAA'::BLOB AS e, {'f': true} AS f, 123456789012345678901::HUGEINT AS g, NULL AS h"
    )
    (row,) = json.loads(text)["rows"]
    assert row[:3] == [1.5, "nan", "2026-01-02"]
    assert row[3] in ([{"key": "x", "value": [1, None]}], {"x": [1, None]})
    assert row[4:6] == ["aa", {"f": True}]
    assert row[6] == 123456789012345678901
    assert row[7] is None


def test_sql_that_writes_or_takes_too_long_is_refused(
    answers: CatalogAnswers, tmp_path: Path
) -> None:
    target = tmp_path / "written"
    with pytest.raises(AnswerError, match="COPY is no query"):
        answers.query(f"COPY vocabulary TO '{target}'")
    with pytest.raises(AnswerError, match="queries read the lake"):
        answers.query("FROM read_text('/etc/passwd')")
    hurried = CatalogAnswers(answers.home, Limits(rows=10, seconds=0.2, megabytes=500))
    with pytest.raises(AnswerError, match=r"stopped after 0\.2 s"):
        hurried.query("SELECT count(*) FROM range(10000000000) a WHERE sqrt(range) = 0.5", rows=1)
    assert not target.exists()


def test_what_is_not_there_is_answered_with_what_is(answers: CatalogAnswers) -> None:
    with pytest.raises(AnswerError, match=r"nothing of study 'tini' .* did you mean 'tiny'"):
        answers.why("tini", "vocabulary")
    with pytest.raises(AnswerError, match="no table 'vocabulry'; did you mean 'vocabulary'"):
        answers.describe("vocabulry")
    with pytest.raises(AnswerError, match="no table says 'zebra'"):
        answers.tables(words="zebra")
    with pytest.raises(AnswerError, match="name one worked query"):
        answers.answer("DROP TABLE x", "tiny")
    with pytest.raises(AnswerError, match="has no SAE"):
        answers.feature("tiny", 0, 0)
    with pytest.raises(AnswerError, match=r"'2,3' names no head"):
        answers.head("tiny", "2,3")


def test_tables_and_columns_say_what_they_mean(answers: CatalogAnswers) -> None:
    assert "vocabulary (" in answers.tables("tiny", "token")
    assert "head_scores" in answers.tables()
    assert "lineage (view)" in answers.tables(words="lineage")
    said = answers.describe("vocabulary")
    assert "key: study, token_id" in said
    for column in table_spec("vocabulary").columns:
        assert f"{column.name} {column.type}: {column.comment}" in said
    (join,) = [one for one in joins(declarations().tables) if one.table == "feature_labels"]
    assert f"join: {join.sql}" in answers.describe("feature_labels").split("\n")
    assert "54_ours_beside_published_numbers" in answers.questions()


@pytest.mark.parametrize("token", HOSTILE)
def test_visible_text_is_another_way_of_writing_it(token: str) -> None:
    shown = visible(token)
    assert all(part.isprintable() for part in shown.split("\n"))
    if "\\" not in token and '"' not in token:
        assert json.loads(f'"{shown}"', strict=False) == token
