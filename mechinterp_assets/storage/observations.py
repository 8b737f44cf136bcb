"""What studies ask for and what is begun: the part of the ledger that staleness is decided by.

Belongs here: these records, in the ledger (SQLite) and in the catalog (DuckDB). Does not belong
here: versions (ledger.py, catalog.py), looking at studies (staleness/), the rule itself
(sql/catalog.sql).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import polars as pl

CATALOG_TABLES = ("study_inputs", "expected_partitions", "begun_partitions")
_TABLES = """
CREATE TABLE IF NOT EXISTS study_inputs (
    study TEXT, input TEXT, value TEXT, PRIMARY KEY (study, input)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expected_partitions (
    table_name TEXT, partition TEXT, study TEXT, PRIMARY KEY (table_name, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS observations (
    number INTEGER PRIMARY KEY CHECK (number = 0), change INTEGER, observed_at REAL
);
CREATE TABLE IF NOT EXISTS begun (
    table_name TEXT, partition TEXT, study TEXT, run_id TEXT, begun_at REAL,
    PRIMARY KEY (table_name, partition)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Observation:
    """What studies ask for, as it was last looked at.

    Attributes:
        inputs: (study, input) -> value: settings as JSON, files by fingerprint.
        partitions: (table, partition) -> study, of everything that studies expect to be made.
        observed_at: when it last changed, in seconds since the epoch.
    """

    inputs: Mapping[tuple[str, str], str]
    partitions: Mapping[tuple[str, str], str]
    observed_at: float = 0.0

    def asks_for_the_same(self, other: Observation) -> bool:
        """Whether both differ in time alone."""
        return (self.inputs, self.partitions) == (other.inputs, other.partitions)


@dataclass(frozen=True)
class Begun:
    """A partition of a table that a run began to make: it is at work, or it was killed."""

    table: str
    partition: str
    study: str
    run_id: str
    begun_at: float

    @property
    def place(self) -> tuple[str, str]:
        """Table and partition."""
        return self.table, self.partition


# In the ledger


def add_tables(con: sqlite3.Connection) -> None:
    """Give a ledger the tables of these records, in the caller's transaction."""
    if not _has_tables(con):
        for statement in filter(str.strip, _TABLES.split(";")):
            con.execute(statement)


def observation_of(con: sqlite3.Connection, since: int | None) -> Observation | None:
    """What studies ask for, if that changed after change `since` (None: ever)."""
    if not _has_tables(con):
        return None
    found = con.execute("SELECT change, observed_at FROM observations").fetchone()
    if found is None or (since is not None and found[0] <= since):
        return None
    inputs = con.execute("SELECT study, input, value FROM study_inputs")
    partitions = con.execute("SELECT table_name, partition, study FROM expected_partitions")
    return Observation(
        {(study, name): value for study, name, value in inputs},
        {(table, partition): study for table, partition, study in partitions},
        found[1],
    )


def begun_of(con: sqlite3.Connection) -> tuple[Begun, ...]:
    """What is begun and neither published nor given up."""
    if not _has_tables(con):
        return ()
    rows = con.execute("SELECT table_name, partition, study, run_id, begun_at FROM begun")
    return tuple(Begun(*row) for row in rows)


def put_observation(con: sqlite3.Connection, now: Observation, change: int) -> None:
    """Replace what studies ask for."""
    con.execute("DELETE FROM study_inputs")
    con.executemany(
        "INSERT INTO study_inputs VALUES (?, ?, ?)",
        [(*key, value) for key, value in sorted(now.inputs.items())],
    )
    con.execute("DELETE FROM expected_partitions")
    con.executemany(
        "INSERT INTO expected_partitions VALUES (?, ?, ?)",
        [(*key, study) for key, study in sorted(now.partitions.items())],
    )
    con.execute("INSERT OR REPLACE INTO observations VALUES (0, ?, ?)", (change, now.observed_at))


def put_begun(con: sqlite3.Connection, begun: Iterable[Begun]) -> None:
    """Record partitions that a run begins to make."""
    con.executemany(
        "INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?, ?)",
        [(b.table, b.partition, b.study, b.run_id, b.begun_at) for b in begun],
    )


def end_begun(con: sqlite3.Connection, table: str, partition: str) -> None:
    """Forget that a partition was begun, as when it is published."""
    con.execute("DELETE FROM begun WHERE table_name = ? AND partition = ?", (table, partition))


def give_up_begun(con: sqlite3.Connection, run_id: str) -> None:
    """Forget what a run began: it has ended and says by itself how."""
    con.execute("DELETE FROM begun WHERE run_id = ?", (run_id,))


def _has_tables(con: sqlite3.Connection) -> bool:
    found = con.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'begun'")
    return found.fetchone() is not None


# In the catalog


def fill_observations(
    con: duckdb.DuckDBPyConnection, observation: Observation | None, begun: Sequence[Begun]
) -> None:
    """Replace what studies ask for (None: it is as it was) and what is begun."""
    if observation is not None:
        inputs, partitions = observation.inputs, observation.partitions
        _replace(
            con,
            "study_inputs",
            {
                "study": [study for study, _ in inputs],
                "input": [name for _, name in inputs],
                "value": list(inputs.values()),
                "observed_at": [_timestamp(observation.observed_at)] * len(inputs),
            },
        )
        _replace(
            con,
            "expected_partitions",
            {
                "table_name": [table for table, _ in partitions],
                "partition": [partition for _, partition in partitions],
                "study": list(partitions.values()),
            },
        )
    _replace(
        con,
        "begun_partitions",
        {
            "table_name": [one.table for one in begun],
            "partition": [one.partition for one in begun],
            "study": [one.study for one in begun],
            "run_id": [one.run_id for one in begun],
            "begun_at": [_timestamp(one.begun_at) for one in begun],
        },
    )


def _replace(
    con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, Sequence[object]]
) -> None:
    con.execute(f"DELETE FROM {table}")
    if any(columns.values()):
        con.register("rows", pl.DataFrame(columns))
        con.execute(f"INSERT INTO {table} BY NAME FROM rows")
        con.unregister("rows")


def _timestamp(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
