"""Checks of tables: every kind that a declaration gives, on a small lake with planted faults; files
of sql/checks; what the repository declares."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from mechinterp_assets.storage.check_runs import SHOWN_ROWS, CheckResult, Scope, frame, run_checks
from mechinterp_assets.storage.checks import table_checks
from mechinterp_assets.storage.declarations import SQL_FOLDER, DeclarationError, table_specs
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.provenance import Provenance

PROVENANCE = Provenance("organism", "0123456789ab-cdef", "code-7", model_version="m1")
TABLES = {
    "language_model": """-- formula: 1
-- rows: one
CREATE TABLE language_model (
    study VARCHAR, n_layers INTEGER NOT NULL CHECK (n_layers > 0), n_heads INTEGER NOT NULL,
    PRIMARY KEY (study)
);
COMMENT ON TABLE language_model IS 'One row per study';
COMMENT ON COLUMN language_model.n_layers IS 'Layers';
COMMENT ON COLUMN language_model.n_heads IS 'Heads per layer';
""",
    "attention_sae": """-- formula: 1
-- per: site
-- rows: one
CREATE TABLE attention_sae (
    study VARCHAR, layer INTEGER, d_sae INTEGER, PRIMARY KEY (study, layer)
);
COMMENT ON TABLE attention_sae IS 'One row per SAE';
COMMENT ON COLUMN attention_sae.layer IS 'Layer, from 0';
COMMENT ON COLUMN attention_sae.d_sae IS 'Features';
""",
    "head_values": """-- formula: 1
-- per: site
-- references: attention_sae (study, layer)
-- references: study, layer, other -> head_values (study, layer, head) where kind = 'pair'
-- rows: one per head for each kind
-- below: layer < n_layers, head < n_heads, other < d_sae
-- may be infinite or NaN: ratio
CREATE TABLE head_values (
    study VARCHAR,
    layer INTEGER,
    head INTEGER,
    kind VARCHAR CHECK (kind IN ('alone', 'pair')),
    other INTEGER,
    share DOUBLE NOT NULL CHECK (share >= 0),
    low DOUBLE,
    high DOUBLE,
    terms FLOAT[] NOT NULL,
    ratio DOUBLE,
    PRIMARY KEY (study, layer, head, kind),
    CHECK (low <= high)
);
COMMENT ON TABLE head_values IS 'One row per head and kind';
COMMENT ON COLUMN head_values.layer IS 'Layer, from 0';
COMMENT ON COLUMN head_values.head IS 'Head, from 0';
COMMENT ON COLUMN head_values.kind IS 'Kind';
COMMENT ON COLUMN head_values.other IS 'Another head';
COMMENT ON COLUMN head_values.share IS 'Share';
COMMENT ON COLUMN head_values.low IS 'Lower end';
COMMENT ON COLUMN head_values.high IS 'Upper end';
COMMENT ON COLUMN head_values.terms IS 'Terms';
COMMENT ON COLUMN head_values.ratio IS 'Ratio; infinite over 0';
""",
    "notes": """-- formula: 1
-- rows: at least one
CREATE TABLE notes (study VARCHAR NOT NULL, rater VARCHAR, UNIQUE (study, rater));
COMMENT ON TABLE notes IS 'One row per rater; NULL: all';
COMMENT ON COLUMN notes.rater IS 'Who';
""",
}
OWN = """-- Shares of a head sum to less
-- than the study allows
SELECT head, sum(share) AS total FROM head_values
WHERE study = getvariable('study') AND layer = getvariable('layer')
GROUP BY head HAVING (total <= getvariable('checks.most')) IS NOT TRUE;
"""
NAN, INF = math.nan, math.inf


def declare(folder: Path, **changed: str) -> Path:
    """A folder of declarations: TABLES with some of them written otherwise."""
    for name in ("tables", "checks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("provenance.sql", "catalog.sql"):
        shutil.copy(SQL_FOLDER / name, folder / name)
    for name, text in (TABLES | changed).items():
        (folder / "tables" / f"{name}.sql").write_text(text)
    return folder


def rows(**columns: list[Any]) -> pl.DataFrame:
    """Two heads of layer 0, both kinds, with some columns replaced."""
    given: dict[str, list[Any]] = {
        "layer": [0, 0, 0, 0],
        "head": [0, 1, 0, 1],
        "kind": ["alone", "alone", "pair", "pair"],
        "other": [7, None, 1, 0],
        "share": [0.0, 0.25, 0.5, 1.0],
        "low": [None, 0.0, 0.0, 0.0],
        "high": [0.0, None, 0.0, 1.0],
        "terms": [[], [1.0], [0.5, 0.5], [0.0]],
        "ratio": [INF, NAN, None, 1.0],
    }
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        "other": pl.Int32,
        "low": pl.Float64,
        "high": pl.Float64,
        "terms": pl.List(pl.Float32),
    }
    return pl.DataFrame(given | columns, schema_overrides=types, strict=False)


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    return declare(tmp_path / "sql")


@pytest.fixture
def check(tmp_path: Path, sql: Path) -> Callable[..., dict[str, CheckResult]]:
    """Write a layer's rows beside a model and an SAE, and run the checks of head_values."""

    def run(
        values: pl.DataFrame, *, sae: bool = True, loose: bool = False, most: float = 9.0
    ) -> dict[str, CheckResult]:
        root, written_under = tmp_path / "lake", sql
        if loose:  # as an older declaration took it
            text = TABLES["head_values"].replace(" NOT NULL", "")
            written_under = declare(tmp_path / "older", head_values=text)
        lake = Lake(root, sql=written_under)
        model = pl.DataFrame({"n_layers": [3], "n_heads": [2]})
        lake.write("language_model", "organism", model, PROVENANCE)
        if sae:
            one = pl.DataFrame({"layer": [0], "d_sae": [8]})
            lake.write("attention_sae", "organism.L00", one, PROVENANCE)
        lake.write("head_values", "organism.L00", values, PROVENANCE)
        scope = Scope("organism.L00", {"study": "organism", "layer": 0, "checks.most": most})
        found = run_checks(Lake(root, sql=sql), [(table_checks(sql)["head_values"], scope)])
        return {one.check.name: one for one in found}

    return run


