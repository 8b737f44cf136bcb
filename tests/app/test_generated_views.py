"""Generated views are those in sql/views, and tell what the files declare."""

from pathlib import Path

import duckdb
import pytest

from mechinterp_assets.app.generated_views import generated_views, write_views
from mechinterp_assets.heads.score_registry import all_scores, scores_in
from mechinterp_assets.sae.traits import architecture_names, traits_of
from mechinterp_assets.storage.declarations import SQL_FOLDER


@pytest.mark.parametrize("name", list(generated_views()))
def test_the_views_are_up_to_date(name: str) -> None:
    assert (SQL_FOLDER / "views" / f"{name}.sql").read_text() == generated_views()[name], (
        "run python -m mechinterp_assets.app.generated_views"
    )


def test_writing_gives_what_changed(tmp_path: Path) -> None:
    assert {path.stem for path in write_views(tmp_path)} == set(generated_views())
    assert write_views(tmp_path) == []


def test_every_score_has_its_definition() -> None:
    with duckdb.connect() as con:
        con.execute(generated_views()["head_score_definitions"])
        rows = con.sql(
            "SELECT score, definition, value_threshold, threshold_share, table_name"
            " FROM head_score_definitions"
        ).fetchall()
    found = {score: (definition, threshold) for score, definition, threshold, _, _ in rows}
    assert found == {score.name: (score.definition, score.threshold) for score in all_scores()}
    shares = {score: share for score, _, _, share, _ in rows if share is not None}
    assert shares == {"ioi_backup_effect": 0.02, "ioi_s_inhibition": 0.02}
    for table in ("head_scores", "ioi_head_scores"):
        assert {row[0] for row in rows if row[4] == table} == {s.name for s in scores_in(table)}


def test_every_architecture_has_its_row() -> None:
    with duckdb.connect() as con:
        con.execute(generated_views()["sae_architectures"])
        rows = con.sql("SELECT architecture, definition FROM sae_architectures").fetchall()
    assert dict(rows) == {name: traits_of(name).description for name in architecture_names()}
