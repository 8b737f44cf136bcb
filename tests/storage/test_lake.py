"""Tables in the lake: what is written is what is read, by everybody, as long as promised."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import polars as pl
import pytest
import stress

from mechinterp_assets.resources.lake import LakeResource
from mechinterp_assets.storage.conform import FrameError
from mechinterp_assets.storage.declarations import DeclarationError, polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.observations import Observation
from mechinterp_assets.storage.provenance import Provenance

Scores = Callable[..., pl.DataFrame]


def query(lake: Lake, text: str) -> list[tuple[Any, ...]]:
    """Result of a query in the database file, opened as any other program would."""
    with duckdb.connect(str(lake.database), read_only=True) as con:
        return con.execute(text).fetchall()


def test_a_written_frame_is_read_back_with_its_provenance(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    done = lake.write("head_scores", "organism.L00", scores(0.25, 0.5), provenance, {"m": "m1"})
    assert (done.version, done.rows) == (1, 2)
    assert done.path.name == "v00000001-01234567.parquet"
    assert done.bytes == done.path.stat().st_size
    read = lake.read("head_scores", "organism.L00").collect()
    assert dict(read.schema) == dict(
        polars_schema(lake.declared.tables["head_scores"], stored=True)
    )
    assert read["value"].to_list() == [0.25, 0.5]
    assert read.select("study", "run_id", "code_version", "formula_version").unique().rows() == [
        ("organism", "0123456789ab-cdef", "code-7", 1)
    ]
    assert read["model_version"].to_list() == ["m1", "m1"]
    assert read["sae_version"].null_count() == 2
    assert lake.sql("FROM head_scores").equals(read)
    assert lake.inputs("head_scores", "organism.L00") == {"m": "m1"}
    assert lake.data_version("head_scores", "organism.L00") == done.data_version
    metadata = pl.read_parquet_metadata(done.path)
    assert metadata["mechinterp.data_version"] == done.data_version
    assert '"run_id": "0123456789ab-cdef"' in metadata["mechinterp.provenance"]


def test_equal_content_has_equal_data_versions_and_own_files(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    first = lake.write("head_scores", "p", scores(0.5), provenance)
    again = lake.write("head_scores", "p", scores(0.5), Provenance("organism", "other", "code-8"))
    other = lake.write("head_scores", "p", scores(0.6), provenance)
    assert first.data_version == again.data_version != other.data_version
    assert [v.version for v in lake.versions("head_scores", "p")] == [1, 2, 3]
    assert first.path.exists()
    assert again.path.exists()


def test_reads_are_of_current_versions_of_the_partitions_asked_for(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    for layer in range(3):
        lake.write("head_scores", f"o.L0{layer}", scores(0.1, layer=layer), provenance)
    lake.write("head_scores", "o.L01", scores(0.9, layer=1), provenance)
    assert sorted(lake.read("head_scores").collect()["value"]) == [0.1, 0.1, 0.9]
    assert lake.read("head_scores", ["o.L00", "o.L01"]).collect()["value"].to_list() == [0.1, 0.9]
    assert lake.partitions("head_scores") == ["o.L00", "o.L01", "o.L02"]
    assert lake.exists("head_scores", "o.L02")
    assert not lake.exists("head_scores", "o.L03")
    assert query(lake, "SELECT sum(value) FROM head_scores") == [(pytest.approx(1.1),)]
    assert lake.read("head_scores", []).collect().height == 0


def test_what_is_not_there_names_the_asset_to_materialize(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    with pytest.raises(LakeError, match="materialize the asset head_scores"):
        lake.read("head_scores")
    lake.write("head_scores", "o.L00", scores(0.1), provenance)
    with pytest.raises(LakeError, match=r"no data for o\.L07 .*materialize .*o\.L00"):
        lake.read("head_scores", ["o.L00", "o.L07"])
    with pytest.raises(LakeError, match="materialize the asset"):
        lake.data_version("head_scores", "o.L07")
    with pytest.raises(DeclarationError, match="no table 'head_score'"):
        lake.read("head_score")


def test_a_frame_that_does_not_fit_changes_nothing(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    good = scores(0.5)
    lake.write("head_scores", "p", good, provenance)
    counts = pl.DataFrame({"role": [None], "n": [1]}, schema={"role": pl.String, "n": pl.Int64})
    with pytest.raises(FrameError, match="role_counts"):
        lake.write_many({"head_scores": good, "role_counts": counts}, "p", provenance)
    with pytest.raises(LakeError, match="cannot name a folder"):
        lake.write("head_scores", "../p", good, provenance)
    assert [v.version for v in lake.versions("head_scores", "p")] == [1]
    assert sorted(path.name for path in lake.root.glob("*/*/*.parquet")) == [
        "v00000001-01234567.parquet"
    ]


def test_an_empty_frame_is_a_version_too(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    lake.write("head_scores", "p", scores(0.5), provenance)
    assert lake.write("head_scores", "p", scores(), provenance).rows == 0
    assert lake.read("head_scores").collect().height == 0
    assert query(lake, "SELECT count(*) FROM head_scores") == [(0,)]


def test_several_tables_become_current_together(
    lake: Lake, scores: Scores, provenance: Provenance
) -> None:
    counts = pl.DataFrame({"role": ["induction"], "n": [1]})
    done = lake.write_many({"head_scores": scores(0.5), "role_counts": counts}, "p", provenance)
    assert done["role_counts"].version == 1
    assert query(lake, "SELECT count(DISTINCT written_at), count(*) FROM lineage") == [(2, 2)]
    # A process that dies between the files and the commit has published neither.

    class Killed(BaseException):
        pass

    def die(*args: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechinterp_assets.storage.ledger.Commit.add", die)
        with pytest.raises(Killed):
            lake.write_many({"head_scores": scores(0.7), "role_counts": counts}, "p", provenance)
    assert lake.read("head_scores").collect()["value"].to_list() == [0.5]
    assert len(list(lake.root.glob("head_scores/p/*.parquet"))) == 2
    lake.write("head_scores", "p", scores(0.8), provenance)
    assert len(list(lake.root.glob("head_scores/p/*.parquet"))) == 2  # the stray one is set aside
    assert lake.read("head_scores").collect()["value"].to_list() == [0.8]


def test_comments_and_types_reach_duckdb(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    lake.refresh()  # role_counts and head_scores have no data: empty typed views
    lake.write("head_scores", "p", scores(0.5), provenance)
    found: dict[str, str] = dict(
        query(
            lake,
            "SELECT table_name || '.' || column_name, data_type || ': ' || comment"
            " FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal",
        )
    )
    assert found["head_scores.value"] == "DOUBLE: Score, 0 to 1; the head's own"
    assert found["head_scores.terms"] == "FLOAT[]: Terms that sum to the score"
    assert found["head_scores.run_id"].startswith("VARCHAR: Dagster run")
    assert found["role_counts.n"] == "BIGINT: Heads that have it"
    assert found["scored_heads.best"] == "DOUBLE: Highest score of the head"
    assert found["best_heads.layer"] == "INTEGER: Layer, from 0"
    views: dict[str, str] = dict(
        query(lake, "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
    )
    assert views["role_counts"] == "One row per role"
    assert query(lake, "SELECT count(*) FROM role_counts") == [(0,)]


def test_views_of_views_show_the_data(lake: Lake, provenance: Provenance, scores: Scores) -> None:
    lake.write("head_scores", "p", scores(0.25, 0.75), provenance)
    assert query(lake, "FROM best_heads") == [("organism", 0, 1)]


def test_older_versions_can_be_queried(
    lake: Lake, provenance: Provenance, scores: Scores, tmp_path: Path
) -> None:
    for value in (0.1, 0.2, 0.3):
        lake.write("head_scores", "o.L00", scores(value), provenance)
    lake.write("head_scores", "o.L01", scores(0.4, layer=1), provenance)
    text = "SELECT partition, version, value FROM table_version('head_scores', {}) ORDER BY 1"
    assert query(lake, text.format(2)) == [("o.L00", 2, 0.2)]
    assert query(lake, text.format(1)) == [("o.L00", 1, 0.1), ("o.L01", 1, 0.4)]
    assert query(lake, text.format(9)) == []
    compared = "SELECT version, value FROM {}history.head_scores WHERE layer = 0 ORDER BY version"
    assert query(lake, compared.format("")) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as con:
        con.execute(f"ATTACH '{lake.database}' AS lab (READ_ONLY)")
        assert con.execute(compared.format("lab.")).fetchall()[1] == (2, 0.2)
        assert con.execute("SELECT count(*) FROM lab.scored_heads").fetchone() == (2,)


def test_lineage_tells_where_a_partition_comes_from(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    done = lake.write("head_scores", "p", scores(0.5), provenance, {"model": "m1"})
    (row,) = query(
        lake,
        "SELECT version, data_version, run_id, formula_version, current_formula_version,"
        " inputs['model'], rows, bytes, path, study,"
        " abs(epoch(written_at) - epoch(now()::TIMESTAMP)) < 60 FROM lineage"
        " WHERE table_name = 'head_scores' AND partition = 'p'",
    )
    expected = (1, done.data_version, provenance.run_id, 1, 1, "m1", 1, done.bytes, str(done.path))
    assert row == (*expected, "organism", True)


def test_a_changed_input_makes_exactly_its_readers_stale(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    counts = pl.DataFrame({"role": ["induction"], "n": [1]})
    for name in ("a", "b"):
        done = lake.write("head_scores", name, scores(0.5), provenance)
        inputs = {f"head_scores/{name}": done.data_version, "weights": "w"}
        lake.write("role_counts", name, counts, provenance, inputs)
    stale = "SELECT table_name, partition, cause, input FROM stale_partitions"
    assert query(lake, stale) == []
    lake.write("head_scores", "a", scores(0.5), provenance)  # the same content
    assert query(lake, stale) == []
    changed = lake.write("head_scores", "a", scores(0.6), provenance)
    assert query(lake, stale) == [("role_counts", "a", "input", "head_scores/a")]
    assert query(lake, "SELECT current FROM stale_partitions") == [(changed.data_version,)]
    lake.write("role_counts", "a", counts, provenance, {"head_scores/a": changed.data_version})
    assert query(lake, stale) == []


@pytest.mark.parametrize(
    ("recorded", "now", "words"),
    [
        ("1a", "1a", None),
        ("1a", "2b", "changed"),
        ("1a", "absent", "is gone"),
        ("1a", None, "is no longer named"),
        ("absent", "1a", "is there now"),
        ("absent", "absent", None),
        ("absent", None, "is no longer named"),
    ],
)
def test_what_became_of_a_file_is_said(
    lake: Lake,
    provenance: Provenance,
    scores: Scores,
    recorded: str,
    now: str | None,
    words: str | None,
) -> None:
    lake.write("head_scores", "p", scores(0.5), provenance, {"file:labels/a.csv": recorded})
    inputs = {("organism", "settings:heads.sequences"): "16"}
    if now is not None:
        inputs["organism", "file:labels/a.csv"] = now
    lake.observe(Observation(inputs, {("head_scores", "p"): "organism"}))
    expected = [] if words is None else [("head_scores", "file", f"file labels/a.csv {words}")]
    found = lake.sql("SELECT table_name, cause, reason FROM stale_partitions")
    assert found.rows() == expected


def test_a_changed_formula_makes_exactly_its_table_stale(
    lake: Lake, provenance: Provenance, scores: Scores, sql: Path
) -> None:
    counts = pl.DataFrame({"role": ["induction"], "n": [1]})
    lake.write_many({"head_scores": scores(0.5), "role_counts": counts}, "p", provenance)
    declared = sql / "tables" / "role_counts.sql"
    declared.write_text(declared.read_text().replace("formula: 1", "formula: 2"))
    lake.refresh()
    stale = "SELECT table_name, cause, recorded, current FROM stale_partitions"
    assert query(lake, stale) == [("role_counts", "formula", "1", "2")]
    lake.write("role_counts", "p", counts, provenance)
    assert query(lake, stale) == []
    assert lake.read("role_counts").collect()["formula_version"].to_list() == [2]


def test_a_table_that_is_no_longer_declared_stays_and_only_its_readers_are_stale(
    lake: Lake, provenance: Provenance, scores: Scores, sql: Path
) -> None:
    counts = pl.DataFrame({"role": ["induction"], "n": [1]})
    done = lake.write("head_scores", "p", scores(0.5), provenance, {"settings:heads.k": "1"})
    inputs = {"head_scores/p": done.data_version}
    lake.write("role_counts", "p", counts, provenance, inputs)
    for kind in ("tables", "views", "checks"):
        for declared in sql.glob(f"{kind}/*"):
            if declared.name != "role_counts.sql":
                declared.unlink()
    lake.refresh()
    lake.observe(Observation({("organism", "settings:heads.k"): "2"}, {}))
    assert query(lake, "SELECT n FROM role_counts") == [(1,)]
    reason = "head_scores/p is of a table that is no longer made"
    assert query(lake, "SELECT table_name, cause, reason FROM stale_partitions") == [
        ("role_counts", "input", reason)
    ]
    assert query(lake, "SELECT rows FROM lineage WHERE table_name = 'head_scores'") == [(1,)]


def test_changed_columns_read_as_null_until_written_again(
    lake: Lake, provenance: Provenance, sql: Path
) -> None:
    counts = pl.DataFrame({"role": ["induction", "5"], "n": [1, 2**40]})
    lake.write("role_counts", "p", counts, provenance)
    declared = sql / "tables" / "role_counts.sql"
    declared.write_text(
        declared.read_text().replace("n BIGINT", "share DOUBLE, n INTEGER")
        + "COMMENT ON COLUMN role_counts.share IS 'Share of the heads, 0 to 1';"
    )
    rows = [("induction", None, 1), ("5", None, None)]
    assert lake.sql("SELECT role, share, n FROM role_counts").rows() == rows
    assert lake.read("role_counts").select("role", "share", "n").collect().rows() == rows
    assert lake.sql("SELECT table_name, cause FROM stale_partitions").rows() == [
        ("role_counts", "columns")
    ]
    share = counts.with_columns(n=1, share=0.5)
    lake.write("role_counts", "q", share, provenance)
    assert lake.read("role_counts").collect().height == 4
    assert lake.sql("SELECT count(*), count(share) FROM history.role_counts").rows() == [(4, 2)]


def test_a_broken_view_is_an_error_before_anything_is_written(
    lake: Lake, provenance: Provenance, scores: Scores, sql: Path
) -> None:
    (sql / "views" / "bad.sql").write_text("CREATE VIEW bad AS SELECT nothing FROM head_scores;")
    with pytest.raises(DeclarationError, match=r"views/bad\.sql"):
        lake.write("head_scores", "p", scores(0.5), provenance)
    assert not lake.root.exists()


def test_superseded_versions_go_after_their_time(
    lake: Lake, provenance: Provenance, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("mechinterp_assets.storage.lake.time", SimpleNamespace(time=lambda: now))
    first = lake.write("head_scores", "p", scores(0.1), provenance)
    now += lake.keep_seconds + 1
    lake.write("head_scores", "p", scores(0.2), provenance)
    assert first.path.exists()  # old itself, but superseded only now
    now += lake.keep_seconds - 1
    lake.refresh()
    assert first.path.exists()
    now += 2
    lake.write("role_counts", "p", pl.DataFrame({"role": ["a"], "n": [1]}), provenance)
    assert not first.path.exists()
    assert query(lake, "SELECT version FROM versions WHERE table_name = 'head_scores'") == [(2,)]
    assert lake.write("head_scores", "p", scores(0.3), provenance).version == 3


def test_an_open_reader_keeps_its_snapshot(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    lake.write("head_scores", "p", scores(0.1), provenance)
    lazy = lake.read("head_scores")
    with duckdb.connect(str(lake.database), read_only=True) as con, lake.connect() as own:
        lake.write("head_scores", "p", scores(0.2), provenance)
        assert con.execute("SELECT value FROM head_scores").fetchall() == [(0.1,)]
        assert own.execute("SELECT value FROM head_scores").fetchall() == [(0.1,)]
        with lake.connect() as fresh:  # in the same process as the old ones
            assert fresh.execute("SELECT value FROM head_scores").fetchall() == [(0.2,)]
    assert lazy.collect()["value"].to_list() == [0.1]


OPEN_FOR_WRITING = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print(con.execute("SELECT value FROM head_scores").fetchall(), flush=True)
sys.stdin.readline()
try:
    con.execute("CREATE TABLE mine AS SELECT 1 AS a")
    print("written", flush=True)
except duckdb.Error as error:
    print("refused", con.execute("SELECT value FROM head_scores").fetchall(), flush=True)
sys.stdin.readline()
con.close()
"""


