"""The one code location of the workspace: what `dagster dev`, `mechinterp ui` and runs name.

Belongs here: reading workspace.yaml.
"""

from pathlib import Path

from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths

WORKSPACE = Path(__file__).with_name("workspace.yaml")


def code_location() -> ManagedGrpcPythonEnvCodeLocationOrigin:
    """Module and name of the code location, as Dagster reads them."""
    (location,) = location_origins_from_yaml_paths([str(WORKSPACE)])
    assert isinstance(location, ManagedGrpcPythonEnvCodeLocationOrigin)
    return location
