"""Dagster's own databases: runs, events and schedules in SQLite files under DAGSTER_HOME.

Belongs here: telling that one is damaged, and what to do, before Dagster opens it. Results do not
depend on them: with a database moved away Dagster starts a new one, which knows no earlier runs.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy.exc

from mechinterp_assets.app.mistakes import Mistake

_FOLDERS = ("history", "schedules")
# What SQLite says of a file that is no database, or not whole.
_DAMAGED = ("not a database", "malformed", "corrupt")


def check_databases(folder: Path) -> None:
    """Raise Mistake where a database of this DAGSTER_HOME cannot be opened."""
    for part in _FOLDERS:
        for file in sorted((folder / part).rglob("*.db")):
            try:
                with closing(sqlite3.connect(file)) as con:
                    con.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError as error:
                # Whatever else is wrong, such as a lock, may be over when Dagster opens it.
                if _is_damage(error):
                    raise Mistake(_told(file, error), exit_code=1) from None


@contextmanager
def damage_told(folder: Path) -> Iterator[None]:
    """Turn Dagster's errors about a damaged database of this DAGSTER_HOME into a Mistake."""
    try:
        yield
    except sqlalchemy.exc.DatabaseError as error:
        if error.orig is None or not _is_damage(error.orig):
            raise
        raise Mistake(_told(_first_damaged(folder) or folder, error.orig), exit_code=1) from error


def _first_damaged(folder: Path) -> Path | None:
    """The database that does not pass SQLite's check of all its pages."""
    for part in _FOLDERS:
        for file in sorted((folder / part).rglob("*.db")):
            try:
                with closing(sqlite3.connect(file)) as con:
                    if con.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                        return file
            except sqlite3.DatabaseError:
                return file
    return None


def _is_damage(error: BaseException) -> bool:
    return any(words in str(error) for words in _DAMAGED)


def _told(file: Path, error: BaseException) -> str:
    return (
        f"{file}, where Dagster keeps its runs, is damaged ({error}); move it away, as to"
        f" {file}.damaged: Dagster starts a new one, and tables and tensors stay as they are"
    )
