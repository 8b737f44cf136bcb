"""Roles are conditions over scores: every score is defined, every condition can be met."""

import duckdb
import polars as pl

from mechinterp_assets.heads.score_kinds import MoverScore
from mechinterp_assets.heads.score_registry import all_scores
from mechinterp_assets.heads.score_values import HEAD_SCORES_SCHEMA
from mechinterp_assets.orchestration.head_roles import head_roles, heads_with_role
from mechinterp_assets.storage.declarations import SQL_FOLDER, polars_schema, table_spec


def rows(*scores: tuple[str, float], null_mean: float = 0.0, null_sd: float = 0.01) -> pl.DataFrame:
    """Scores of head 3.1 with threshold .5."""
    return pl.DataFrame(
        [
            {
                "layer": 3,
                "head": 1,
                "score": score,
                "value": value,
                "n": 10,
                "null_mean": null_mean,
                "null_sd": null_sd,
                "threshold": 0.5,
                "dataset": "made up",
            }
            for score, value in scores
        ],
        schema=HEAD_SCORES_SCHEMA,
    )


def names(frame: pl.DataFrame) -> list[str]:
    return frame["role"].to_list()


def test_both_tables_have_the_frames_columns() -> None:
    for table in ("head_scores", "ioi_head_scores"):
        schema = polars_schema(table_spec(table))
        assert {name: dtype for name, dtype in schema.items() if name != "study"} == dict(
            HEAD_SCORES_SCHEMA
        )


def test_conditions_are_the_scores_with_thresholds() -> None:
    view = (SQL_FOLDER / "views" / "head_role_conditions.sql").read_text()
    with duckdb.connect() as con:
        con.execute(view)
        conditions = {
            score for (score,) in con.sql("SELECT score FROM head_role_conditions").fetchall()
        }
        numbers = con.sql(
            "SELECT role, list(number ORDER BY number) FROM head_role_conditions GROUP BY role"
        ).fetchall()
    assert all(found == list(range(len(found))) for _, found in numbers)
    with_threshold = {
        score.name
        for score in all_scores()
        if score.threshold is not None or isinstance(score, MoverScore)
    }
    assert conditions == with_threshold


def test_a_role_needs_all_its_conditions() -> None:
    mover = [("ioi_direct_effect", 0.9), ("ioi_attention_io", 0.8), ("name_copy", 0.7)]
    found = head_roles(rows(*mover))
    assert names(found) == ["name_copy", "name_mover"]
    row = found.filter(role="name_mover").row(0, named=True)
    assert (row["score"], row["value"], row["n_conditions"]) == ("ioi_direct_effect", 0.9, 3)
    assert row["null_z"] == 70.0  # of the condition that is closest to its null
    for missing in range(3):
        assert "name_mover" not in names(
            head_roles(rows(*(mover[:missing] + mover[missing + 1 :])))
        )
    low = [mover[0], ("ioi_attention_io", 0.4), mover[2]]
    assert "name_mover" not in names(head_roles(rows(*low)))


def test_a_role_needs_threshold_and_null() -> None:
    assert names(head_roles(rows(("induction", 0.6)))) == ["induction"]
    assert names(head_roles(rows(("induction", 0.5)))) == []
    assert names(head_roles(rows(("induction", 0.6), null_mean=0.58))) == []
    without = rows(("induction", 0.6)).with_columns(threshold=pl.lit(None, pl.Float64))
    assert names(head_roles(without)) == []
    assert heads_with_role("induction", rows(("induction", 0.6))) == [(3, 1)]
    assert heads_with_role("induction") == []


def test_conditions_may_come_from_both_tables() -> None:
    ours, theirs = rows(("copy_suppression_ov", 0.9)), rows(("copy_suppression_qk", 0.9))
    assert names(head_roles(ours, theirs)) == ["copy_suppression"]
    assert names(head_roles(ours)) == []
