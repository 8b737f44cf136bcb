"""A file counts by its content, a folder by the names and contents of its files."""

import os
from pathlib import Path
from typing import Any

import pytest

from mechinterp_assets.files.fingerprint import ABSENT, FileHashes, fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "texts"
    (made / "more").mkdir(parents=True)
    (made / "a.txt").write_text("one")
    (made / "more" / "a.txt").write_text("two")
    (made / ".hidden").write_text("x")
    return made


def seen(path: Path) -> str:
    return fingerprint(path, FileHashes())


def test_content_and_names_count(folder: Path) -> None:
    first = seen(folder)
    (folder / ".hidden").write_text("y")
    os.utime(folder / "a.txt", (1, 1))
    assert seen(folder) == first
    (folder / "a.txt").write_text("One")
    changed = seen(folder)
    (folder / "a.txt").rename(folder / "b.txt")
    assert len({first, changed, seen(folder)}) == 3


def test_a_moved_folder_is_the_same(folder: Path, tmp_path: Path) -> None:
    before = seen(folder)
    assert seen(folder.rename(tmp_path / "elsewhere")) == before
    assert seen(folder) == ABSENT


def test_content_that_changes_places_is_a_change(folder: Path) -> None:
    before = seen(folder)
    (folder / "a.txt").write_text("two")
    (folder / "more" / "a.txt").write_text("one")
    assert seen(folder) != before


def test_a_large_file_is_hashed_once_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, kept = tmp_path / "weights", tmp_path / "lake" / "file_hashes.json"
    large.write_bytes(b"w" * (1 << 20))
    os.utime(large, (1e9, 1e9))  # long settled
    hashes = FileHashes(kept)
    digest = hashes.of(large)
    hashes.save()
    opened: list[Path] = []
    original = Path.open

    def noted(self: Path, *args: Any, **kwargs: Any) -> object:
        opened.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", noted)
    assert FileHashes(kept).of(large) == digest
    assert large not in opened
    large.write_bytes(b"v" * (1 << 20))
    assert FileHashes(kept).of(large) != digest


def test_what_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    """Within the resolution of time stamps a file of equal size may change unseen."""
    file = tmp_path / "a.csv"
    file.write_text("yes")
    stamp = file.stat()
    hashes = FileHashes()
    before = hashes.of(file)
    file.write_text("no.")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert hashes.of(file) != before


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\0"])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "file_hashes.json"
    kept.write_text(content)
    file = tmp_path / "a"
    file.write_text("a")
    assert FileHashes(kept).of(file) == FileHashes().of(file)
