"""Publishing outputs, the same way for every asset.

Belongs here: writing an asset's tables with their provenance, and the metadata of every
materialization. Does not belong here: inputs (inputs.py), what is computed.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version as package_version

import dagster as dg
import polars as pl

from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Frames, Lake, Published
from mechinterp_assets.storage.provenance import Provenance

CODE_VERSION = package_version("mechinterp-assets")
Metadata = dict[str, dg.MetadataValue | str | int | float | bool | None]


class Publisher:
    """Writes the tables of one asset run and reports each partition with uniform metadata."""

    def __init__(self, context: dg.AssetExecutionContext, lake: Lake) -> None:
        self._context = context
        self._lake = lake
        self._data_versions: dict[str, str] = {}
        self._partitions: set[str] = set()

    def provenance(self, inputs: Inputs) -> Provenance:
        """Provenance of what is made from these inputs."""
        return Provenance(
            study=inputs.study.study,
            run_id=self._context.run_id,
            code_version=CODE_VERSION,
            model_version=inputs.provenance("model_version"),
            corpus_version=inputs.provenance("corpus_version"),
            sae_version=inputs.provenance("sae_version"),
        )

    def publish(
        self,
        partition: str,
        inputs: Inputs,
        frames: Mapping[str, Frames],
        metadata: Mapping[str, Metadata],
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
                    **metadata.get(table, {}),
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
