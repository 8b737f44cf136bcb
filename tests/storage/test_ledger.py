"""The ledger gives what is asked for, and no more: what history is long must not be read again."""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mechinterp_assets.storage.ledger import Ledger, Version
from mechinterp_assets.storage.provenance import Provenance

COLUMNS = (("study", "VARCHAR"), ("n", "BIGINT"))


def version(table: str, partition: str, number: int, study: str = "o") -> Version:
    return Version(
        table=table,
        partition=partition,
        version=number,
        file=f"{table}/{partition}/v{number:08d}-r.parquet",
        data_version=f"d{number}",
        rows=number,
        bytes=10 * number,
        provenance=Provenance(study, "r", "1"),
        formula_version=1,
        inputs={"a/p": f"d{number}"},
        columns=COLUMNS,
        written_at=float(number),
        sha256="0" * 64,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three versions of each of two partitions of two tables, a commit each."""
    made = Ledger(tmp_path / "ledger.sqlite")
    for number in (1, 2, 3):
        for table in ("a", "b"):
            for partition in ("p", "q"):
                with made.commit() as commit:
                    assert commit.next_version(table, partition) == number
                    commit.add(version(table, partition, number))
    return made


def keys(versions: tuple[Version, ...]) -> list[tuple[str, str, int]]:
    return [(v.table, v.partition, v.version) for v in versions]


def test_a_version_is_recorded_as_it_is(ledger: Ledger) -> None:
    (current,) = ledger.current("a", ["p"])
    assert current == version("a", "p", 3)
    old = ledger.versions("a", "p")[0]
    assert old == replace(version("a", "p", 1), superseded_at=2.0)


def test_a_snapshot_since_a_change_has_only_what_changed(ledger: Ledger) -> None:
    before = ledger.changes()
    assert ledger.snapshot(since=before).versions == ()
    with ledger.commit() as commit:
        commit.add(version("b", "q", 4))
    now = ledger.snapshot(since=before)
    assert (now.changes, set(now.tables)) == (before + 1, {"b"})
    assert keys(now.versions) == [("b", "q", 3), ("b", "q", 4)]
    assert [v.inputs for v in now.versions] == [{}, {"a/p": "d4"}]  # superseded, current
    assert [f.file for f in now.files] == [
        f"b/{partition}/v{number:08d}-r.parquet"
        for partition, last in (("p", 3), ("q", 4))
        for number in range(1, last + 1)
    ]
    assert [f.is_current for f in now.files] == [False, False, True, False, False, False, True]


def test_a_snapshot_names_what_was_removed(ledger: Ledger) -> None:
    before = ledger.changes()
    with ledger.commit() as commit:
        commit.remove(ledger.superseded_before(2.5), 9.0)
    now = ledger.snapshot(since=before)
    assert sorted(now.removed) == [(t, p, 1) for t in "ab" for p in "pq"]
    assert keys(now.versions) == []
    assert len(now.files) == 8
    whole = ledger.snapshot()
    assert keys(whole.versions) == [(t, p, n) for t in "ab" for p in "pq" for n in (2, 3)]
    assert (whole.files, whole.removed) == (now.files, ())


def test_current_versions_of_one_study(ledger: Ledger) -> None:
    with ledger.commit() as commit:
        commit.add(version("a", "z", 1, study="other"))
    assert keys(tuple(ledger.current_of(["a"], "other"))) == [("a", "z", 1)]
    assert keys(tuple(ledger.current_of(["a", "b"], "o"))) == [
        (t, p, 3) for t in "ab" for p in "pq"
    ]
    assert ledger.partitions("a") == ["p", "q", "z"]


@pytest.mark.parametrize(
    ("index", "look_up"),
    [
        ("current", lambda ledger: ledger.current("a", ["p"])),
        ("kept", lambda ledger: ledger.superseded_before(0.0)),
        ("changed", lambda ledger: ledger.snapshot(since=ledger.changes())),
    ],
)
def test_look_ups_do_not_go_through_history(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: str,
    look_up: Callable[[Ledger], object],
) -> None:
    """Every statement that a look-up runs is answered from an index of what is asked for."""
    statements: list[str] = []
    original = Ledger._connect

    def traced(self: Ledger) -> sqlite3.Connection:
        con = original(self)
        con.set_trace_callback(statements.append)
        return con

    monkeypatch.setattr(Ledger, "_connect", traced)
    look_up(ledger)
    of_versions = re.compile(r"SELECT table_name, partition.* FROM versions", re.DOTALL)
    found = [text for text in statements if of_versions.match(text)]
    assert found
    with sqlite3.connect(tmp_path / "ledger.sqlite") as con:
        for text in found:
            plan = [row[3] for row in con.execute(f"EXPLAIN QUERY PLAN {text}")]
            assert any(f"SEARCH versions USING INDEX {index} " in step for step in plan), plan
            assert not any("SCAN versions" in step for step in plan), plan
