"""Worked examples: the questions in `sql/queries`.

Belongs here: finding a query file and the question its first comment asks. A file is one SELECT
over the catalog; it reads the study's name from the DuckDB variable `study` (default organism), so
the files run unchanged in the DuckDB command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp_assets.app.mistakes import nearest
from mechinterp_assets.storage.declarations import SQL_FOLDER, quote_text

if TYPE_CHECKING:
    import polars as pl

    from mechinterp_assets.storage.lake import Lake

QUERY_FOLDER = SQL_FOLDER / "queries"


class QueryError(ValueError):
    """A query that does not exist, or SQL that cannot be run; the message says why."""


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
        numbered = {query.number: query for query in queries.values()}
        if int(name) in numbered:
            return numbered[int(name)]
        raise QueryError(f"no query {name}; the last is {max(queries)} (`mechinterp queries`)")
    raise QueryError(
        f"no query {name!r}; {nearest(name, queries)} (`mechinterp queries` lists all)"
    )


def run_query(lake: "Lake", sql: str, study: str) -> "pl.DataFrame":
    """Rows of one query about `study`. Raises QueryError for SQL that DuckDB refuses.

    Of the files that it reads, sizes and numbers of rows are checked: a look must not wait until
    every byte of large tables was read (`mechinterp verify` does that).
    """
    import duckdb

    with lake.connect() as con:
        lake.verify_tables(lake.declared.tables_read(sql), content=False)
        con.execute(f"SET VARIABLE study = {quote_text(study)}")
        try:
            relation = con.sql(sql)
            if relation is None:
                raise QueryError(f"{sql!r} gives no rows; a query starts with SELECT or FROM")
            frame: pl.DataFrame = relation.pl()
        except duckdb.Error as error:
            raise QueryError(_one_line(error)) from None
        return frame


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


def _one_line(error: Exception) -> str:
    """What DuckDB says of a wrong query, without the excerpt of the SQL that it points into."""
    said = str(error).partition("\nLINE ")[0]
    return " ".join(line.strip() for line in said.splitlines() if line.strip())
