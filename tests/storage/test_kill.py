"""Writers killed with SIGKILL while others read: nothing torn, mixed, lost or left behind."""

import signal
from itertools import count
from pathlib import Path

import duckdb
import pytest
import stress

from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.quarantine import quarantined


@pytest.mark.parametrize(("what", "writers"), [("lake", 4), ("tensors", 2)])
def test_readers_see_whole_writes_while_writers_are_killed(
    tmp_path: Path, what: str, writers: int
) -> None:
    least = 2 * writers
    report = stress.run(
        4.0, tmp_path / "home", what, writers=writers, kills=least, writes=least, reads=5
    )
    assert report.bad == []
    assert report.lost == []
    assert report.left_over == 0
    assert report.kills >= least
    assert report.kills_in_write > 0
    assert report.writes >= least
    kinds = {"fresh", "file", "polars", "long"} if what == "lake" else {"tensors"}
    assert kinds - report.reads.keys() <= {"file", "long"}  # these may be shut out by the meddler
    assert sum(report.reads.values()) >= 5
    if what == "lake":
        assert report.refused > 0


def test_a_storm_of_kills_of_writers_and_readers_loses_and_mixes_nothing(tmp_path: Path) -> None:
    """Short; the full storm is run by hand, as `stress.py` says."""
    report = stress.run(1.0, tmp_path / "home", "lake", writers=3, readers=3, kills=10, writes=6)
    assert (report.bad, report.lost, report.left_over) == ([], [], 0)
    assert report.kills > 0
    assert report.kills_of_readers > 0
    assert report.kills + report.kills_of_readers >= 10


def test_a_write_that_dies_at_any_step_is_whole_or_absent(tmp_path: Path) -> None:
    committed = []
    for first in count(0, 4):
        homes = [tmp_path / str(step) for step in range(first, first + 4)]
        for home in homes:
            (home / "logs").mkdir(parents=True)
        victims = [stress.spawn("victim", int(home.name), home) for home in homes]
        codes = [victim.wait() for victim in victims]
        assert set(codes) <= {0, -signal.SIGKILL}
        for home, code in zip(homes, codes, strict=True):
            committed.append(_check_after_death(home, finished=code == 0))
        if 0 in codes:
            break
    assert len(committed) > 12
    # Everything before the ledger's commit is absent, everything after it is there.
    assert committed == sorted(committed)
    assert set(committed) == {False, True}


def _check_after_death(home: Path, *, finished: bool) -> bool:
    """Whether the write was made, after checking that everybody sees all of it or nothing."""
    lake = Lake(home / "lake", sql=home / "sql")
    tokens = (
        "SELECT DISTINCT token, total FROM first UNION SELECT DISTINCT token, total FROM second"
    )
    old, new = [(1, 10)], [(2, 20)]
    with duckdb.connect(str(lake.database), read_only=True) as con:
        shown = con.execute(tokens).fetchall()
    assert shown in (old, new)
    read = lake.sql(tokens).rows()
    assert read in (old, new)
    assert [(1, 10), (2, 20)].index(read[0]) >= [(1, 10), (2, 20)].index(shown[0])
    assert lake.read("first").collect()["token"].unique().to_list() == [read[0][0]]
    if finished:
        assert shown == read == new
    # The next write finds nothing in its way, and gives no number of a file that is set aside.
    left = len(lake.unknown_files())
    assert left <= 2 * (read == old)
    number = lake.current("first", "pair").version
    folder = lake.root / "first" / "pair"
    taken = len(list(folder.iterdir())) - number
    done = lake.write("first", "pair", stress.frame("pair", 3, 5), Provenance("s", "n", "1"))
    assert done.version == number + taken + 1
    assert len(list(folder.iterdir())) == number + 1
    assert len(list(quarantined(lake.root))) == taken
    return read == new
