"""What is wrong with a call, told in one line.

Belongs here: the error that every command turns a user's mistake into. The command line prints its
message as it is; any other exception is a mistake in the program and keeps its traceback.
"""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

# What a disk, a folder or a port answers when it cannot be used as asked: nobody's bug.
_OUTSIDE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EADDRINUSE,
}


class Mistake(typer.TyperException):
    """A mistake in a call, or something outside the program that stops it.

    Attributes:
        exit_code: 2 for a wrong call; 1 for work that could not be done.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def told(*errors: type[Exception], exit_code: int = 2) -> Iterator[None]:
    """Turn `errors`, whose messages say what to do, into a Mistake."""
    try:
        yield
    except errors as error:
        raise Mistake(str(error), exit_code) from None


def outside(error: OSError) -> str | None:
    """The line for an error of the file system or network; None for one that is a bug."""
    if error.errno not in _OUTSIDE:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or str(error)).lower()}"


def nearest(name: str, names: Iterable[str], most: int = 3) -> str:
    """`perhaps` the names closest to one that does not exist, or all names where none is close."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    return f"perhaps {', '.join(close)}" if close else f"one of {', '.join(known)}"
