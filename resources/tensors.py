"""The tensor store as a Dagster resource. How it stores artefacts is in `storage/tensors.py`."""

import dagster as dg
from pydantic import Field

from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.tensors import (
    KEEP_SECONDS,
    Artefact,
    ArtefactWriter,
    PublishedTensors,
    Scratch,
    Tensors,
)

__all__ = [
    "Artefact",
    "ArtefactError",
    "ArtefactWriter",
    "PublishedTensors",
    "Scratch",
    "Tensors",
    "TensorsResource",
]


class TensorsResource(dg.ConfigurableResource[Tensors]):
    """The tensor store as a Dagster resource: an asset that asks for it gets a `Tensors`."""

    root: str = Field(description="Folder of weights and activations")
    keep_seconds: float = Field(
        default=KEEP_SECONDS,
        description="How long a superseded version of an artefact is kept, in seconds",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Tensors:
        """The store that assets receive."""
        return self.tensors

    @property
    def tensors(self) -> Tensors:
        """The store, for use outside a run."""
        return Tensors(self.root, self.keep_seconds)
