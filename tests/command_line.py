"""The command line called in this process, as a shell would call it."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from mechinterp_assets.app.cli import run


@dataclass(frozen=True)
class Called:
    """How a command ended and what it wrote to standard output and standard error."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both."""
        return self.stdout + self.stderr


def call(arguments: Sequence[str]) -> Called:
    """Run one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return Called(code, out.getvalue(), err.getvalue())
