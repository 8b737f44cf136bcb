"""Training checkpoints: a folder per checkpoint, one safetensors file per SAE, put there by rename.

Belongs here: writing and reading such folders. Does not belong here: what is in them (train.py).

    <folder>/step-000001000/   000.safetensors ...  one SAE each, its info as JSON in the header
                               run.json             what they share: the position of the rows
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp_assets.sae.errors import SaeError

RUN = "run.json"
FORMAT = 2

State = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The states of the SAEs trained together, in order, and what they share."""

    path: Path
    states: list[State]
    info: dict[str, Any]


def save_checkpoint(folder: Path, step: int, states: Iterable[State], info: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; a crash at any moment leaves the old or the new one whole.

    `states` may be a generator: one SAE's tensors are copied to the CPU at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*"):
        shutil.rmtree(left)
    work = folder / f".step-{os.getpid()}"
    work.mkdir()
    n = 0
    for tensors, own in states:
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = work / _file(n)
        save_file(content, path, metadata={"info": json.dumps(own)})
        _fsync(path)
        n += 1
    (work / RUN).write_text(json.dumps({"format": FORMAT, "saes": n, **info}))
    _fsync(work / RUN)
    target = folder / f"step-{step:09d}"
    if target.exists():
        shutil.rmtree(target)
    work.rename(target)
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's latest checkpoint, or None. Raises SaeError if it cannot be read."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    path = found[-1]
    try:
        info = json.loads((path / RUN).read_text())
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']}, this version reads {FORMAT}")
        states = [_read(path / _file(i)) for i in range(info["saes"])]
    except Exception as error:
        raise SaeError(
            f"checkpoint {path} cannot be read ({error}); remove it to train from the start"
        ) from error
    return Checkpoint(path, states, info)


def clear_checkpoints(folder: Path) -> None:
    """Remove the folder's checkpoints."""
    for path in folder.glob("step-*"):
        shutil.rmtree(path)


def _file(index: int) -> str:
    return f"{index:03d}.safetensors"


def _read(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        return tensors, json.loads(file.metadata()["info"])


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
