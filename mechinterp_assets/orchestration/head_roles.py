"""Which heads have which roles, for assets that choose heads.

Belongs here: running the views that define roles over tables as an asset reads them, so that the
rule stands in sql/views alone. Does not belong here: scores.
"""

import duckdb
import polars as pl

from mechinterp_assets.storage.declarations import SQL_FOLDER, table_spec
from mechinterp_assets.storage.table_spec import plain_table

SCORE_TABLES = ("head_scores", "ioi_head_scores")
ROLE_VIEWS = ("head_score_tests", "head_role_conditions", "head_roles")


def head_roles(*scores: pl.DataFrame) -> pl.DataFrame:
    """Rows of the view head_roles over rows of head_scores or ioi_head_scores.

    `scores`: frames with the columns of those tables; `study` may be missing. Ordered by layer,
    head and role.
    """
    with duckdb.connect() as con:
        for table in SCORE_TABLES:
            con.execute(plain_table(table_spec(table)))
        declared = [str(row[0]) for row in con.execute("DESCRIBE head_scores").fetchall()]
        for number, frame in enumerate(scores):
            # Rows from the lake have provenance too, which the declaration leaves out.
            own = frame.select(name for name in declared if name in frame.columns)
            con.register(f"scores_{number}", own.to_arrow())
            con.execute(f"INSERT INTO head_scores BY NAME FROM scores_{number}")
        for view in ROLE_VIEWS:
            con.execute((SQL_FOLDER / "views" / f"{view}.sql").read_text())
        roles: pl.DataFrame = con.sql("FROM head_roles ORDER BY study, layer, head, role").pl()
    return roles


def heads_with_role(role: str, *scores: pl.DataFrame) -> list[tuple[int, int]]:
    """(layer, head) of the heads of one study that have a role, in order."""
    found = head_roles(*scores).filter(pl.col("role") == role)
    return [(int(layer), int(head)) for layer, head in found.select("layer", "head").iter_rows()]