def failed(results: Mapping[str, CheckResult]) -> list[str]:
    return [name for name, one in results.items() if not one.passed]


def test_rows_that_are_as_declared_pass(check: Callable[..., dict[str, CheckResult]]) -> None:
    results = check(rows())
    assert list(results) == [
        *("key", "not_null", "values", "finite", "references", "below", "rows", "partition"),
    ]
    assert failed(results) == []
    assert all(one.what == "" for one in results.values())


@pytest.mark.parametrize(
    ("columns", "name", "what"),
    [
        ({"head": [0, 1, 0, 0]}, "key", "1 row: head 0, kind pair, n_rows 2"),
        (
            {"share": [0.0, -0.5, 0.5, 1.0]},
            "values",
            '("share" >= 0), head 1, kind alone, share -0.5',
        ),
        ({"kind": ["alone", "alone", "pair", "both"]}, "values", "kind IN"),
        ({"low": [None, 0.0, 0.5, 0.0]}, "values", "(low <= high), head 0, kind pair"),
        ({"other": [7, None, 1, 5]}, "references", "lacks_it head_values, other 5"),
        ({"head": [0, 2, 0, 2]}, "below", "1 row: layer 0, head 2, n_layers 3, n_heads 2"),
        ({"other": [7, None, 1, 8]}, "below", "layer 0, other 8, d_sae 8"),
        ({"layer": [0, 0, 0, 1]}, "partition", "study organism, layer 1"),
        ({"terms": [[], [NAN], [0.5, 0.5], [0.0]]}, "finite", "not_finite_in terms, head 1"),
        ({"terms": [[], [1.0], [0.5, -INF], [0.0]]}, "finite", "not_finite_in terms, head 0"),
        ({"high": [INF, None, 0.0, 1.0]}, "finite", "not_finite_in high"),
        ({"terms": [[], [None], [0.5, 0.5], [0.0]]}, "not_null", "nulls_in terms, head 1"),
    ],
)
def test_a_planted_fault_is_found(
    check: Callable[..., dict[str, CheckResult]],
    columns: dict[str, list[Any]],
    name: str,
    what: str,
) -> None:
    results = check(rows(**columns))
    assert name in failed(results)
    assert what in results[name].what


def test_nan_passes_no_condition_though_it_is_the_largest_number(
    check: Callable[..., dict[str, CheckResult]],
) -> None:
    with duckdb.connect() as con:
        assert con.execute("SELECT 'nan'::DOUBLE >= 0").fetchall() == [(True,)]
    results = check(rows(share=[0.0, NAN, 0.5, 1.0]))
    assert failed(results) == ["values", "finite"]
    assert results["values"].n_breaches == 1


def test_a_missing_row_is_found_where_the_others_of_its_kind_are(
    check: Callable[..., dict[str, CheckResult]],
) -> None:
    results = check(rows().head(3))
    assert failed(results) == ["rows"]
    assert results["rows"].what == "1 row: kind pair, n_rows 1, n_expected 2"


def test_rows_without_their_sae_dangle(check: Callable[..., dict[str, CheckResult]]) -> None:
    results = check(rows(), sae=False)
    assert failed(results) == ["references", "below"]
    assert results["references"].what == "1 row: study organism, layer 0, lacks_it attention_sae"


def test_null_in_rows_of_an_older_declaration(
    check: Callable[..., dict[str, CheckResult]],
) -> None:
    results = check(rows(share=[0.0, None, 0.5, 1.0]), loose=True)
    assert failed(results) == ["not_null"]
    assert "nulls_in share, head 1, kind alone" in results["not_null"].what


