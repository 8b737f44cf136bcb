"""A Python module as a process that ends with the one that started it, however that ends.

Belongs here: starting, stopping and tying it. Does not belong here: what runs in it.

The child reads from a pipe that its parent alone holds open. At its end, which the system sees to
when the parent is killed too, the child ends its process group: itself and all that it started.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

STOP_SECONDS = 30.0


@contextmanager
def tied_process(
    module: str, arguments: Sequence[str], stop_seconds: float = STOP_SECONDS
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m <module> <arguments>`, stopped with what it started when the block ends.

    Signals of the terminal do not reach it: it ends once, when its parent says so. What has not
    ended `stop_seconds` after that is killed.
    """
    reading, writing = os.pipe()
    try:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", __name__, str(reading), str(stop_seconds)),
                *(module, *arguments),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(reading,),
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _end_group(child, stop_seconds)
    finally:
        os.close(reading)
        os.close(writing)


def _end_group(child: subprocess.Popen[bytes], stop_seconds: float) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(stop_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _end_with(pipe: int, stop_seconds: float) -> None:
    """Wait until nobody holds the other end of the pipe, then end this process group."""
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(stop_seconds)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the module that the arguments name, after the pipe's number and the time to stop."""
    pipe, stop_seconds, module, *arguments = sys.argv[1:]
    watch = threading.Thread(target=_end_with, args=(int(pipe), float(stop_seconds)), daemon=True)
    watch.start()
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
