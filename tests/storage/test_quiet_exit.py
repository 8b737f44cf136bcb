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
ROOT = Path(__file__).resolve().parents[2]


def test_annotations_hold_no_class_of_duckdb() -> None:
    """Which modules Dagster keeps alive varies; none may hold what duckdb misses at exit."""
    folders = [ROOT / name for name in ("mechinterp_assets", "resources", "tests")]
    files = [file for folder in folders for file in folder.rglob("*.py") if file != Path(__file__)]
    texts = {file: file.read_text() for file in files}
    named = {file for file, text in texts.items() if "duckdb.DuckDBPy" in text}
    assert len(named) >= 4
    assert [f for f in named if "from __future__ import annotations" not in texts[f]] == []


def test_nothing_is_printed_at_exit(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "lake")], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
