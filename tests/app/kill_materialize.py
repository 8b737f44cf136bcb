"""Materialize the tiny study, killed again and again; compare with one that was left in peace.

    python -m tests.app.kill_materialize [kills] [seed]

Each attempt is a process of its own that gets SIGKILL after a random time; the last one may finish.
What it must come to: every table partition with the data version that the other study has, nothing
stale, nothing begun, no unfinished files.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mechinterp_assets.storage.files import WORK_FOLDER
from mechinterp_assets.storage.lake import Lake

ROOT = Path(__file__).resolve().parents[2]


def started(home: Path) -> subprocess.Popen[bytes]:
    """`mechinterp materialize tiny` on a home."""
    environment = {
        **os.environ,
        "MECHINTERP_HOME": str(home),
        "MECHINTERP_STUDIES": str(ROOT / "tests" / "studies"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "mechinterp_assets", "materialize", "tiny"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(home / "log").open("ab"),
        start_new_session=True,
    )


def versions(home: Path) -> dict[tuple[str, str], str]:
    """Data version of every current table partition."""
    rows = Lake(home / "lake").sql("SELECT table_name, partition, data_version FROM lineage").rows()
    return {(table, partition): version for table, partition, version in rows}


def compare(kills: int, seed: int) -> int:
    """Run, kill, finish, compare; 0 where both come to the same."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = Path(folder) / "calm", Path(folder) / "stormy"
        calm.mkdir()
        stormy.mkdir()
        begun = time.monotonic()
        assert started(calm).wait() == 0, (calm / "log").read_text()
        whole = time.monotonic() - begun
        killed = 0
        while killed < kills:
            # Loading the definitions takes the first seconds; most kills come while assets run.
            process = started(stormy)
            try:
                process.wait(timeout=draw.uniform(3, 3 + whole / 10))
                assert process.returncode == 0, (stormy / "log").read_text()
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                made = len(versions(stormy)) if (stormy / "lake").is_dir() else 0
                print(f"kill {killed}: {made} partitions made", flush=True)
        assert started(stormy).wait() == 0, (stormy / "log").read_text()
        expected, found = versions(calm), versions(stormy)
        different = sorted(key for key in expected if found.get(key) != expected[key])
        lake = Lake(stormy / "lake")
        stale = lake.sql("FROM stale_partitions WHERE study = 'tiny'").height
        left = [
            path
            for root in (stormy / "lake", stormy / "tensors")
            for path in (root / WORK_FOLDER).glob("*")
        ]
        written = sum(len(lake.versions(table, partition)) for table, partition in sorted(found))
        print(
            f"{killed} kills; {len(found)} of {len(expected)} partitions,"
            f" {len(different)} with other data; {written} versions written;"
            f" {stale} stale, {len(lake.begun())} begun, {len(left)} unfinished folders"
        )
        for key in different:
            print("  other data:", *key)
        return 1 if different or stale or lake.begun() or found.keys() != expected.keys() else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(compare(*(numbers + [15, 0][len(numbers) :])))
