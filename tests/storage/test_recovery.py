"""What was lost, put back, moved or cut off: nothing is removed, and derived files come back."""

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import polars as pl
import pytest
import torch

from mechinterp_assets.storage import kept_catalog
from mechinterp_assets.storage.disk_space import DiskFullError
from mechinterp_assets.storage.kept_catalog import KeptCatalog
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.ledger import Commit, Ledger
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.quarantine import quarantined
from mechinterp_assets.storage.tensors import Tensors

Scores = Callable[..., pl.DataFrame]
VALUES = "SELECT value FROM head_scores ORDER BY value"
# Space for the file and the record of a small write, yet not for a catalog.
ENOUGH = 131072


class Killed(BaseException):
    """Ends a write as a signal would."""


def shown(database: Path, query: str = VALUES) -> list[tuple[object, ...]]:
    """What a program of somebody else's reads in the database file."""
    with duckdb.connect(str(database), read_only=True) as con:
        return con.execute(query).fetchall()


def values(lake: Lake) -> list[float]:
    return [row[0] for row in lake.sql(VALUES).rows()]


@pytest.fixture
def write(lake: Lake, provenance: Provenance, scores: Scores) -> Callable[..., Path]:
    """Writes one value of `head_scores`; the file."""
    return lambda value, partition="p": (
        lake.write("head_scores", partition, scores(value), provenance).path
    )


# Unknown files and older ledgers


def kill_before_commit(write: Callable[..., Path], value: float) -> None:
    def die(*args: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Commit, "add", die)
        with pytest.raises(Killed):
            write(value)


