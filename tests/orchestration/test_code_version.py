"""The code version names the source that ran."""

import re
import shutil
from pathlib import Path

from mechinterp_assets.orchestration.code_version import code_version, source_digest


def test_it_has_release_digest_and_commit() -> None:
    assert re.fullmatch(
        r"\d+\.\d+\.\d+\+[0-9a-f]{12}(\.g[0-9a-f]{10,}(\.changed)?)?", code_version()
    )


def test_the_digest_follows_source_alone(tmp_path: Path) -> None:
    package = tmp_path / "package"
    for folder in ("science", "resources", "sql/tables"):
        (package / folder).mkdir(parents=True)
    (package / "science" / "a.py").write_text("x = 1\n")
    (package / "sql" / "tables" / "t.sql").write_text("-- formula: 1\n")
    first = source_digest(package)
    (package / "notes.md").write_text("more")
    (package / "weights.safetensors").write_bytes(b"1")
    assert source_digest(package) == first
    assert source_digest(shutil.copytree(package, tmp_path / "copy")) == first
    (package / "sql" / "tables" / "t.sql").write_text("-- formula: 2\n")
    second = source_digest(package)
    (package / "science" / "a.py").rename(package / "science" / "b.py")
    assert len({first, second, source_digest(package)}) == 3
