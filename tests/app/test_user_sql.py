"""SQL from the command line reads the lake and changes nothing, whatever it says."""

import shutil
import threading
from pathlib import Path

import polars as pl
import pytest

from mechinterp_assets.app.queries import all_queries
from mechinterp_assets.app.user_sql import Limits, QueryError, run_query
from mechinterp_assets.storage.declarations import polars_schema, table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with one token in its vocabulary."""
    made = Lake(tmp_path_factory.mktemp("home") / "lake")
    row = {"token_id": 0, "token": "a", "count_train": 0, "count_held_out": 0, "is_special": False}
    frame = pl.DataFrame([row], schema=polars_schema(table_spec("vocabulary")))
    made.write("vocabulary", "tiny", frame, Provenance("tiny", "run", "0"))
    return made


def files(folder: Path) -> dict[Path, bytes]:
    """Every file below `folder` with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRITES = (
    "COPY (SELECT 1) TO '{file}'",
    "COPY vocabulary TO '{file}'",
    "WITH written AS (COPY (SELECT 1) TO '{file}') FROM written",
    "SELECT 2 UNION ALL (WITH w AS (COPY (SELECT 1) TO '{file}') SELECT 1 FROM w)",
    "FROM query('WITH w AS (COPY (SELECT 1) TO ''{file}'') FROM w')",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "EXPLAIN ANALYZE WITH w AS (COPY (SELECT 1) TO '{file}') FROM w",
    "explain\n/**/analyze COPY (SELECT 1) TO '{file}'",
    "-- a question\nCOPY (SELECT 1) TO '{file}'",
    "SELECT 1; COPY (SELECT 1) TO '{file}'",
    "EXPORT DATABASE '{file}'",
    "ATTACH '{file}'",
    "ATTACH '{file}' AS other; CREATE TABLE other.a (b INT)",
    "FROM enable_logging(storage = 'file', storage_path = '{file}')",
    "FROM enable_profiling(save_location = '{file}.json', format = 'json')",
    "PRAGMA profiling_output = '{file}'",
    "SET log_query_path = '{file}'",
    "CREATE PERSISTENT SECRET mine (TYPE http, BEARER_TOKEN 'x')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE TABLE memory.main.mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "WITH w AS (DELETE FROM vocabulary RETURNING *) FROM w",
    "DROP VIEW vocabulary",
    "SET threads = 1",
    "SET VARIABLE study = 'other'",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "CHECKPOINT",
    "DETACH mechinterp",
    "USE memory",
    "BEGIN",
    "PREPARE mine AS SELECT 1",
)


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written(lake: Lake, sql: str) -> None:
    home = lake.root.parent
    before = files(home)
    for folder in (lake.root, home):
        with pytest.raises(QueryError) as refused:
            run_query(lake, sql.format(file=folder / "written"), "tiny")
        assert "\n" not in str(refused.value)
    assert files(home) == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{file}')",
        "FROM read_csv('{file}')",
        "FROM '{file}'",
        "FROM glob('{folder}/*')",
        "SELECT (SELECT content FROM read_text('{file}'))",
        "FROM read_text('{lake}/../secret.csv')",
        "FROM 'https://localhost:1/a.parquet'",
    ],
)
def test_nothing_outside_the_lake_is_read(lake: Lake, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n")
    with pytest.raises(QueryError, match=r"Cannot access|does not exist"):
        run_query(lake, sql.format(file=secret, folder=tmp_path, lake=lake.root), "tiny")


def test_what_the_program_itself_holds_is_no_table(lake: Lake) -> None:
    with pytest.raises(QueryError, match="Table with name frame does not exist"):
        run_query(lake, "FROM frame", "tiny")
    with pytest.raises(QueryError, match="Table with name statements does not exist"):
        run_query(lake, "FROM statements", "tiny")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT token FROM vocabulary WHERE study = getvariable('study')",
        "FROM vocabulary;",
        "-- a question\nFROM vocabulary -- and its end",
        "WITH tokens AS (FROM vocabulary) FROM tokens",
        "TABLE vocabulary",
        "VALUES ('it''s', '; COPY')",
        "DESCRIBE vocabulary",
        "SHOW TABLES",
        "SUMMARIZE vocabulary",
        "EXPLAIN FROM vocabulary",
        "EXPLAIN ANALYZE SELECT count(*) FROM vocabulary",
        "PIVOT vocabulary ON is_special IN (true, false) USING count(*)",
        "FROM history.vocabulary",
        "FROM table_version('vocabulary', 1)",
        "FROM stale_partitions UNION ALL BY NAME SELECT 'one row' AS cause",
        "SELECT path FROM versions",
        "SELECT token FROM read_parquet('{lake}/vocabulary/tiny/*.parquet')",
    ],
)
def test_questions_are_answered(lake: Lake, sql: str) -> None:
    assert run_query(lake, sql.format(lake=lake.root), "tiny").height > 0


