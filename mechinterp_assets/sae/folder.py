"""The two files of an SAE folder, and copies of it.

Belongs here: what needs no tensor, so that it answers at once. What the files hold: io.py.
"""

import shutil
from pathlib import Path

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def copy_sae_folder(folder: Path, to: Path) -> None:
    """Copy an SAE's two files into the folder `to`, made if absent.

    Raises FileExistsError if one of them is there already: nothing is overwritten.
    """
    for name in (CONFIG, WEIGHTS):
        if (to / name).exists():
            raise FileExistsError(f"{to / name} exists; name an empty or a new folder")
    to.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(folder / name, to / name)