def test_somebody_with_the_file_open_for_writing_disturbs_nobody(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    lake.write("head_scores", "p", scores(0.1), provenance)
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_FOR_WRITING, str(lake.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "[(0.1,)]\n"
        # It has the file locked: the lake's own connections and writes go on.
        assert lake.sql("SELECT value FROM head_scores").rows() == [(0.1,)]
        lake.write("head_scores", "p", scores(0.2), provenance)
        assert query(lake, "SELECT value FROM head_scores") == [(0.2,)]
        # It holds the catalog of before; what it writes must not hurt the new one.
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "refused [(0.1,)]\n"
        assert query(lake, "SELECT value FROM head_scores") == [(0.2,)]
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.wait(30) == 0
    assert query(lake, "SELECT value FROM head_scores") == [(0.2,)]
    lake.write("head_scores", "p", scores(0.3), provenance)
    assert query(lake, "SELECT value FROM head_scores") == [(0.3,)]


def test_the_lake_moves_with_its_folder(
    lake: Lake, provenance: Provenance, scores: Scores, tmp_path: Path, sql: Path
) -> None:
    lake.write("head_scores", "p", scores(0.1), provenance)
    shutil.move(lake.root, tmp_path / "elsewhere it's")
    moved = Lake(tmp_path / "elsewhere it's", sql=sql)
    assert moved.read("head_scores").collect()["value"].to_list() == [0.1]
    moved.refresh()
    assert query(moved, "SELECT value FROM head_scores") == [(0.1,)]
    assert query(moved, "SELECT path FROM lineage")[0][0] == str(
        moved.root / "head_scores" / "p" / "v00000001-01234567.parquet"
    )


def test_the_catalog_file_comes_back_when_deleted(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    lake.write("head_scores", "p", scores(0.1), provenance)
    lake.database.unlink()
    shutil.rmtree(lake.root / ".catalog")
    assert lake.sql("SELECT value FROM head_scores").rows() == [(0.1,)]
    assert query(lake, "SELECT value FROM head_scores") == [(0.1,)]


def test_a_lost_ledger_is_made_again_from_the_files(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    for value in (0.1, 0.2):
        lake.write("head_scores", "p", scores(value), provenance, {"model": "m1"})
    before = lake.sql("SELECT * EXCLUDE (written_at) FROM versions ORDER BY version")
    (lake.root / "ledger.sqlite").unlink()
    with pytest.raises(LakeError, match=r"no ledger\.sqlite"):
        lake.write("head_scores", "p", scores(0.3), provenance)
    with pytest.raises(LakeError, match=r"no ledger\.sqlite"):
        lake.refresh()
    assert lake.rebuild() == 2
    after = lake.sql("SELECT * EXCLUDE (written_at) FROM versions ORDER BY version")
    assert after.equals(before)
    assert lake.inputs("head_scores", "p") == {"model": "m1"}


def test_an_export_needs_no_other_file(
    lake: Lake, provenance: Provenance, scores: Scores, tmp_path: Path
) -> None:
    lake.write("head_scores", "p", scores(0.1), provenance)
    lake.write("head_scores", "p", scores(0.25, 0.75), provenance, {"model": "m1"})
    target = tmp_path / "out" / "lab.duckdb"
    assert lake.export(target) == target
    assert lake.export(target) == target  # over the one before
    assert [path.name for path in target.parent.iterdir()] == ["lab.duckdb"]
    shutil.move(lake.root, tmp_path / "away")
    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("FROM best_heads").fetchall() == [("organism", 0, 1)]
        assert con.execute("SELECT version, inputs['model'] FROM lineage").fetchall() == [(2, "m1")]
        assert con.execute("SELECT value FROM head_scores").fetchall() == [(0.25,), (0.75,)]
        assert con.execute("SELECT count(*) FROM stale_partitions").fetchone() == (0,)
        comments = dict(
            con.execute(
                "SELECT table_name || '.' || column_name, comment FROM duckdb_columns()"
                " WHERE NOT internal"
            ).fetchall()
        )
        assert comments["head_scores.value"] == "Score, 0 to 1; the head's own"
        assert comments["head_scores.study"].startswith("Study")
        assert comments["scored_heads.best"] == "Highest score of the head"
        assert con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall() == [
            ("begun_partitions",),
            ("declared_tables",),
            ("expected_partitions",),
            ("head_scores",),
            ("role_counts",),
            ("study_inputs",),
            ("versions",),
        ]


def test_a_folder_that_duckdb_takes_for_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="choose another folder"):
        Lake(tmp_path / "run[1]")


def test_writers_of_one_partition_never_take_the_same_number(tmp_path: Path, sql: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    names = ["a", "b", "c"]
    root = tmp_path / "lake"
    processes = [
        context.Process(target=stress.write_counts, args=(root, sql, name, start)) for name in names
    ]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    lake = Lake(root, sql=sql)
    versions = lake.versions("role_counts", "p")
    assert [v.version for v in versions] == list(range(1, 16))
    assert sorted(v.provenance.run_id for v in versions) == sorted(names * 5)
    assert query(lake, "SELECT count(*) FROM history.role_counts") == [(15,)]
    with lake.connect() as con:
        roles = con.execute("SELECT role FROM history.role_counts").fetchall()
    assert len(set(roles)) == 15


def test_refreshing_one_table_keeps_the_others(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    """A catalog brought up to date step by step equals one built from nothing."""
    for step in range(4):
        lake.write("head_scores", f"p{step % 2}", scores(step / 10), provenance)
        lake.write("role_counts", "p", pl.DataFrame({"role": ["a"], "n": [step]}), provenance)

    def everything() -> list[object]:
        tables = ["versions", "lineage", "head_scores", "role_counts", "scored_heads"]
        with duckdb.connect(str(lake.database), read_only=True) as con:
            rows = [sorted(con.execute(f"FROM {t}").fetchall(), key=repr) for t in tables]
            views = con.execute(
                "SELECT schema_name, view_name, sql, comment FROM duckdb_views() UNION ALL"
                " SELECT schema_name, function_name, macro_definition, comment"
                " FROM duckdb_functions() WHERE NOT internal"
            )
            columns = con.execute(
                "SELECT schema_name, table_name, column_name, data_type, comment"
                " FROM duckdb_columns() WHERE NOT internal"
            )
            return [rows, sorted(views.fetchall(), key=repr), sorted(columns.fetchall(), key=repr)]

    stepwise = everything()
    lake.refresh()
    assert everything() == stepwise


def test_the_resource_gives_a_lake(tmp_path: Path) -> None:
    resource = LakeResource(root=str(tmp_path / "lake"), keep_seconds=5.0)
    lake = resource.create_resource(None)
    assert isinstance(lake, Lake)
    assert (lake.root, lake.keep_seconds) == (tmp_path / "lake", 5.0)
    assert os.fspath(resource.lake.database).endswith("mechinterp.duckdb")


def test_a_reader_that_only_knows_the_declaration_builds_the_frame_to_write(
    lake: Lake, provenance: Provenance, scores: Scores, sql: Path
) -> None:
    """What is read can be written on once study and provenance are left out."""
    lake.write("head_scores", "p", scores(0.5), provenance)
    names = polars_schema(table_spec("head_scores", sql)).names()
    again = lake.read("head_scores").select(names).collect()
    done = lake.write("head_scores", "q", again, provenance)
    assert done.data_version == lake.data_version("head_scores", "p")


def test_sql_sees_nan_beside_numbers(lake: Lake, provenance: Provenance, scores: Scores) -> None:
    """Statistics of a Parquet file leave NaN out, and DuckDB would answer from them."""
    lake.write("head_scores", "p", scores(0.25, float("nan"), 0.75), provenance)
    for condition in ("isnan(value)", "value > 1", "(value <= 1) IS NOT TRUE", "isnan(terms[1])"):
        found = query(lake, f"SELECT head FROM head_scores WHERE {condition}")
        assert found == [(1,)], condition
    assert query(lake, "SELECT head FROM head_scores WHERE head > 1") == [(2,)]
