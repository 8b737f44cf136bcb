"""Answers of bounded size about the catalog, in plain text, for programs that ask.

Belongs here: what may be asked, and how much an answer may hold. Does not belong here: protocols
(mcp_server.py), what SQL may do (user_sql.py), what features, heads and origins are (api/).

Text of corpora and vocabularies is anything that somebody wrote: in answers it stands as a JSON
string or as drawn tokens, with every character that cannot be seen written out.
"""

import json
import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from mechinterp_assets.api.not_there import NotThereError, perhaps
from mechinterp_assets.api.opened_study import OpenedStudy
from mechinterp_assets.api.opening import materialized_studies, open_study
from mechinterp_assets.app.queries import NoQueryError, all_queries, find_query
from mechinterp_assets.app.user_sql import Limits, QueryError, run_query
from mechinterp_assets.files.plain_text import shortened
from mechinterp_assets.storage.joins import joins, joins_of
from mechinterp_assets.storage.lake import Lake, LakeError

MOST_ROWS = 200
LIMITS = Limits(rows=MOST_ROWS, seconds=20, megabytes=500)
MOST_CHARACTERS = 60_000
MOST_IN_A_CELL = 2_000
MOST_EXAMPLES = 20
_COMMENT = 220
_AT_ONCE = 2  # queries; more wait
_LOOK_EVERY_SECONDS = 0.1
_COLUMNS = (
    "SELECT column_name, data_type, comment FROM duckdb_columns()"
    " WHERE schema_name = 'main' AND database_name = 'mechinterp' AND table_name = $name"
    " ORDER BY column_index"
)
_RELATIONS = (
    "SELECT table_name AS name, comment FROM duckdb_tables()"
    " WHERE schema_name = 'main' AND database_name = 'mechinterp'"
    " UNION ALL SELECT view_name, comment FROM duckdb_views()"
    " WHERE NOT internal AND schema_name = 'main' AND database_name = 'mechinterp' ORDER BY name"
)


class AnswerError(ValueError):
    """A question that cannot be answered; the message says why and what can be asked."""


@dataclass(frozen=True)
class CatalogAnswers:
    """Answers about the studies of one home folder. Safe for threads; nothing is changed.

    Every method raises AnswerError for what is not there and for what is too much.
    """

    home: Path
    limits: Limits = LIMITS
    _turns: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE), init=False
    )

    @property
    def lake(self) -> Lake:
        """The lake of the home folder."""
        return Lake(self.home / "lake")

    def studies(self) -> str:
        """Studies that have tables, with their model and what is stale."""
        with _told():
            names = materialized_studies(self.home)["study"].to_list()
            return "\n\n".join(visible(OpenedStudy(name, self.home).text()) for name in names)

    def tables(self, study: str | None = None, words: str = "") -> str:
        """One line per table or view: name, rows, what a row is.

        Args:
            study: only tables with rows of it, and views.
            words: only those whose name or comment has all of these words.
        """
        with _told():
            if study is not None:
                found = self._open(study).tables.frame().rows()
            else:
                counts = dict(
                    self.lake.sql(
                        'SELECT table_name, sum("rows")::BIGINT FROM lineage GROUP BY ALL'
                    ).iter_rows()
                )
                relations = self.lake.sql(_RELATIONS).iter_rows()
                found = [(name, counts.get(name), comment or "") for name, comment in relations]
        wanted = words.lower().split()
        lines = [
            f"{name} ({'view' if rows is None else f'{rows} rows'}): {shortened(comment, _COMMENT)}"
            for name, rows, comment in found
            if all(word in f"{name} {comment}".lower() for word in wanted)
        ]
        if not lines:
            raise AnswerError(f"no table says {words!r}; ask without words for all")
        return _bounded(lines)

    def describe(self, table: str) -> str:
        """What a row and each column of a table or view is; keys and joins of a table."""
        with _told():
            columns = self.lake.sql(_COLUMNS, {"name": table})
            relations = self.lake.sql(_RELATIONS)
        if columns.is_empty():
            raise AnswerError(f"no table {table!r}; {perhaps(table, relations['name'].to_list())}")
        comment = relations.filter(name=table)["comment"].item()
        lines = [f"{table}: {comment or ''}"]
        declared = self.lake.declared.tables
        spec = declared.get(table)
        if spec is not None:
            of = "study" if spec.per == "study" else "layer"
            lines.append(f"rows of one {of} are made together")
            lines += [f"key: {', '.join(key)}" for key in spec.constraints.keys]
            refers, _ = joins_of(table, joins(declared))
            lines += [f"join: {join.sql}" for join in refers]
        lines += [f"{name} {kind}: {text or ''}" for name, kind, text in columns.iter_rows()]
        return _bounded(lines)

    def query(
        self, sql: str, study: str = "", rows: int = 50, stop: threading.Event | None = None
    ) -> str:
        """Rows of one SELECT as JSON: columns, rows, and whether there are more.

        Args:
            sql: one query that reads; `getvariable('study')` is `study`.
            study: see there.
            rows: at most so many, up to MOST_ROWS.
            stop: once it is set, nobody waits any more: the query ends, also in front of its turn.
        """
        if not 1 <= rows <= self.limits.rows:
            raise AnswerError(f"rows is {rows}; ask for 1 to {self.limits.rows}")
        with _told(), self._turn(stop):
            frame = run_query(self.lake, sql, study, replace(self.limits, rows=rows), stop)
        return _as_json(frame, rows)

    def questions(self) -> str:
        """The worked queries: number, name, question."""
        return _bounded(f"{query.name}: {query.question}" for query in all_queries())

    def answer(
        self, question: str, study: str, rows: int = 50, stop: threading.Event | None = None
    ) -> str:
        """SQL and rows of a worked query, named by its number or name; `stop` as in `query`."""
        if len(question.split()) != 1:
            raise AnswerError("name one worked query by its number or name; `query` runs SQL")
        with _told():
            found = find_query(question)
            self._open(study)
        return f"{found.sql.strip()}\n\n{self.query(found.sql, study, rows, stop)}"

    def why(
        self,
        study: str,
        table: str,
        column: str | None = None,
        layer: int | None = None,
        score: str | None = None,
    ) -> str:
        """Definition, formula version, inputs, settings and staleness of a table's numbers."""
        with _told():
            origin = self._open(study).why(table, column, layer=layer, score=score)
        return _as_answer(origin.text())

    def feature(self, study: str, layer: int, feature: int, examples: int = 8) -> str:
        """A feature in plain text."""
        with _told():
            text = self._open(study).feature(layer, feature).text(_few(examples))
        return _as_answer(text)

    def head(self, study: str, head: str, examples: int = 4) -> str:
        """A head in plain text; `head` is written L2H3 or 2.3."""
        with _told():
            text = self._open(study).head(head).text(_few(examples))
        return _as_answer(text)

    @contextmanager
    def _turn(self, stop: threading.Event | None) -> Iterator[None]:
        """Wait until few enough queries run. Raises AnswerError once `stop` is set."""
        while not self._turns.acquire(timeout=_LOOK_EVERY_SECONDS):
            if stop is not None and stop.is_set():
                raise AnswerError("stopped: whoever asked no longer waits")
        try:
            yield
        finally:
            self._turns.release()

    def _open(self, study: str) -> OpenedStudy:
        return open_study(study, self.home)