def test_what_a_killed_writer_left_is_set_aside_and_blocks_nobody(
    lake: Lake, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(0.1)
    kill_before_commit(write, 0.2)
    (stray,) = lake.unknown_files()
    content = stray.read_bytes()
    with caplog.at_level(logging.WARNING, "mechinterp"):
        third = write(0.3)
    assert third.name.startswith("v00000003")
    assert str(stray) in caplog.text
    (kept,) = quarantined(lake.root)
    assert kept == lake.root / ".quarantine" / stray.relative_to(lake.root)
    assert kept.read_bytes() == content
    assert lake.unknown_files() == []
    assert values(lake) == [0.3]
    kill_before_commit(write, 0.4)
    write(0.5)
    assert len(list(quarantined(lake.root))) == 2


def test_an_older_ledger_refuses_writes_and_loses_nothing(
    lake: Lake, write: Callable[..., Path]
) -> None:
    write(0.1)
    shutil.copy(lake.root / "ledger.sqlite", lake.root / "backup")
    newer = write(0.2)
    (lake.root / "backup").rename(lake.root / "ledger.sqlite")
    assert values(lake) == [0.1]  # what the ledger says, and no evidence is lost by asking
    for partition in ("p", "q"):
        with pytest.raises(LakeError, match=r"older than the tables.*`mechinterp rebuild`"):
            write(0.3, partition)
    lake.refresh()
    with pytest.raises(LakeError, match="older than the tables"):
        lake.check_ledger()
    assert newer.exists()
    assert lake.rebuild() == 2
    assert values(lake) == [0.2]
    assert write(0.3).name.startswith("v00000003")
    assert values(lake) == [0.3]
    assert list(lake.root.glob("ledger.sqlite.2*"))


@pytest.mark.parametrize("versions_back", [1, 2])
def test_an_older_ledger_without_the_state_file_loses_nothing(
    lake: Lake, write: Callable[..., Path], versions_back: int
) -> None:
    write(0.1)
    shutil.copy(lake.root / "ledger.sqlite", lake.root / "backup")
    newer = [write(0.2 + n) for n in range(versions_back)]
    contents = [path.read_bytes() for path in newer]
    (lake.root / "backup").rename(lake.root / "ledger.sqlite")
    shutil.rmtree(lake.root / ".catalog")
    if versions_back == 1:  # looks like what a killed writer left: kept, and its number not reused
        assert write(0.9).name.startswith("v00000003")
        assert [path.read_bytes() for path in quarantined(lake.root)] == contents
    else:  # no killed writer gives the number after the next
        with pytest.raises(LakeError, match=r"has version 3, and the ledger knows 1.*rebuild"):
            write(0.9)
        assert [path.read_bytes() for path in newer] == contents
        lake.rebuild()
        assert values(lake) == [1.2]


def test_a_removed_version_whose_remover_died_is_removed_at_last(
    lake: Lake, provenance: Provenance, scores: Scores
) -> None:
    impatient = Lake(lake.root, keep_seconds=0.0, sql=lake._sql)
    first = impatient.write("head_scores", "p", scores(0.1), provenance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **options: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            impatient.write("head_scores", "p", scores(0.2), provenance)
    assert first.path.exists()
    lake.write("head_scores", "p", scores(0.3), provenance)
    assert not first.path.exists()
    assert list(quarantined(lake.root)) == []


def test_a_write_that_fails_before_the_commit_takes_its_file_back(
    lake: Lake, write: Callable[..., Path]
) -> None:
    write(0.1)

    def fail(*args: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Commit, "add", fail)
        with pytest.raises(sqlite3.OperationalError, match="I/O"):
            write(0.2)
    assert lake.unknown_files() == []
    assert write(0.3).name.startswith("v00000002")


def test_a_folder_that_is_no_version_of_tensors_is_set_aside(
    tmp_path: Path, provenance: Provenance, caplog: pytest.LogCaptureFixture
) -> None:
    store = Tensors(tmp_path / "tensors", keep_seconds=0.0)
    store.write("sae", "p", {"a.safetensors": {"W": torch.zeros(8)}}, provenance)
    stray = store.root / "sae" / "p" / "v00000002-abc"
    stray.mkdir()
    (stray / "mine.txt").write_text("mine")
    done = store.write("sae", "p", {"a.safetensors": {"W": torch.ones(8)}}, provenance)
    assert done.version == 3
    assert str(stray) in caplog.text
    (kept,) = quarantined(store.root)
    assert kept.read_text() == "mine"
    store.write("sae", "p", {"a.safetensors": {"W": torch.ones(8)}}, provenance)
    assert kept.exists()


# Ledgers that are lost or damaged


@pytest.mark.parametrize("content", [b"", b"garbage " * 2000, None])
def test_a_damaged_ledger_is_told_in_a_line_and_made_again(
    lake: Lake, write: Callable[..., Path], content: bytes | None
) -> None:
    for value in (0.1, 0.2):
        write(value)
    write(0.7, "q")
    ledger = lake.root / "ledger.sqlite"
    damaged = ledger.read_bytes()[:6000] if content is None else content
    ledger.write_bytes(damaged)
    for use in (lambda: lake.read("head_scores"), lambda: lake.sql(VALUES), lambda: write(0.3)):
        with pytest.raises(LakeError, match=r"ledger\.sqlite is damaged.*`mechinterp rebuild`"):
            use()
    assert lake.rebuild() == 3
    assert values(lake) == [0.2, 0.7]
    assert [v.version for v in lake.versions("head_scores", "p")] == [1, 2]
    (aside,) = lake.root.glob("ledger.sqlite.2*")
    assert aside.read_bytes() == damaged
    assert write(0.3).name.startswith("v00000003")


def test_a_rebuild_keeps_superseded_versions_for_their_time(
    lake: Lake, write: Callable[..., Path]
) -> None:
    paths = [write(0.1), write(0.2)]
    for path in paths:
        os.utime(path, (1e9, 1e9))
    (lake.root / "ledger.sqlite").unlink()
    lake.rebuild()
    write(0.3)
    assert all(path.exists() for path in paths)


def test_a_rebuild_sets_aside_what_cannot_be_read(
    lake: Lake, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(0.1)
    bad = write(0.2)
    bad.write_bytes(b"no Parquet")
    (lake.root / ".work" / "x").mkdir(parents=True)
    (lake.root / ".work" / "x" / "v00000001-a.parquet").write_bytes(b"unfinished")
    (lake.root / "ledger.sqlite").unlink()
    assert lake.rebuild() == 1
    assert str(bad) in caplog.text
    assert [path.read_bytes() for path in quarantined(lake.root)] == [b"no Parquet"]
    assert values(lake) == [0.1]


def test_a_whole_ledger_is_not_made_again(lake: Lake, write: Callable[..., Path]) -> None:
    write(0.1)
    with pytest.raises(LakeError, match="is whole and knows every file"):
        lake.rebuild()


# Derived files


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["mechinterp.duckdb", ".catalog/mechinterp.duckdb"])
@pytest.mark.parametrize("damage", [_garbage, _empty, _half, Path.unlink])
def test_a_damaged_catalog_is_built_again_without_asking(
    lake: Lake, write: Callable[..., Path], name: str, damage: Callable[[Path], None]
) -> None:
    write(0.1)
    damage(lake.root / name)
    assert values(lake) == [0.1]
    assert shown(lake.database) == [(0.1,)]
    damage(lake.root / name)
    write(0.2)
    assert shown(lake.database) == [(0.2,)]


def test_damage_that_size_and_time_do_not_tell_is_noticed_too(
    lake: Lake, write: Callable[..., Path]
) -> None:
    write(0.1)
    for path in (lake.database, lake._catalog.private):
        before = path.stat()
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert values(lake) == [0.1]
    assert shown(lake.database) == [(0.1,)]
    before = lake._catalog.private.stat()
    lake._catalog.private.write_bytes(b"x" * before.st_size)
    os.utime(lake._catalog.private, ns=(before.st_atime_ns, before.st_mtime_ns))
    write(0.2)
    assert shown(lake.database) == [(0.2,)]


@pytest.mark.parametrize("state", [b"", b"12 fingerprint /lake", b"[]", b'{"shown": 1}', b"\xff"])
def test_a_state_file_that_cannot_be_read_is_made_again(
    lake: Lake, write: Callable[..., Path], state: bytes
) -> None:
    write(0.1)
    (lake.root / ".catalog" / "state").write_bytes(state)
    assert values(lake) == [0.1]
    write(0.2)
    assert shown(lake.database) == [(0.2,)]


def test_a_lost_catalog_counts_as_another_state_until_it_is_back(
    lake: Lake, write: Callable[..., Path]
) -> None:
    assert lake.catalog_state() is None
    write(0.1)
    states = [lake.catalog_state()]
    lake.database.unlink()
    states.append(lake.catalog_state())
    assert values(lake) == [0.1]
    states.append(lake.catalog_state())
    assert None not in states
    assert len(set(states)) == 3


@pytest.mark.parametrize("name", [".work", ".catalog"])
def test_a_lost_folder_comes_back(lake: Lake, write: Callable[..., Path], name: str) -> None:
    write(0.1)
    shutil.rmtree(lake.root / name)
    assert values(lake) == [0.1]
    write(0.2)
    assert shown(lake.database) == [(0.2,)]


def test_a_catalog_that_cannot_follow_is_a_warning(
    lake: Lake, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(0.1)

    def fail(*args: object) -> None:
        raise duckdb.IOException("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_catalog, "update_catalog", fail)
        patch.setattr(kept_catalog, "build_catalog", fail)
        assert write(0.2).exists()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mechinterp", "WARNING")
    assert "head_scores of p were published" in record.getMessage()
    assert lake.read("head_scores").collect()["value"].to_list() == [0.2]
    assert values(lake) == [0.2]  # the next reader brings it up to date
    assert shown(lake.database) == [(0.2,)]


# Copies and moves


@pytest.mark.parametrize("moved", [True, False])
def test_a_home_that_was_copied_or_moved_answers_from_its_own_files(
    lake: Lake, write: Callable[..., Path], tmp_path: Path, scores: Scores, moved: bool
) -> None:
    write(0.1)
    place = tmp_path / "elsewhere"
    subprocess.run(
        ["mv" if moved else "cp", *([] if moved else ["-r"]), lake.root, place], check=True
    )
    other = Lake(place, sql=lake._sql)
    assert values(other) == [0.1]
    assert shown(other.database, "SELECT path LIKE '%elsewhere%' FROM versions") == [(True,)]
    if not moved:  # the old folder is still there, and is not what the copy shows
        write(0.2)
        other.write("head_scores", "p", scores(0.3), Provenance("o", "r", "1"))
        assert (shown(lake.database), shown(other.database)) == ([(0.2,)], [(0.3,)])


# Disks that cannot be written to


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a read-only file system, or without the right to write where that can be."""
    if os.geteuid() != 0:
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        modes = [path.stat().st_mode for path in folders]
        for path in folders:
            path.chmod(0o555)
        try:
            yield
        finally:
            for path, mode in zip(folders, modes, strict=True):
                path.chmod(mode)
        return
    done = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount, or not to be root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_lake_is_read(
    lake: Lake, write: Callable[..., Path], tmp_path: Path, scores: Scores
) -> None:
    write(0.1)
    with read_only(lake.root):
        assert values(lake) == [0.1]
        assert lake.read("head_scores").collect()["value"].to_list() == [0.1]
        lake.export(tmp_path / "out.duckdb")
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            write(0.2)
    assert shown(tmp_path / "out.duckdb") == [(0.1,)]


def test_a_read_only_lake_whose_catalog_is_behind_is_read(
    lake: Lake, write: Callable[..., Path], tmp_path: Path
) -> None:
    write(0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptCatalog, "refresh_if_behind", lambda *args, **options: None)
        write(0.2)
    with read_only(lake.root):
        assert values(lake) == [0.2]
        with lake.connect() as con:
            assert con.execute("SELECT value FROM mechinterp.head_scores").fetchall() == [(0.2,)]
        lake.export(tmp_path / "out.duckdb")
    assert shown(lake.database) == [(0.1,)]
    assert shown(tmp_path / "out.duckdb") == [(0.2,)]


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """An empty file system of that size; skips without the right to mount one."""
    folder.mkdir()
    size = f"size={int(megabytes * 1024)}k"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, left: int) -> Path:
    """Take up all space of a file system but `left` bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb") as handle:
        handle.write(b"\0" * (shutil.disk_usage(folder).free - left))
    return ballast


@pytest.mark.parametrize("left", [0, 4096, 8192, 16384, 24576, 131072, 524288, 1048576])
def test_a_full_disk_says_so_and_what_was_published_is_read(
    tmp_path: Path, sql: Path, provenance: Provenance, scores: Scores, left: int
) -> None:
    more = [n / 7 for n in range(1000)]
    with small_disk(tmp_path / "disk", 16) as disk:
        lake = Lake(disk / "lake", sql=sql)
        lake.write("head_scores", "p", scores(0.1), provenance)
        ballast = fill(disk, left)
        # Anything else that is raised fails the test.
        with suppress(DiskFullError):
            lake.write("head_scores", "p", scores(*more), provenance)
        is_published = lake.current("head_scores", "p").version == 2
        assert is_published == (left >= ENOUGH)
        expected = more if is_published else [0.1]
        assert lake.read("head_scores").collect()["value"].to_list() == expected
        assert values(lake) == expected
        assert lake.unknown_files() == []
        ballast.unlink()
        lake.write("head_scores", "p", scores(0.3), provenance)
        assert values(lake) == [0.3]
        assert shown(lake.database) == [(0.3,)]
        assert [fault for _, fault in lake.verify() if fault] == []


@pytest.mark.parametrize("left", [0, 8192, 262144])
def test_a_full_disk_publishes_no_tensors(
    tmp_path: Path, provenance: Provenance, left: int
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        store = Tensors(disk / "tensors")
        store.write("sae", "p", {"a.safetensors": {"W": torch.zeros(8)}}, provenance)
        fill(disk, left)
        with pytest.raises(DiskFullError, match="the disk is full"):
            store.write("sae", "p", {"a.safetensors": {"W": torch.zeros(1 << 20)}}, provenance)
        assert store.open("sae", "p").version == 1


def test_what_ends_a_commit_is_what_is_raised(tmp_path: Path) -> None:
    """SQLite rolls back by itself on some errors; rolling back again must not hide them."""
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def fill_disk() -> None:
        with ledger.commit() as commit:
            commit._con.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(DiskFullError, match="the disk is full") as error:
        fill_disk()
    assert (error.value.errno, error.value.filename) == (
        errno.ENOSPC,
        str(tmp_path / "ledger.sqlite"),
    )
    assert ledger.changes() == 0
