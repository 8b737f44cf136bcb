"""Declarations read back from SQL, and what is refused."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from mechinterp_assets.storage.declarations import (
    DeclarationError,
    declarations,
    polars_schema,
    table_spec,
    table_specs,
)
from mechinterp_assets.storage.table_spec import Reference

COMMENTED = "COMMENT ON TABLE t IS 'One row per x'; COMMENT ON COLUMN t.x IS 'x';"


def declared(header: str) -> str:
    """A declaration with a line, or lines, in its header."""
    return f"-- formula: 1\n{header}\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}"


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """Folder that declares nothing but provenance and the catalog's own relations."""
    own = Path(__file__).resolve().parents[2] / "sql"
    for name in ("tables", "views"):
        (tmp_path / name).mkdir()
    for name in ("provenance.sql", "catalog.sql"):
        (tmp_path / name).write_text((own / name).read_text())
    return tmp_path


def declare(sql: Path, text: str, name: str = "t") -> None:
    (sql / "tables" / f"{name}.sql").write_text(text)


def test_a_declaration_is_read_back_from_duckdb(sql: Path) -> None:
    declare(
        sql,
        "-- formula: 3\nCREATE TABLE t (study VARCHAR, x INTEGER NOT NULL, y FLOAT[]);"
        "COMMENT ON TABLE t IS 'One row per x';"
        "COMMENT ON COLUMN t.x IS 'the x''s value'; COMMENT ON COLUMN t.y IS 'terms';",
    )
    spec = table_spec("t", sql)
    assert (spec.name, spec.comment, spec.formula_version) == ("t", "One row per x", 3)
    assert [(c.name, c.type, c.nullable) for c in spec.science_columns] == [
        ("x", "INTEGER", False),
        ("y", "FLOAT[]", True),
    ]
    assert spec.columns[1].comment == "the x's value"
    assert spec.columns[0].comment.startswith("Study")
    assert [c.name for c in spec.provenance] == [
        "run_id",
        "code_version",
        "formula_version",
        "model_version",
        "corpus_version",
        "sae_version",
    ]
    assert all(column.comment for column in spec.stored_columns)
    assert polars_schema(spec) == {"x": pl.Int32(), "y": pl.List(pl.Float32())}
    assert polars_schema(spec, stored=True)["formula_version"] == pl.Int32()


def test_constraints_are_read_back(sql: Path) -> None:
    declare(
        sql,
        "-- formula: 1\n-- rows: one per row of t for each x\n"
        "-- references: study, y -> t (study, x) where y > 0\n-- may be infinite or NaN: z\n"
        "CREATE TABLE t (study VARCHAR, x INTEGER CHECK (x > 0), y INTEGER, z FLOAT[],"
        " UNIQUE (study, y), PRIMARY KEY (study, x), CHECK (y <= x));"
        "COMMENT ON TABLE t IS 't'; COMMENT ON COLUMN t.x IS 'x'; COMMENT ON COLUMN t.y IS 'y';"
        "COMMENT ON COLUMN t.z IS 'z';",
    )
    spec = table_spec("t", sql)
    found = spec.constraints
    assert found.keys == (("study", "x"), ("study", "y"))
    assert [(one.expression, one.columns) for one in found.conditions] == [
        ("(x > 0)", ("x",)),
        ("(y <= x)", ("y", "x")),
    ]
    assert found.references == (Reference(("study", "y"), "t", ("study", "x"), "y > 0"),)
    assert found.rows is not None
    assert (found.rows.words, found.rows.for_each) == ("one per row of t for each x", ("x",))
    assert found.not_finite == {"z"}
    assert [column.nullable for column in spec.columns] == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"CREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}", "-- formula: N"),
        (
            "-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT);"
            "COMMENT ON TABLE t IS 'One row per x';",
            "no comment on x",
        ),
        (
            "-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); COMMENT ON COLUMN t.x IS 'x'",
            "no comment on t itself",
        ),
        (
            f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}".replace(
                "t ", "other "
            ).replace("t.", "other."),
            "must create t and nothing else",
        ),
        (f"-- formula: 1\nCREATE TABLE t (x BIGINT); {COMMENTED}", "no study column"),
        (
            f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT, run_id VARCHAR); {COMMENTED}",
            "run_id",
        ),
        (f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x DATE); {COMMENTED}", "type DATE"),
        (
            "-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT UNIQUE REFERENCES t (x));"
            f" {COMMENTED}",
            "declares a FOREIGN KEY; write it as a line of its header",
        ),
        (declared("-- references: t study, x"), "cannot read '-- references: t study, x'"),
        (declared("-- references: x -> t (study, x)"), "pairs 1 columns with 2"),
        (declared("-- references: y -> t (x)"), "has no column y"),
        (declared("-- references: u (x)"), r"references u\.x, which is not declared"),
        (declared("-- rows: one per head for each y"), "has no column y"),
        (declared("-- rows: one per feature"), "write one of one, at least one, one per layer"),
        (declared("-- below: x < n_widgets"), "a size being one of n_layers, n_heads"),
        (declared("-- below: x < d_sae"), "needs a column layer, to find its SAE by"),
        (declared("-- rows: one\n-- rows: one"), "two lines '-- rows:'"),
        (declared("-- may be infinite or NaN: x"), "x is BIGINT, always finite"),
        ("-- formula: 1\nCREATE TABEL t (x BIGINT);", "not valid SQL"),
    ],
)
def test_a_bad_declaration_is_refused_by_name(sql: Path, text: str, complaint: str) -> None:
    declare(sql, text)
    with pytest.raises(DeclarationError, match=complaint) as error:
        table_specs(sql)
    assert "tables/t.sql" in str(error.value)


