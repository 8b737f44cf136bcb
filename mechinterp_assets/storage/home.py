"""Where state lives: one folder with the lake, the tensors, the dashboards and Dagster's own files.

Belongs here: the folder's place and its parts. Does not belong here: what is stored in them.
"""

import os
from pathlib import Path

HOME_VARIABLE = "MECHINTERP_HOME"
_ABOVE_PACKAGE = Path(__file__).resolve().parents[2]


def checkout() -> Path | None:
    """The folder of the repository; None where the package is installed from a wheel."""
    return _ABOVE_PACKAGE if (_ABOVE_PACKAGE / "pyproject.toml").is_file() else None


def home() -> Path:
    """MECHINTERP_HOME, or `.mechinterp` in the checkout, or else in the current folder.

    Absolute, created by whoever writes.
    """
    named = os.environ.get(HOME_VARIABLE)
    folder = Path(named).expanduser() if named else (checkout() or Path.cwd()) / ".mechinterp"
    return folder.absolute()


def lake_folder() -> Path:
    """Folder of tables, with mechinterp.duckdb."""
    return home() / "lake"


def tensor_folder() -> Path:
    """Folder of safetensors artefacts."""
    return home() / "tensors"


def dashboard_folder() -> Path:
    """Folder of HTML dashboards."""
    return home() / "dashboards"


def dagster_folder() -> Path:
    """DAGSTER_HOME of this project."""
    return home() / "dagster"


def models_folder() -> Path:
    """Folder of models that were fetched or converted."""
    return home() / "models"


def kept_prompts_file(study: str) -> Path:
    """Prompts of a study that were kept in the explorer."""
    return home() / "prompts" / f"{study}.yaml"
