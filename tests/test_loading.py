"""Loading the definitions, and commands that need no model, import no science."""

import subprocess
import sys

import pytest

from tests.conftest import HANGS

HEAVY = ("torch", "transformers", "transformer_lens", "datasets", "scipy", "matplotlib")
PROGRAMS = {
    "definitions": "import mechinterp_assets.definitions as d; d.build_definitions()",
    "studies": "from mechinterp_assets.studies.registry import load_registry; load_registry()",
    "a command": "from mechinterp_assets.app.cli import run; run(['studies'])",
    "Python's names": "import mechinterp_assets as mi; mi.open, mi.OpenedStudy, mi.Origin",
    "worked queries": "from mechinterp_assets.app.cli import run; run(['queries'])",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_science_is_imported(program: str) -> None:
    wanted = ["dagster", *HEAVY] if program != "definitions" else HEAVY
    check = f"\nimport sys\nprint('loaded:', *[m for m in {wanted!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program] + check],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "loaded:"
