"""A program that used the lake's modules and Dagster ends without a word about its memory."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import mechinterp_assets.definitions
from mechinterp_assets.storage.lake import Lake
assert Lake(sys.argv[1]).sql("SELECT count(*) AS n FROM declared_tables")["n"][0] > 50
"""


def test_nothing_is_printed_at_exit(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "lake")], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
