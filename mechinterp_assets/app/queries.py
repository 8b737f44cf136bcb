"""Worked examples: the questions in `sql/queries`.

Belongs here: finding a query file and the question its first comment asks. Does not belong here:
running SQL (user_sql.py). A file is one SELECT over the catalog; it reads the study's name from the
DuckDB variable `study` (default organism), so the files run unchanged in the DuckDB command line.
"""

from dataclasses import dataclass
from pathlib import Path

from mechinterp_assets.app.mistakes import nearest
from mechinterp_assets.storage.declarations import SQL_FOLDER

QUERY_FOLDER = SQL_FOLDER / "queries"


class NoQueryError(ValueError):
    """A query that does not exist; the message says which do."""


@dataclass(frozen=True)
class Query:
    """One worked example: its file name, the question it answers, its SQL."""

    name: str
    question: str
    sql: str

    @property
    def number(self) -> int | None:
        """The number that its name starts with, if it does."""
        digits = self.name.partition("_")[0]
        return int(digits) if digits.isdecimal() else None

    @property
    def asks_about_a_study(self) -> bool:
        """Whether the answer depends on the study that is named beside it."""
        return "getvariable('study')" in self.sql


def all_queries(folder: Path = QUERY_FOLDER) -> list[Query]:
    """Every query in the folder, by name. A file without a leading `-- question` is an error."""
    return [_read(file) for file in sorted(folder.glob("*.sql"))]


def find_query(name: str, folder: Path = QUERY_FOLDER) -> Query:
    """The query of that name or number, or SQL text as it is when it has a space in it."""
    if len(name.split()) > 1:
        return Query("query", "query", name)
    queries = {query.name: query for query in all_queries(folder)}
    if name in queries:
        return queries[name]
    if name.isdecimal():
        numbered = {str(query.number): query for query in queries.values()}
        if (number := name.lstrip("0")) in numbered:
            return numbered[number]
        raise NoQueryError(f"no query {name}; the last is {max(queries)} (`mechinterp queries`)")
    raise NoQueryError(
        f"no query {name!r}; {nearest(name, queries)} (`mechinterp queries` lists all)"
    )


def _read(file: Path) -> Query:
    sql = file.read_text()
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    if not lines:
        raise NoQueryError(f"{file} must start with a comment that asks its question")
    return Query(file.stem, " ".join(lines), sql)
