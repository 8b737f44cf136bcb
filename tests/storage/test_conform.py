"""Frames are brought to their declared types without changing a value, or refused."""

from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.storage.conform import FrameError, conform
from mechinterp_assets.storage.declarations import TableSpec, polars_schema, table_spec


@pytest.fixture
def spec(sql: Path) -> TableSpec:
    """A table with an INTEGER, a VARCHAR, a DOUBLE and a FLOAT[] column."""
    return table_spec("head_scores", sql)


def frame(**columns: pl.Series) -> pl.DataFrame:
    """One good row, with columns replaced or added."""
    good = {
        "layer": pl.Series([0], dtype=pl.Int32),
        "head": pl.Series([1], dtype=pl.Int32),
        "score": pl.Series(["induction"]),
        "value": pl.Series([0.1]),
        "terms": pl.Series([[0.5]], dtype=pl.List(pl.Float32)),
    }
    return pl.DataFrame({**good, **columns})


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("layer", pl.Series([3], dtype=pl.UInt8)),
        ("layer", pl.Series([3], dtype=pl.Int64)),
        ("layer", pl.Series([None], dtype=pl.Null)),
        ("score", pl.Series(["a"], dtype=pl.Categorical)),
        ("score", pl.Series([None], dtype=pl.Int8)),
        ("value", pl.Series([0.1], dtype=pl.Float32)),
        ("value", pl.Series([7], dtype=pl.Int64)),
        ("value", pl.Series([float("nan")], dtype=pl.Float32)),
        ("terms", pl.Series([[0.5, -2.0]], dtype=pl.List(pl.Float64))),
        ("terms", pl.Series([[0.5, -2.0]], dtype=pl.Array(pl.Float32, 2))),
        ("terms", pl.Series([[1, None]], dtype=pl.List(pl.Int64))),
        ("terms", pl.Series([[]], dtype=pl.List(pl.Null))),
    ],
)
def test_values_survive_a_cast(spec: TableSpec, column: str, given: pl.Series) -> None:
    made = conform(frame(**{column: given}), spec)
    assert dict(made.schema) == dict(polars_schema(spec))
    kept = made.get_column(column).to_list()
    assert str(kept) == str(given.to_list()) or kept == given.to_list()


def test_columns_are_put_in_order(spec: TableSpec) -> None:
    shuffled = frame().select(reversed(frame().columns))
    assert conform(shuffled, spec).equals(conform(frame(), spec))


@pytest.mark.parametrize(
    ("column", "given", "complaint"),
    [
        ("layer", pl.Series([2**40], dtype=pl.Int64), "do not fit"),
        ("layer", pl.Series([1.0]), "has Float64"),
        ("layer", pl.Series(["1"]), "has String"),
        ("layer", pl.Series([True]), "has Boolean"),
        ("score", pl.Series([1]), "has Int64"),
        ("value", pl.Series([2**53 + 1], dtype=pl.Int64), "would change"),
        ("value", pl.Series(["0.5"]), "has String"),
        ("terms", pl.Series([[0.1]], dtype=pl.List(pl.Float64)), "would change"),
        ("terms", pl.Series([[2**24 + 1]], dtype=pl.List(pl.Int64)), "would change"),
        ("terms", pl.Series([0.5]), "has Float64"),
        ("terms", pl.Series([["a"]]), "has List"),
        ("study", pl.Series(["organism"]), "adds from the provenance"),
        ("run_id", pl.Series(["r"]), "adds from the provenance"),
        ("extra", pl.Series([1]), "not declared"),
    ],
)
def test_what_does_not_fit_is_refused(
    spec: TableSpec, column: str, given: pl.Series, complaint: str
) -> None:
    with pytest.raises(FrameError, match=complaint) as error:
        conform(frame(**{column: given}), spec)
    assert column in str(error.value)


def test_a_missing_column_is_refused(spec: TableSpec) -> None:
    with pytest.raises(FrameError, match=r"lacks \['value'\]"):
        conform(frame().drop("value"), spec)


def test_not_null_is_kept(sql: Path) -> None:
    spec = table_spec("role_counts", sql)
    rows = pl.DataFrame({"role": ["a", None], "n": [1, 2]})
    with pytest.raises(FrameError, match="NOT NULL, but 1 row"):
        conform(rows, spec)
