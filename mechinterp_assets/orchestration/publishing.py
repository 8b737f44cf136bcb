"""Reading inputs and publishing outputs, the same way for every asset.

Belongs here: which data versions an asset read (they become its rows' provenance), what is checked
of them, and the metadata of every materialization. Does not belong here: what is computed.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version as package_version

import dagster as dg
import polars as pl

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Frames, Lake, Published
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Artefact, Tensors
from mechinterp_assets.studies.study import Study

CODE_VERSION = package_version("mechinterp-assets")
Metadata = dict[str, dg.MetadataValue | str | int | float | bool | None]


class StaleInputError(RuntimeError):
    """An input was made from something no longer current; the message says what to rerun."""


class Inputs:
    """The inputs of one partition: reads them and remembers their data versions."""

    def __init__(self, lake: Lake, tensors: Tensors, study: Study) -> None:
        self._lake = lake
        self._tensors = tensors
        self.study = study
        self.versions: dict[str, str] = {}
        self.model_version: str | None = None
        self.corpus_version: str | None = None
        self.sae_version: str | None = None

    def table(self, name: str, partition: str) -> pl.LazyFrame:
        """Current rows of one partition, without provenance columns."""
        current = self._lake.current(name, partition)
        self.versions[f"{name}/{partition}"] = current.data_version
        if name in {"tokenized_corpus", "ioi_prompts"}:
            self.corpus_version = current.data_version
        return self._lake.read(name, partition)

    def artefact(self, kind: str, partition: str) -> Artefact:
        """Current version of a tensor artefact, refused if what it was made from has changed.

        The table of the same name describes the artefact: its data version is recorded too, so that
        the catalog can tell what has gone stale.
        """
        self.versions[f"{kind}/{partition}"] = self._lake.data_version(kind, partition)
        artefact = self._tensors.open(kind, partition)
        for key, made_from in artefact.manifest.inputs.items():
            current = self._current(key)
            if current is not None and current != made_from:
                raise StaleInputError(
                    f"{kind} of {partition} was made from {key} {made_from[:16]}, but the current "
                    f"version is {current[:16]}; materialize {kind} again"
                )
        self.versions[f"tensors:{kind}/{partition}"] = artefact.data_version
        return artefact

    def _current(self, key: str) -> str | None:
        """Data version that an input has now; None where that cannot be known."""
        if key.startswith("settings:"):
            return None
        if key.startswith("tensors:"):
            kind, _, partition = key.removeprefix("tensors:").partition("/")
            return self._tensors.data_version(kind, partition)
        table, _, partition = key.partition("/")
        return self._lake.data_version(table, partition)

    def settings(self, section: str) -> None:
        """Record that the study's settings of `section` took part."""
        self.versions[f"settings:{section}"] = self.study.fingerprint(section)

    def model(self, model: LanguageModel) -> LanguageModel:
        """Use `model`, refused unless its weights and tokenizer are those of the study's table."""
        row = self.table("language_model", self.study.study).collect().row(0, named=True)
        for name in ("weights_hash", "tokenizer_hash"):
            if row[name] != getattr(model, name):
                raise StaleInputError(
                    f"{self.study.study}: {name} of {model.source} is {getattr(model, name)}, but "
                    f"the study's tables were made with {row[name]}; materialize language_model "
                    "and everything downstream of it"
                )
        self.model_version = model.weights_hash
        return model


def inputs_with_model(
    lake: Lake, tensors: Tensors, models: LanguageModelResource, study: Study, *sections: str
) -> tuple[Inputs, LanguageModel]:
    """Inputs of a study that the settings of `sections` took part in, and its checked model."""
    inputs = Inputs(lake, tensors, study)
    for section in sections:
        inputs.settings(section)
    return inputs, inputs.model(models.load(study))


class Publisher:
    """Publishes tables partition by partition and yields one result per asset at the end."""

    def __init__(self, context: dg.AssetExecutionContext, lake: Lake) -> None:
        self._context = context
        self._lake = lake
        self._data_versions: dict[str, str] = {}
        self._partitions: set[str] = set()

    def provenance(self, inputs: Inputs) -> Provenance:
        """Origin of what this run writes."""
        return Provenance(
            study=inputs.study.study,
            run_id=self._context.run_id,
            code_version=CODE_VERSION,
            model_version=inputs.model_version,
            corpus_version=inputs.corpus_version,
            sae_version=inputs.sae_version,
        )

    def publish(
        self,
        partition: str,
        inputs: Inputs,
        frames: Mapping[str, Frames],
        metadata: Mapping[str, Metadata] | None = None,
    ) -> dict[str, Published]:
        """Write one partition of the tables and attach their metadata to its materialization.

        A table's rows are one frame, or an iterable of frames; see `Lake.write_many`.
        """
        published = self._lake.write_many(
            frames, partition, self.provenance(inputs), inputs.versions
        )
        self._partitions.add(partition)
        for table, result in published.items():
            self._data_versions[table] = result.data_version
            self._context.add_asset_metadata(
                metadata={
                    "dagster/partition_row_count": result.rows,
                    "dagster/storage_kind": "duckdb",
                    "dagster/uri": result.path.as_uri(),
                    "version": result.version,
                    "data_version": result.data_version,
                    "megabytes": result.bytes / 1e6,
                    "preview": dg.MetadataValue.md(preview(self._shown(table, frames, result))),
                    **(metadata or {}).get(table, {}),
                },
                asset_key=dg.AssetKey(table),
                partition_key=partition,
            )
            self._context.log.info(
                f"published {table} {partition}: {result.rows} rows, version {result.version}"
            )
        return published

    def _shown(
        self, table: str, frames: Mapping[str, Frames], published: Published
    ) -> pl.DataFrame:
        """Rows for the preview; those of a stream are gone and are read from the file."""
        rows = frames[table]
        if isinstance(rows, pl.DataFrame):
            return rows
        columns = [column.name for column in table_spec(table).science_columns]
        return pl.scan_parquet(published.path, glob=False).select(columns).head(5).collect()

    def results(self) -> Iterator[dg.MaterializeResult[None]]:
        """One result per asset; the data version is the content's where one partition ran."""
        single = len(self._partitions) == 1
        for table, version in self._data_versions.items():
            yield dg.MaterializeResult(
                asset_key=table, data_version=dg.DataVersion(version) if single else None
            )


def preview(frame: pl.DataFrame, rows: int = 5) -> str:
    """First rows as a Markdown table; long texts and lists are cut."""
    shown = frame.head(rows).select(
        pl.col(name).cast(pl.String, strict=False).str.slice(0, 40)
        if not isinstance(dtype, pl.List)
        else pl.format("list of {}", pl.col(name).list.len()).alias(name)
        for name, dtype in frame.schema.items()
    )
    shown = shown.with_columns(pl.col(pl.String).str.replace_all(r"[|\r\n`<>]", "·").fill_null(""))
    header = "| " + " | ".join(shown.columns) + " |\n|" + "---|" * shown.width
    return "\n".join([header, *("| " + " | ".join(row) + " |" for row in shown.iter_rows())])
