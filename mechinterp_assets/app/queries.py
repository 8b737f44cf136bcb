"""Worked examples: the questions in `sql/queries`.

Belongs here: finding a query file and the question its first comment asks. A file is one SELECT
over the catalog; it reads the study's name from the DuckDB variable `study` (default organism), so
the files run unchanged in the DuckDB command line.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from mechinterp_assets.storage.declarations import SQL_FOLDER

QUERY_FOLDER = SQL_FOLDER / "queries"


class QueryError(ValueError):
    """A query that does not exist."""


@dataclass(frozen=True)
class Query:
    """One worked example: its file name, the question it answers, its SQL."""

    name: str
    question: str
    sql: str


def all_queries(folder: Path = QUERY_FOLDER) -> list[Query]:
    """Every query in the folder, by name. A file without a leading `-- question` is an error."""
    return [_read(file) for file in sorted(folder.glob("*.sql"))]


def find_query(name: str, folder: Path = QUERY_FOLDER) -> Query:
    """The query of that name, or SQL text as it is when it has a space in it."""
    if " " in name.strip():
        return Query("query", "query", name)
    queries = {query.name: query for query in all_queries(folder)}
    if name in queries:
        return queries[name]
    close = difflib.get_close_matches(name, queries, n=3, cutoff=0.3) or list(queries)
    raise QueryError(f"no query {name!r} in {folder}; perhaps {', '.join(close)}")


def _read(file: Path) -> Query:
    sql = file.read_text()
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    if not lines:
        raise QueryError(f"{file} must start with a comment that asks its question")
    return Query(file.stem, " ".join(lines), sql)
