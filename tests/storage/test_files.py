"""Small files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from mechinterp_assets.storage.files import write_durably


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    write_durably(file, "a\r\nb\n")
    write_durably(file, "é\r\n")
    assert file.read_bytes() == "é\r\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_is_full_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.csv"
    write_durably(file, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