def test_a_name_of_the_catalog_is_refused(sql: Path) -> None:
    text = f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}"
    named = text.replace("TABLE t", "TABLE lineage").replace("t.x", "lineage.x")
    declare(sql, named, "lineage")
    with pytest.raises(DeclarationError, match="lineage"):
        declarations(sql)


def test_views_come_in_the_order_they_need_and_inherit_comments(sql: Path) -> None:
    declare(sql, f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}")
    (sql / "views" / "a.sql").write_text(
        "CREATE VIEW a AS SELECT x, n FROM b; COMMENT ON VIEW a IS 'first by name';"
    )
    (sql / "views" / "b.sql").write_text(
        "CREATE VIEW b AS SELECT x, count(*) AS n FROM t GROUP BY x; COMMENT ON VIEW b IS 'b';"
        "COMMENT ON COLUMN b.n IS 'rows';"
    )
    views = declarations(sql).views
    assert [view.name for view in views] == ["b", "a"]
    assert [column.comment for column in views[1].columns] == ["x", "rows"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("CREATE VIEW v AS SELECT y FROM t;", "not valid SQL"),
        ("CREATE VIEW v AS SELECT * FROM nowhere;", "does not exist"),
        ("CREATE VIEW v AS SELECT x FROM t;", "no comment on v itself"),
        (
            "CREATE VIEW v AS SELECT x + 1 AS z FROM t; COMMENT ON VIEW v IS 'v'",
            "no comment on z",
        ),
    ],
)
def test_a_broken_view_is_refused_by_name(sql: Path, text: str, complaint: str) -> None:
    declare(sql, f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}")
    (sql / "views" / "v.sql").write_text(text)
    with pytest.raises(DeclarationError, match=complaint) as error:
        declarations(sql)
    assert "views/v.sql" in str(error.value)


def test_a_changed_file_is_read_again(sql: Path) -> None:
    text = f"-- formula: 1\nCREATE TABLE t (study VARCHAR, x BIGINT); {COMMENTED}"
    declare(sql, text)
    assert table_spec("t", sql).formula_version == 1
    declare(sql, text.replace("formula: 1", "formula: 2"))
    assert table_spec("t", sql).formula_version == 2


def test_a_missing_folder_or_table_says_what_to_do(tmp_path: Path, sql: Path) -> None:
    with pytest.raises(DeclarationError, match="the installation is incomplete; install"):
        declarations(tmp_path / "nowhere")
    with pytest.raises(DeclarationError, match=r"sql/tables/gone\.sql"):
        table_spec("gone", sql)


def test_the_repository_declares_tables_that_load() -> None:
    specs = table_specs()
    assert specs
    for spec in specs.values():
        assert spec.formula_version >= 1
        polars_schema(spec, stored=True)


def test_every_column_of_the_catalogs_own_relations_is_explained() -> None:
    with duckdb.connect() as con:
        con.execute(declarations().catalog_sql)
        unexplained = con.sql(
            "SELECT table_name, column_name FROM duckdb_columns()"
            " WHERE NOT internal AND coalesce(comment, '') = ''"
        ).fetchall()
        lineage = con.sql("DESCRIBE lineage").fetchall()
    assert unexplained == []
    assert len(lineage) > 15
