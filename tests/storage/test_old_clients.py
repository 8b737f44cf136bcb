"""The catalog and exports open in every DuckDB since 1.0, views and comments included.

`MECHINTERP_OLD_DUCKDB` names the Python of an environment with an older duckdb package, such as
the one that `make old-duckdb` makes; without it the test that needs one skips.
"""

import json
import os
import subprocess
from pathlib import Path

import duckdb
import polars as pl
import pytest

from mechinterp_assets.app.queries import all_queries
from mechinterp_assets.storage.catalog import STORAGE_VERSION
from mechinterp_assets.storage.declarations import polars_schema
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance

ROOT = Path(__file__).resolve().parents[2]
# What DuckDB writes into the header of files for 1.0 and 1.1; from offset 12, 8 bytes.
FORMAT_OF_1_0 = 64
READ_ALL = """
import json, sys, duckdb
found = {"version": duckdb.__version__, "rows": {}, "failed": {}}
with duckdb.connect(sys.argv[1], read_only=True) as con:
    relations = con.execute(
        "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
    ).fetchall()
    for schema, name in relations:
        try:
            rows = con.execute(f'SELECT * FROM "{schema}"."{name}" LIMIT 1').fetchall()
            found["rows"][f"{schema}.{name}"] = len(rows)
        except duckdb.Error as error:
            found["failed"][f"{schema}.{name}"] = str(error)
    for name, sql in json.load(sys.stdin).items():
        try:
            con.execute(sql).fetchall()
        except duckdb.Error as error:
            found["failed"][name] = str(error)
    if len(sys.argv) > 2:
        found["history"] = con.execute(
            "SELECT count(*) FROM table_version('head_scores', 1)"
        ).fetchall()[0][0]
    found["uncommented"] = con.execute(
        "SELECT schema_name || '.' || table_name || '.' || column_name FROM duckdb_columns()"
        " WHERE NOT internal AND comment IS NULL ORDER BY ALL"
    ).fetchall()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of every declared table, each with one row, some with a second version."""
    lake = Lake(tmp_path_factory.mktemp("old") / "lake")
    provenance = Provenance("organism", "0123456789ab", "code-7", "m1")
    frames = {name: one_row(polars_schema(spec)) for name, spec in lake.declared.tables.items()}
    lake.write_many(frames, "organism", provenance, {"weights": "w"})
    lake.write("head_scores", "organism", frames["head_scores"], provenance)
    lake.export(lake.root / "export.duckdb")
    return lake


def one_row(schema: pl.Schema) -> pl.DataFrame:
    """A row of ones, whatever the types."""

    def value(dtype: pl.DataType) -> object:
        if isinstance(dtype, pl.List):
            return [value(pl.Series(dtype=dtype.inner).dtype)]
        return "1" if dtype == pl.String else True if dtype == pl.Boolean else 1

    return pl.DataFrame({name: [value(dtype)] for name, dtype in schema.items()}, schema=schema)


@pytest.mark.parametrize(
    "name", ["mechinterp.duckdb", ".catalog/mechinterp.duckdb", "export.duckdb"]
)
def test_files_are_written_for_duckdb_1_0(lake: Lake, name: str) -> None:
    header = (lake.root / name).read_bytes()[:20]
    assert header[8:12] == b"DUCK"
    assert int.from_bytes(header[12:20], "little") == FORMAT_OF_1_0
    with duckdb.connect(str(lake.root / name), read_only=True) as con:
        (tags,) = con.execute(
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE path LIKE '%duckdb'"
        ).fetchall()
    assert tags[0].startswith(STORAGE_VERSION)


def test_a_catalog_that_was_brought_up_to_date_is_for_duckdb_1_0_still(lake: Lake) -> None:
    rows = one_row(polars_schema(lake.declared.tables["head_scores"]))
    lake.write("head_scores", "organism", rows, Provenance("organism", "a", "1"))
    header = lake.database.read_bytes()[:20]
    assert int.from_bytes(header[12:20], "little") == FORMAT_OF_1_0


@pytest.mark.parametrize("name", ["mechinterp.duckdb", "export.duckdb"])
def test_an_old_client_reads_every_table_and_view_and_answers_every_query(
    lake: Lake, name: str
) -> None:
    python = os.environ.get("MECHINTERP_OLD_DUCKDB", str(ROOT / ".venv-old-duckdb/bin/python"))
    if not Path(python).exists():
        pytest.skip("no environment with an older DuckDB; `make old-duckdb` makes one")
    has_history = ["history"] if name == "mechinterp.duckdb" else []
    done = subprocess.run(
        [python, "-c", READ_ALL, str(lake.root / name), *has_history],
        input=json.dumps({query.name: query.sql for query in all_queries()}),
        capture_output=True,
        text=True,
        check=True,
        env={key: text for key, text in os.environ.items() if key != "PYTHONPATH"},
    )
    found = json.loads(done.stdout)
    assert found["version"].startswith("1.")
    assert found["failed"] == {}
    assert found["uncommented"] == []
    tables = lake.declared.tables
    assert {name: found["rows"][f"main.{name}"] for name in tables} == dict.fromkeys(tables, 1)
    assert {view.name for view in lake.declared.views} <= {
        key.removeprefix("main.") for key in found["rows"]
    }
    if has_history:
        assert found["history"] == 1
