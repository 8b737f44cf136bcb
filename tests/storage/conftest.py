"""A small `sql/` folder of its own, so that these tests depend on no real table."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.storage.declarations import SQL_FOLDER
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance

HEAD_SCORES = """-- formula: 1
CREATE TABLE head_scores (
    study VARCHAR, layer INTEGER, head INTEGER, score VARCHAR, value DOUBLE, terms FLOAT[]
);
COMMENT ON TABLE head_scores IS 'One row per head and score';
COMMENT ON COLUMN head_scores.layer IS 'Layer, from 0';
COMMENT ON COLUMN head_scores.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_scores.score IS 'Name of the score';
COMMENT ON COLUMN head_scores.value IS 'Score, 0 to 1; the head''s own';
COMMENT ON COLUMN head_scores.terms IS 'Terms that sum to the score';
"""
HEAD_ROLES = """-- formula: 1
CREATE TABLE role_counts (study VARCHAR NOT NULL, role VARCHAR NOT NULL, n BIGINT);
COMMENT ON TABLE role_counts IS 'One row per role';
COMMENT ON COLUMN role_counts.role IS 'Role of a head';
COMMENT ON COLUMN role_counts.n IS 'Heads that have it';
"""
# By name the second comes first, though it reads the other.
BEST_HEADS = """CREATE VIEW best_heads AS
SELECT study, layer, head FROM scored_heads WHERE best > 0.5;
COMMENT ON VIEW best_heads IS 'One row per head with a high score';
"""
SCORED_HEADS = """CREATE VIEW scored_heads AS
SELECT study, layer, head, max(value) AS best FROM head_scores GROUP BY ALL;
COMMENT ON VIEW scored_heads IS 'One row per head';
COMMENT ON COLUMN scored_heads.best IS 'Highest score of the head';
"""


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """Folder with two tables and two views, of which one reads the other."""
    folder = tmp_path / "sql"
    for name in ("tables", "views"):
        (folder / name).mkdir(parents=True)
    for name in ("provenance.sql", "catalog.sql"):
        shutil.copy(SQL_FOLDER / name, folder / name)
    (folder / "tables" / "head_scores.sql").write_text(HEAD_SCORES)
    (folder / "tables" / "role_counts.sql").write_text(HEAD_ROLES)
    (folder / "views" / "best_heads.sql").write_text(BEST_HEADS)
    (folder / "views" / "scored_heads.sql").write_text(SCORED_HEADS)
    return folder


@pytest.fixture
def lake(tmp_path: Path, sql: Path) -> Lake:
    """An empty lake over the small declarations."""
    return Lake(tmp_path / "lake", sql=sql)


@pytest.fixture
def provenance() -> Provenance:
    """Provenance of a run."""
    return Provenance("organism", "0123456789ab-cdef", "code-7", model_version="m1")


@pytest.fixture
def scores() -> Callable[..., pl.DataFrame]:
    """Makes a frame for `head_scores` of one layer with the values given."""

    def make(*values: float, layer: int = 0) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "layer": [layer] * len(values),
                "head": list(range(len(values))),
                "score": ["induction"] * len(values),
                "value": list(values),
                "terms": [[value, 0.0] for value in values],
            },
            schema={
                "layer": pl.Int64,
                "head": pl.Int64,
                "score": pl.String,
                "value": pl.Float64,
                "terms": pl.List(pl.Float32),
            },
        )

    return make
