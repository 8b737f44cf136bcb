"""Training checkpoints: one safetensors file, replaced atomically, with JSON in its header.

Belongs here: writing and reading that file. Does not belong here: what is in it (train.py).
"""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp_assets.sae.base import SaeError

NAME = "checkpoint.safetensors"
FORMAT = 1


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; a crash at any moment leaves the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{NAME}.{os.getpid()}"
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(content, temporary, metadata={"info": json.dumps({"format": FORMAT, **info})})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and info of the folder's checkpoint, or None. Raises SaeError if unreadable."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            info = json.loads(file.metadata()["info"])
    except Exception as error:
        raise SaeError(
            f"checkpoint {path} cannot be read ({error}); remove it to train from the start"
        ) from error
    if info["format"] != FORMAT:
        raise SaeError(
            f"checkpoint {path} has format {info['format']}, this version reads {FORMAT}; "
            "remove it to train from the start"
        )
    return tensors, info
