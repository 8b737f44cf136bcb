"""SQL that somebody typed, run so that it can read what the catalog shows and change nothing.

Belongs here: what such SQL may do. Does not belong here: finding the worked queries (queries.py).

Two fences. DuckDB's `query()` takes one SELECT (so do DESCRIBE, SHOW and SUMMARIZE count) and
nothing below it that writes; the type of a statement would not do, as `WITH a AS (COPY ...)` is a
SELECT. And the connection opens no file outside the lake, and none of its settings can be changed:
functions that write logs or profiles need one. Where others than the person at the terminal ask,
`Limits` bounds how many rows, how long and how much memory a query may take.
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp_assets.storage.sql_text import quote_text

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from mechinterp_assets.storage.lake import Lake

_LOOK_EVERY_SECONDS = 0.05
# What it explains is checked, since ANALYZE runs that.
_EXPLAIN = re.compile(r"\AEXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)


class QueryError(ValueError):
    """SQL that cannot be run, or may not; the message says why."""


@dataclass(frozen=True)
class Limits:
    """What one query may take: rows of its answer, seconds, and DuckDB's memory in MB.

    Nothing is spilled to disk: what needs more memory is refused.
    """

    rows: int
    seconds: float
    megabytes: int


def run_query(
    lake: Lake,
    sql: str,
    study: str,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Rows of one query; the DuckDB variable `study` is set.

    Of the files that it reads, sizes and numbers of rows are checked: a look must not wait until
    every byte of large tables was read (`mechinterp verify` does that).

    Args:
        lake: whose catalog is read.
        sql: one query.
        study: what the variable says.
        limits: one row beyond `limits.rows` is given where there are more, so that the caller can
            tell; without limits all rows are.
        stop: once it is set, nobody waits for the answer: the query is interrupted.

    Raises:
        QueryError: SQL that is wrong, that is not one query, that would write, that names a file
            outside the lake, that takes more time or memory than `limits` allow, or that was
            stopped.
    """
    import duckdb

    with lake.connect() as con, _interrupted(con, limits, stop):
        lake.verify_tables(lake.declared.tables_read(sql), content=False)
        try:
            con.execute(f"SET VARIABLE study = {quote_text(study)}")
            if limits is not None:
                con.execute(f"SET memory_limit = '{limits.megabytes}MB'; SET temp_directory = ''")
            _confine(con, lake.root)
            query = _single_query(con, sql)
            con.execute(f"EXPLAIN FROM query({quote_text(_EXPLAIN.sub('', query))})")
            answer = con.sql(query)
            frame: pl.DataFrame = (answer if limits is None else answer.limit(limits.rows + 1)).pl()
        except duckdb.InterruptException:
            if stop is not None and stop.is_set():
                raise QueryError("stopped: whoever asked no longer waits") from None
            if limits is None:
                raise
            raise QueryError(
                f"stopped after {limits.seconds:g} s; read fewer rows (WHERE study = ..., one"
                " layer) or less of each, or run it with `mechinterp query`, which has no limit"
            ) from None
        except duckdb.OutOfMemoryException:
            if limits is None:
                raise
            raise QueryError(
                f"stopped: it needs more than {limits.megabytes} MB; read fewer rows or less of"
                " each, or run it with `mechinterp query`, which has no limit"
            ) from None
        except duckdb.PermissionException as error:
            raise QueryError(
                f"{_one_line(error)}: queries read the lake {lake.root} alone"
            ) from None
        except duckdb.Error as error:
            raise QueryError(_one_line(error)) from None
        return frame


@contextmanager
def _interrupted(
    con: duckdb.DuckDBPyConnection, limits: Limits | None, stop: threading.Event | None
) -> Iterator[None]:
    """Interrupt what `con` does once its time is over or `stop` is set, and all that it then
    begins."""
    if limits is None and stop is None:
        yield
        return
    done = threading.Event()
    ends = time.monotonic() + (float("inf") if limits is None else limits.seconds)

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_SECONDS):
            if time.monotonic() >= ends or (stop is not None and stop.is_set()):
                con.interrupt()  # again each time: one between two statements stops neither

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _confine(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Let `con` open files of the lake alone, for good."""
    # Tables may lie on another disk, behind a link; DuckDB looks at where it leads.
    folders = {root, *(path.resolve() for path in root.iterdir() if path.is_symlink())}
    listed = ", ".join(quote_text(str(folder)) for folder in sorted(folders))
    con.execute(
        f"SET allowed_directories = [{listed}]; SET enable_external_access = false;"
        " SET python_enable_replacements = false; SET lock_configuration = true"
    )


def _single_query(con: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one statement of `sql`, of a kind that can be a query; its parts are not checked."""
    from duckdb import StatementType

    statements = con.extract_statements(sql)
    for statement in statements:
        if statement.type not in (StatementType.SELECT, StatementType.EXPLAIN, StatementType.MULTI):
            raise QueryError(
                f"{statement.type.name} is no query: one SELECT, FROM, WITH, VALUES, DESCRIBE,"
                " SHOW, SUMMARIZE or EXPLAIN is; nothing can be changed or written from here"
                " (`mechinterp query --format csv` and `mechinterp export` write results)"
            )
    if len(statements) != 1:
        raise QueryError(f"{len(statements)} statements; a query is one, such as FROM head_scores")
    return statements[0].query


def _one_line(error: Exception) -> str:
    """What DuckDB says of a wrong query, without the excerpt of the SQL that it points into."""
    said = str(error).partition("\nLINE ")[0]
    return " ".join(line.strip() for line in said.splitlines() if line.strip())
