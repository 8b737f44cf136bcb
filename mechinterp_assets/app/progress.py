"""What long work is doing, so that nobody waits before a silent terminal.

Belongs here: lines on the console, and a sign of life when none was written for a while. Does not
belong here: what Dagster's events mean (run_progress.py).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

SILENT_SECONDS = 9.0


class Progress:
    """Lines about work in this process; safe for threads.

    Args:
        write: takes one line.
        every: seconds without a line after which a piece of work shows that it is alive.
    """

    def __init__(self, write: Callable[[str], None], every: float = SILENT_SECONDS) -> None:
        self._write = write
        self._every = every
        self._lock = Lock()
        self._spoken = time.monotonic()
        self._last = ""

    def say(self, line: str) -> None:
        """Write a line."""
        with self._lock:
            self._spoken = time.monotonic()
        self._write(line)

    def heard(self, line: str) -> None:
        """Note what the work itself has just written."""
        with self._lock:
            self._spoken = time.monotonic()
            self._last = line.strip().splitlines()[0] if line.strip() else ""

    @contextmanager
    def doing(self, what: str | Callable[[], str]) -> Iterator[None]:
        """Show that the block is at work whenever it has been silent for too long.

        Args:
            what: what it does, to which the time since its start is added; or a function that
                gives the whole line.
        """
        ended = Event()
        started = time.monotonic()

        def line() -> str:
            if callable(what):
                return what()
            return f"{what}: {duration(time.monotonic() - started)} so far"

        def watch() -> None:
            while not ended.wait(self._due()):
                if self._due() > 0:
                    continue
                with self._lock:
                    last = f"; last: {self._last}" if self._last else ""
                self.say(f"{line()}{last}")

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _due(self) -> float:
        """Seconds until the silence is too long."""
        with self._lock:
            return max(0.0, self._spoken + self._every - time.monotonic())


def duration(seconds: float) -> str:
    """Seconds for a reader: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
