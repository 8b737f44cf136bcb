"""The CPU kernels of sparse_ops.cpp: built once for this machine, loaded by every later process.

Belongs here: when and how they are built. Does not belong here: what they compute (sparse_ops.cpp),
who calls them (sparse_ops.py). `python -m mechinterp_assets.sae.cpu_kernels` builds them ahead of
their first use. MECHINTERP_CPP=0 turns them off; without a compiler everything runs on torch alone.

A library is built in a folder of its own and moved to its final name when it is whole, so that no
process loads half a library and a build that was killed leaves nothing to wait for. The final name
holds a hash of the source, the compiler flags, torch and this processor: a cache shared by several
machines serves each with its own build. That folder is TORCH_EXTENSIONS_DIR, or else torch's in the
user's cache (~/.cache/torch_extensions), for a checkout and an installed wheel alike: nothing is
written beside the package.
"""

import functools
import hashlib
import importlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

logger = logging.getLogger(__name__)

SWITCH = "MECHINTERP_CPP"
SOURCE = Path(__file__).with_name("sparse_ops.cpp")
# -ffast-math but for what would hide NaN or infinity.
FLAGS = [
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
]
# A build takes 10 to 20 seconds; after this long another process's is not waited for.
LOCK_SECONDS = 180


@functools.cache
def kernels() -> Any | None:
    """torch.ops.mechinterp_sparse, built if need be; None where it is off or cannot be built."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        load_library: Any = torch.ops.load_library
        load_library(str(_library()))
    except Exception as error:
        # Any failure of a compiler or loader: the torch path gives the same results.
        logger.info(
            "no compiled CPU kernels (%s: %s): SAE steps give the same results, only slower",
            type(error).__name__,
            str(error).strip().splitlines()[0] if str(error).strip() else "no message",
        )
        return None
    return torch.ops.mechinterp_sparse


def _library() -> Path:
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or _default_root())
    final = root / f"mechinterp_sparse-{_fingerprint()}.so"
    if final.exists():
        return final
    root.mkdir(parents=True, exist_ok=True)
    # the system frees this lock when its holder dies
    with FileLock(final.with_suffix(".lock"), timeout=LOCK_SECONDS):
        if not final.exists():
            _build(root, final)
    return final


def _build(root: Path, final: Path) -> None:
    extension = importlib.import_module("torch.utils.cpp_extension")
    _find_ninja()
    folder = tempfile.mkdtemp(prefix="mechinterp_sparse-", dir=root)
    try:
        logger.info("building the CPU kernels of SAE training (once for this machine, 10 to 20 s)")
        extension.load(
            "mechinterp_sparse",
            [str(SOURCE)],
            extra_cflags=FLAGS,
            extra_ldflags=["-fopenmp"],
            build_directory=folder,
            is_python_module=False,
        )
        os.replace(Path(folder) / "mechinterp_sparse.so", final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_ninja() -> None:
    """Put the ninja of this environment on PATH where there is none."""
    if shutil.which("ninja"):
        return
    folder = Path(importlib.import_module("ninja").BIN_DIR)
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}{folder}"


def _default_root() -> Path:
    return Path(importlib.import_module("torch.utils.cpp_extension").get_default_build_root())


def _fingerprint() -> str:
    parts = [
        SOURCE.read_text(),
        " ".join(FLAGS),
        torch.__version__,
        platform.machine(),
        _processor(),
        _compiler(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What -march=native depends on: the instruction sets of this processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _compiler() -> str:
    command = os.environ.get("CXX", "c++")
    found = shutil.which(command)
    if found is None:
        raise FileNotFoundError(f"no C++ compiler: {command!r} is not on PATH")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    return version.stdout.splitlines()[0]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print("CPU kernels: " + ("built" if kernels() is not None else "not available"))
