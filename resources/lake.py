"""The lake as a Dagster resource. How it stores tables is in `storage/lake.py`."""

import dagster as dg
from pydantic import Field

from mechinterp_assets.storage.lake import KEEP_SECONDS, Frames, Lake, LakeError, Published

__all__ = ["Frames", "Lake", "LakeError", "LakeResource", "Published"]


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake as a Dagster resource: `lake: dg.ResourceParam[Lake]` in an asset gets a `Lake`."""

    root: str = Field(description="Folder of the tables and of mechinterp.duckdb")
    keep_seconds: float = Field(
        default=KEEP_SECONDS,
        description="How long a superseded version of a table partition is kept, in seconds",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        """The lake that assets receive."""
        return self.lake

    @property
    def lake(self) -> Lake:
        """The lake, for use outside a run."""
        return Lake(self.root, self.keep_seconds)