@pytest.mark.parametrize(("sql", "said"), [("-- nothing", "0 stat"), ("FROM a; FROM b", "2 stat")])
def test_a_query_is_one_statement(lake: Lake, sql: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        run_query(lake, sql, "tiny")


def test_a_statement_that_writes_is_named_with_what_to_do(lake: Lake) -> None:
    with pytest.raises(QueryError, match=r"^COPY is no query: .*`mechinterp export` write results"):
        run_query(lake, "COPY vocabulary TO 'a.csv'", "tiny")


def test_tables_behind_links_are_of_the_lake(lake: Lake, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(lake.root.parent, home, symlinks=True)
    (home / "lake" / "vocabulary").rename(tmp_path / "larger disk")
    (home / "lake" / "vocabulary").symlink_to(tmp_path / "larger disk")
    moved = Lake(home / "lake")
    moved.refresh()
    assert run_query(moved, "SELECT token FROM vocabulary", "tiny").rows() == [("a",)]


def test_every_worked_query_is_one(lake: Lake) -> None:
    def refusal(sql: str) -> str | None:
        try:
            run_query(lake, sql, "tiny")
        except QueryError as error:
            return str(error)
        return None

    refusals = {query.name: refusal(query.sql) for query in all_queries()}
    missing = "Catalog Error: Table with name"  # of the tables that this lake lacks
    assert {name for name, why in refusals.items() if why and not why.startswith(missing)} == set()


SLOW = "SELECT sum(range) FROM range(1000000000000000)"


def test_a_query_that_takes_too_long_is_stopped(lake: Lake) -> None:
    """What DuckDB computes (for days), and also what it would only begin after its time."""
    limits = Limits(rows=10, seconds=0.3, megabytes=500)
    with pytest.raises(QueryError, match=r"^stopped after 0\.3 s; read fewer rows"):
        run_query(lake, SLOW, "tiny", limits)
    with pytest.raises(QueryError, match="stopped after"):
        run_query(lake, SLOW, "tiny", Limits(rows=10, seconds=0, megabytes=500))


@pytest.mark.parametrize("limits", [None, Limits(rows=10, seconds=600, megabytes=500)])
def test_a_query_that_nobody_waits_for_is_interrupted(lake: Lake, limits: Limits | None) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(QueryError, match="whoever asked no longer waits"):
        run_query(lake, SLOW, "tiny", limits, stop)
    with pytest.raises(QueryError, match="whoever asked no longer waits"):
        run_query(lake, SLOW, "tiny", limits, stop)  # set before it begins


def test_a_query_of_much_memory_is_stopped_and_writes_nothing(lake: Lake) -> None:
    limits = Limits(rows=10, seconds=60, megabytes=50)
    before = files(lake.root.parent)
    with pytest.raises(QueryError, match="it needs more than 50 MB"):
        run_query(lake, "SELECT list(range) FROM range(50000000)", "tiny", limits)
    assert files(lake.root.parent) == before


@pytest.mark.parametrize(("there", "given"), [(9, 9), (10, 10), (11, 11), (12, 11), (10**12, 11)])
def test_one_row_too_many_says_that_there_are_more(lake: Lake, there: int, given: int) -> None:
    limits = Limits(rows=10, seconds=60, megabytes=500)
    assert run_query(lake, f"FROM range({there})", "tiny", limits).height == given


@pytest.mark.parametrize("sql", ["DESCRIBE vocabulary", "SHOW TABLES", "EXPLAIN FROM vocabulary"])
def test_limits_hold_for_all_kinds_of_queries(lake: Lake, sql: str) -> None:
    assert run_query(lake, sql, "tiny", Limits(rows=1, seconds=60, megabytes=500)).height in (1, 2)


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_is_written_within_limits_either(lake: Lake, sql: str) -> None:
    home = lake.root.parent
    before = files(home)
    with pytest.raises(QueryError):
        run_query(lake, sql.format(file=home / "a"), "tiny", Limits(10, 60, 500))
    assert files(home) == before