def test_nulls_of_a_key_are_equal(tmp_path: Path, sql: Path) -> None:
    lake = Lake(tmp_path / "lake", sql=sql)
    scope = Scope("organism", {"study": "organism"})
    for raters, expected in (
        ([None, "a"], []),
        ([None, None], ["key"]),
        (["a", "a"], ["key"]),
        ([], ["rows"]),
    ):
        notes = pl.DataFrame({"rater": raters}, schema={"rater": pl.String})
        lake.write("notes", "organism", notes, PROVENANCE)
        found = run_checks(lake, [(table_checks(sql)["notes"], scope)])
        assert [one.check.name for one in found if not one.passed] == expected


def test_five_breaches_are_shown_and_all_are_counted(
    check: Callable[..., dict[str, CheckResult]],
) -> None:
    many = pl.concat([rows(share=[-1.0] * 4), rows(share=[-1.0] * 4)])
    result = check(many)["values"]
    assert (result.n_breaches, result.breaches.height) == (8, SHOWN_ROWS)
    assert result.what.startswith("8 rows: ")
    assert result.what.endswith("; ...")


def test_the_statement_of_a_result_runs_by_hand(
    tmp_path: Path, sql: Path, check: Callable[..., dict[str, CheckResult]]
) -> None:
    results = check(rows(layer=[0, 0, 0, 2], share=[-1.0, 0.0, 0.5, 1.0]))
    with Lake(tmp_path / "lake", sql=sql).connect() as con:
        for name in ("values", "partition"):
            assert len(con.execute(results[name].sql).fetchall()) == results[name].n_breaches == 1


def test_a_file_of_its_own_says_what_a_table_means(
    sql: Path, check: Callable[..., dict[str, CheckResult]]
) -> None:
    (sql / "checks" / "head_values.shares_sum.sql").write_text(OWN)
    assert failed(check(rows(), most=1.25)) == []
    for share in (0.9, NAN):
        result = check(rows(share=[0.0, share, 0.0, 0.5]), most=1.25)["shares_sum"]
        assert (result.passed, result.check.severity) == (False, "error")
        assert result.check.description == "Shares of a head sum to less than the study allows"
    (sql / "checks" / "head_values.shares_sum.sql").write_text("-- severity: warn\n" + OWN)
    table = frame(check(rows(), most=0.9).values())
    assert table.columns == ["table", "partition", "check", "severity", "passed", "what"]
    row = table.row(by_predicate=pl.col("check") == "shares_sum", named=True)
    assert (row["table"], row["partition"], row["severity"]) == (
        *("head_values", "organism.L00", "warn"),
    )
    assert (row["passed"], row["what"]) == (False, "1 row: head 1, total 1.25")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("nowhere.x", OWN, "no table 'nowhere'"),
        ("head_values", OWN, "name it <table>"),
        ("head_values.key", OWN, "has a check of that name"),
        ("head_values.x", "SELECT 1 WHERE false", "say in a comment"),
        ("head_values.x", "-- severity: fatal\n" + OWN, "'fatal' is none of error, warn"),
    ],
)
def test_a_file_of_checks_that_cannot_be_read(
    sql: Path, name: str, text: str, complaint: str
) -> None:
    (sql / "checks" / f"{name}.sql").write_text(text)
    with pytest.raises(DeclarationError, match=complaint):
        table_checks(sql)


def test_a_partition_without_data_cannot_be_checked(tmp_path: Path, sql: Path) -> None:
    lake = Lake(tmp_path / "lake", sql=sql)
    lake.write("notes", "organism", pl.DataFrame({"rater": ["a"]}), PROVENANCE)
    scope = Scope("other", {"study": "other"})
    with pytest.raises(LakeError, match="notes has no data for other; materialize"):
        list(run_checks(lake, [(table_checks(sql)["notes"], scope)]))


# ---- what the repository declares ----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(table_specs()))
def test_every_table_has_a_key(name: str) -> None:
    spec = table_specs()[name]
    assert spec.constraints.keys, f"sql/tables/{name}.sql: declare PRIMARY KEY or UNIQUE"
    for key in spec.constraints.keys:
        assert "study" in key
        assert ("layer" in key) or spec.per == "study"


def test_every_statement_can_be_run(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    vocabulary = pl.DataFrame(
        {
            "token_id": [0],
            "token": ["a"],
            "bytes_hex": ["61"],
            "is_special": [False],
            "count_train": [0],
            "count_held_out": [0],
        }
    )
    lake.write("vocabulary", "organism", vocabulary, PROVENANCE)
    bounds = {
        "checks.l0": [0.0, 1.0],
        "checks.ce_recovered_min": 0.5,
        "checks.outlier_share_max": 0.1,
    }
    with lake.connect() as con:
        for name, value in {"layer": 0, **bounds}.items():
            con.execute(f'SET VARIABLE "{name}" = {value}')
        con.execute("SET VARIABLE study = 'organism'")
        path = con.execute("SELECT path FROM versions").fetchall()[0][0]
        con.execute(f"SET VARIABLE file = '{path}'")
        for table, checks in table_checks().items():
            for check in checks:
                if check.name != "partition" or table == "vocabulary":
                    con.execute(f"EXPLAIN {check.sql}")
