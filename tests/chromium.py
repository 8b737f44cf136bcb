"""The browser that page tests drive: Chromium, node and the node package playwright-core."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def find_chromium() -> str:
    """Path of the browser; skips the test where a part is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    if shutil.which("node") is None:
        pytest.skip("no node on the PATH to drive the browser")
    probe = ["node", "-e", "require('playwright-core')"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        where = os.environ.get("NODE_PATH", "not set")
        pytest.skip(f"node has no package playwright-core (NODE_PATH: {where})")
    return found


def driven(driver: Path, *arguments: str, seconds: int = 120) -> dict[str, Any]:
    """What a script of node reports, as JSON, of the pages that it opened."""
    command = ["node", str(driver), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
