"""Opening files that users name: regular files alone, in bounds, with one plain error.

Belongs here: from a path to bytes, lines or text. Does not belong here: what a format means
(yaml_reader.py, csv_reader.py, json_lines.py, parquet_reader.py).

A file whose name ends in .gz is read as what gzip makes of it.
"""

import errno
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from mechinterp_assets.files.plain_text import printable

# Longest first: the mark of UTF-16 begins that of UTF-32.
_OTHER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_MARK = b"\xef\xbb\xbf"


class FileError(ValueError):
    """A file that cannot be read; the message is one line: `file:line: what (value); remedy`."""


class NotUnicodeError(FileError):
    """A text that is not Unicode, in a file that can be read."""


def file_error(file: object, what: str, line: int = 0) -> FileError:
    """The error that says `what` of a file, and of one of its lines (from 1)."""
    return FileError(printable(f"{_place(file, line)}: {what}"))


def open_regular(file: Path, wanted: str) -> BinaryIO:
    """The file, open for reading bytes as they are stored. Raises FileError.

    A FIFO or a device is not opened: that could wait for ever. `wanted` is what error messages tell
    the user to name, such as `a YAML file`.
    """
    try:
        # Non-blocking: opening a FIFO without a writer returns at once, should one take the place.
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):
            raise file_error(file, f"not a file ({_kind(mode)}); name {wanted}")
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise file_error(file, f"no longer a file; name {wanted}")
    except OSError as error:
        if error.errno == errno.ENOENT:
            what = "link to nothing" if file.is_symlink() else "no such file"
            raise file_error(file, f"{what}; correct the path") from None
        raise file_error(file, f"not readable ({error.strerror}); correct that") from None
    return os.fdopen(descriptor, "rb")


def check_regular(file: Path, wanted: str) -> None:
    """Raise FileError unless `open_regular` would open the file: before a library opens it."""
    open_regular(file, wanted).close()


def read_bytes(file: Path, wanted: str, max_bytes: int) -> bytes:
    """The whole content, which has at most `max_bytes`. Raises FileError."""
    with open_regular(file, wanted) as opened:
        content = _read(_decompressed(file, opened), file, max_bytes + 1, whole=True)
    if len(content) > max_bytes:
        raise file_error(file, f"more than {max_bytes:,} bytes; split the file")
    return content


def read_lines(file: Path, wanted: str, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line, of at most `max_bytes`; a BOM is passed over.

    Lines end with \\n, which is left out. Raises FileError.
    """
    with open_regular(file, wanted) as opened:
        stream = _decompressed(file, opened)
        number = 0
        while line := _read(stream, file, max_bytes + 1, whole=False):
            number += 1
            if number == 1:
                line = _without_mark(line, file)
            line = line.removesuffix(b"\n")
            if len(line) > max_bytes:
                raise file_error(file, f"a line of more than {max_bytes:,} bytes; split it", number)
            yield number, line


def read_text(file: Path, wanted: str, max_bytes: int) -> str:
    """Text of a file in UTF-8, with or without a BOM, in bounds. Raises FileError."""
    return decoded(_without_mark(read_bytes(file, wanted, max_bytes), file), file)


def decoded(content: bytes, file: object, line: int | None = None) -> str:
    """Text of bytes in UTF-8. Raises NotUnicodeError, which names the byte and its line.

    line: of the file that the bytes begin in; None: in its first.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = (line or 1) + content.count(b"\n", 0, error.start)
        byte = f"byte 0x{content[error.start]:02x}"
        raise NotUnicodeError(
            printable(f"{_place(file, line)}: not UTF-8 ({byte}); save it as UTF-8")
        ) from None


# ---- private -------------------------------------------------------------------------------------


def _place(file: object, line: int) -> str:
    return f"{file}:{line}" if line else str(file)


def _decompressed(file: Path, opened: BinaryIO) -> BinaryIO:
    if file.suffix.lower() != ".gz":
        return opened
    return cast(BinaryIO, gzip.GzipFile(fileobj=opened, mode="rb"))


def _read(stream: BinaryIO, file: Path, size: int, *, whole: bool) -> bytes:
    try:
        return stream.read(size) if whole else stream.readline(size)
    except (OSError, EOFError, zlib.error) as error:
        raise file_error(file, f"damaged ({error}); copy it again from its source") from None


def _without_mark(content: bytes, file: Path) -> bytes:
    """The bytes without the byte order mark of UTF-8; another encoding's is an error."""
    for mark, encoding in _OTHER_MARKS:
        if content.startswith(mark):
            raise file_error(file, f"not UTF-8 (it begins as {encoding} does); save it as UTF-8", 1)
    return content.removeprefix(_MARK)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
