"""A tied process and what it started end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mechinterp_assets.app.tied_process import tied_process

ROOT = Path(__file__).parents[2]
# The child, through a module of the standard library that runs code, starts a process of its own.
SLEEPS = "import subprocess; subprocess.run(['sleep', '600'])"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def timeit(code: str) -> tuple[str, list[str]]:
    return "timeit", ["-n", "1", "-r", "1", code]


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, of, state in rows if int(of) == leader and not state.startswith("Z")]


def wait_until(count: int, leader: int) -> None:
    deadline = time.monotonic() + 60
    while len(group(leader)) != count:
        assert time.monotonic() < deadline, (group(leader), count)
        time.sleep(0.05)


def test_the_end_of_the_block_ends_both() -> None:
    with tied_process(*timeit(SLEEPS)) as child:
        wait_until(2, child.pid)
        assert os.getpgid(child.pid) != os.getpgid(0)
    wait_until(0, child.pid)


def test_a_child_that_does_not_listen_is_killed() -> None:
    with tied_process(*timeit(STUBBORN + SLEEPS), stop_seconds=0.5) as child:
        wait_until(2, child.pid)
    assert child.returncode == -signal.SIGKILL
    wait_until(0, child.pid)


def test_arguments_and_exit_codes_are_the_modules() -> None:
    code = "import os, sys; os._exit(len(sys.argv))"
    with tied_process(*timeit(code)) as child:
        assert child.wait(60) == 6


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_killed_parent_takes_both_along(stubborn: bool) -> None:
    program = (
        "import sys, time\n"
        "from mechinterp_assets.app.tied_process import tied_process\n"
        f"child_program = {timeit(STUBBORN * stubborn + SLEEPS)!r}\n"
        "with tied_process(*child_program, stop_seconds=0.5) as child:\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(2, child)
        parent.kill()
    wait_until(0, child)
