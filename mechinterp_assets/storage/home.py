"""Where state lives: one folder with the lake, the tensors, the dashboards and Dagster's own files.

Belongs here: the folder's place and its parts. Does not belong here: what is stored in them.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOME_VARIABLE = "MECHINTERP_HOME"


def home() -> Path:
    """MECHINTERP_HOME, or `.mechinterp` in the project; absolute, created by whoever writes."""
    named = os.environ.get(HOME_VARIABLE)
    return (Path(named).expanduser() if named else PROJECT / ".mechinterp").absolute()


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
