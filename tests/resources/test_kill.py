"""Writers killed with SIGKILL while others read: nothing torn, mixed, lost or left behind."""

from pathlib import Path

import pytest
import stress


@pytest.mark.parametrize(("what", "writers"), [("lake", 4), ("tensors", 2)])
def test_readers_see_whole_writes_while_writers_are_killed(
    tmp_path: Path, what: str, writers: int
) -> None:
    report = stress.run(
        6.0, tmp_path / "home", what, writers=writers, kills=2 * writers, writes=2 * writers
    )
    assert report.bad == []
    assert report.lost == []
    assert report.left_over == 0
    assert report.kills >= 2 * writers
    assert report.kills_in_write > 0
    assert report.writes >= 2 * writers
    kinds = {"fresh", "file", "polars", "long"} if what == "lake" else {"tensors"}
    assert kinds - report.reads.keys() <= {"file", "long"}  # these may be shut out by the meddler
    assert sum(report.reads.values()) >= 5
    if what == "lake":
        assert report.refused > 0
