"""Files that docstrings, comments and docs name exist; no two test files share a name."""

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"(?<![\w./<>*{}-])((?:[\w-]+/)*[a-z]\w*\.(?:py|cpp))\b(?![\w*])")
# Files of examples that do not exist, and of other programs.
ELSEWHERE = {"utils.py", "topic.py", "llama.cpp"}


def test_files_that_are_named_exist() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    paths = [f"/{name}" for name in listed]
    lacking = []
    for name in listed:
        file = ROOT / name
        if not name.startswith(("mechinterp_assets/", "resources/", "docs/", "README", "sql/")):
            continue
        if file.suffix not in {".py", ".md", ".sql"} or not file.is_file():
            continue
        for named in NAMED.findall(file.read_text()):
            known = any(path.endswith(f"/{named}") for path in paths)
            example = name == "docs/development.md"  # its examples are files of their own
            if not known and not example and named.rpartition("/")[2] not in ELSEWHERE:
                lacking.append(f"{name}: {named}")
    assert not lacking, "\n".join(sorted(set(lacking)))


def test_names_of_test_files_are_unique() -> None:
    """Pytest imports them by their names alone, and stops at two of one name."""
    together = (path for path in ROOT.glob("tests/**/test_*.py") if path.parent.name != "peers")
    names = Counter(path.name for path in together)
    assert [name for name, count in names.items() if count > 1] == []