def visible(text: str) -> str:
    """The text with characters that are not drawn, or reorder others, as `\\uXXXX`; not line ends.

    In JSON that is another way of writing the same string.
    """
    return "".join(
        character if character == "\n" or character.isprintable() else _escape(character)
        for character in text
    )


# ---- private -------------------------------------------------------------------------------------


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors that say what to do into an AnswerError."""
    try:
        yield
    except (NotThereError, QueryError, NoQueryError, LakeError) as error:
        raise AnswerError(visible(str(error))) from None


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _few(examples: int) -> int:
    return max(0, min(examples, MOST_EXAMPLES))


def _as_answer(text: str) -> str:
    """A text that api/ gives, as an answer."""
    return _bounded(visible(text).split("\n"))


def _bounded(lines: Iterable[str]) -> str:
    """Lines until the answer is full."""
    kept: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > MOST_CHARACTERS:
            kept.append("(cut here: ask for less)")
            break
        kept.append(line)
    return "\n".join(kept)


def _as_json(frame: pl.DataFrame, rows: int) -> str:
    """`{"columns": [...], "rows": [[...], ...], "more": ...}`, a row on each line."""
    more = frame.height > rows
    lines: list[str] = []
    size = 0
    for row in frame.head(rows).iter_rows():
        line = f"[{', '.join(_cell(value) for value in row)}]"
        size += len(line) + 2
        if size > MOST_CHARACTERS:
            more = True
            break
        lines.append(line)
    columns = _json([str(name) for name in frame.columns])
    note = ', "note": "there are more rows: use WHERE, LIMIT or an aggregate"' if more else ""
    listed = ",\n".join(lines)
    return f'{{"columns": {columns}, "rows": [\n{listed}\n], "more": {_json(more)}{note}}}'


def _cell(value: object) -> str:
    text = _json(_plain(value))
    if len(text) <= MOST_IN_A_CELL:
        return text
    return _json(f"{text[:MOST_IN_A_CELL]} (cut; {len(text)} characters of JSON)")


def _json(value: object) -> str:
    return visible(json.dumps(value, ensure_ascii=False, allow_nan=False)).replace("\n", "\\n")


def _plain(value: Any) -> Any:
    """A value of a polars row as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):  # sums of whole numbers too
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, pl.Series):
        value = value.to_list()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
