"""What an asset's body gets: one partition, its study, its inputs and the machine it runs on.

Belongs here: everything a body may ask for. Does not belong here: how bodies become assets
(shape.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.publishing import Metadata, Publisher
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Frames, Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import polars_schema
from mechinterp_assets.storage.tensors import Artefact, ArtefactWriter, Scratch, Tensors
from mechinterp_assets.studies.study import Study, site_key

if TYPE_CHECKING:
    import torch

    from mechinterp_assets.model.language_model import LanguageModel


@dataclass(frozen=True)
class Machine:
    """The resources of a run."""

    context: dg.AssetExecutionContext
    lake: Lake
    tensors: Tensors
    models: LanguageModelResource
    compute: ComputeResource
    dashboards: DashboardsResource


@dataclass(frozen=True)
class Made:
    """What a body made of one partition: rows by table, and metadata by table.

    Rows are one frame or an iterable of frames; the column `layer` of a table per layer is filled
    in where it is missing.
    """

    run: "Run"
    frames: Mapping[str, Frames]
    metadata: Mapping[str, Metadata] = field(default_factory=dict)


class Run:
    """One partition, or the layers of one study that are made together.

    study: shows the settings that the asset declared. partition: key; of layers made together that
    of the study. layers: those of the run. real_study: for resources, which are no part of results.
    """

    def __init__(
        self,
        machine: Machine,
        publisher: Publisher,
        inputs: Inputs,
        real_study: Study,
        layers: Iterable[int] = (),
        *,
        layer: int | None = None,
    ) -> None:
        self._machine, self._publisher, self._real_study = machine, publisher, real_study
        self.inputs = inputs
        self.layers = list(layers)
        self._layer = layer
        self.log = machine.context.log

    @property
    def study(self) -> Study:
        """The study, with the settings that the asset declared."""
        return self.inputs.study

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._real_study.study

    @property
    def layer(self) -> int:
        """The layer of a partition per layer."""
        assert self._layer is not None, "an asset per study has no layer"
        return self._layer

    @property
    def partition(self) -> str:
        """Partition key."""
        return self.name if self._layer is None else site_key(self.name, self._layer)

    def at(self, layer: int) -> "Run":
        """One of the layers that are made together: has read what this run has, and its own."""
        return Run(
            self._machine,
            self._publisher,
            self.inputs.below(),
            self._real_study,
            self.layers,
            layer=layer,
        )

    # ---- inputs ----------------------------------------------------------------------------------

    def table(self, name: str, layer: int | None = None) -> pl.LazyFrame:
        """Current rows: of the study, of the layer, or (asked per study) of all layers."""
        if self._layer is None and layer is None and table_spec(name).per == "site":
            return pl.concat(self.inputs.table(name, key) for key in self.inputs.use_layers())
        return self.inputs.table(name, self._key(name, layer))

    def frame(self, name: str, layer: int | None = None) -> pl.DataFrame:
        """As `table`, read."""
        return self.table(name, layer).collect()

    def find(self, name: str, layer: int | None = None) -> pl.LazyFrame | None:
        """As `table`; None where nothing was made (asked per study: of no layer)."""
        if self._layer is None and layer is None and table_spec(name).per == "site":
            sites = self.inputs.use_layers()
            found = [rows for key in sites if (rows := self.inputs.find(name, key)) is not None]
            return pl.concat(found) if found else None
        return self.inputs.find(name, self._key(name, layer))

    def so_far(self, name: str) -> pl.DataFrame:
        """Rows of a table of this asset's own, of the layers that have been made until now."""
        lake = self._machine.lake
        made = [key for key in self._real_study.sites if lake.exists(name, key)]
        return lake.read(name, made).collect()

    def row(self, name: str) -> dict[str, Any]:
        """The only row of a table such as language_model; its hash becomes provenance."""
        return self.inputs.row(name, self._key(name, None))

    def sql(self, query: str) -> pl.DataFrame:
        """Rows of one statement over the catalog, with parameters $study and $layer."""
        parameters: dict[str, object] = {"study": self.name}
        if self._layer is not None and "$layer" in query:
            parameters["layer"] = self._layer
        return self.inputs.sql(query, parameters if "$study" in query else None)

    def origin(self, name: str) -> Provenance:
        """Where the rows of a table come from, for a page that shows them."""
        return self.inputs.origin(name, self._key(name, None))

    def query(self, statement: str) -> pl.DataFrame:
        """Rows of one statement over the catalog that reads the DuckDB variable `study`."""
        return self.inputs.query(statement)

    def artefact(self, kind: str, layer: int | None = None) -> Artefact:
        """Current version of a layer's artefact."""
        return self.inputs.artefact(kind, self._key(kind, layer))

    def _key(self, name: str, layer: int | None) -> str:
        if table_spec(name).per == "study":
            return self.name
        return site_key(self.name, self.layer if layer is None else layer)

    # ---- the machine -----------------------------------------------------------------------------

    @cached_property
    def model(self) -> "LanguageModel":
        """The study's model, refused unless it is the one that its tables were made with."""
        return self.inputs.model(self.load_model())

    def load_model(self) -> "LanguageModel":
        """The study's model as it is, for the asset that records which one it is."""
        return self._machine.models.load(self._real_study)

    @property
    def device(self) -> "torch.device":
        """Where tensors are computed."""
        return self._machine.compute.torch_device()

    @property
    def compute(self) -> ComputeResource:
        """Memory and device of this machine."""
        return self._machine.compute

    @property
    def dashboards(self) -> DashboardsResource:
        """Where pages go."""
        return self._machine.dashboards

    def scratch(self) -> AbstractContextManager[Path]:
        """A private folder for what is larger than memory, removed at the end."""
        return self._machine.lake.scratch()

    def checkpoints(self, kind: str) -> AbstractContextManager[Scratch]:
        """The folder of unfinished work on an artefact of this partition."""
        return self._machine.tensors.scratch(kind, self.partition)

    @contextmanager
    def writer(self, kind: str) -> Iterator[ArtefactWriter]:
        """Write this partition's next version of an artefact; see `Tensors.writer`.

        The table that describes it, published afterwards, remembers which version that is.
        """
        with self._machine.tensors.writer(
            kind, self.partition, self.provenance, inputs=self.inputs.versions
        ) as writer:
            yield writer
        self.inputs.describes(kind, self.partition, writer.published.data_version)

    # ---- outputs ---------------------------------------------------------------------------------

    @property
    def provenance(self) -> Provenance:
        """Provenance of what is made of the inputs read so far."""
        return self._publisher.provenance(self.inputs)

    def made(
        self, frames: Mapping[str, Frames], metadata: Mapping[str, Metadata] | None = None
    ) -> Made:
        """What was made of this partition."""
        return Made(self, frames, metadata or {})

    def nothing(self, reason: str, *names: str) -> Made:
        """Tables without rows, where model or prompts give nothing to make; the log says why."""
        self.log.warning(f"{', '.join(names)}: no rows: {reason}")
        return self.made(self.no_rows(*names))

    def no_rows(self, *names: str) -> dict[str, pl.DataFrame]:
        """Empty frames of tables, by name."""
        return {name: pl.DataFrame(schema=polars_schema(table_spec(name))) for name in names}

    def publish(self, made: Made) -> Iterator[dg.AssetMaterialization]:
        """Write what was made, the column layer filled in; what Dagster records of it."""
        frames = {name: self._with_layer(name, rows) for name, rows in made.frames.items()}
        return self._publisher.publish(self.partition, self.inputs, frames, made.metadata)

    def _with_layer(self, name: str, rows: Frames) -> Frames:
        if self._layer is None:
            return rows
        declared = {column.name for column in table_spec(name).science_columns}
        if "layer" not in declared:
            return rows
        layer = pl.lit(self._layer, pl.Int32).alias("layer")
        if isinstance(rows, pl.DataFrame):
            return rows if "layer" in rows.columns else rows.with_columns(layer)
        return _each_with(rows, layer)


def _each_with(frames: Iterable[pl.DataFrame], layer: pl.Expr) -> Iterator[pl.DataFrame]:
    for frame in frames:
        yield frame if "layer" in frame.columns else frame.with_columns(layer)
