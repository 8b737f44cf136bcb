"""Publishing outputs, the same way for every asset.

Belongs here: writing an asset's tables with their provenance, and the metadata of every
materialization. Does not belong here: inputs (inputs.py), what is computed.
"""

from collections.abc import Iterable, Iterator, Mapping

import dagster as dg
import polars as pl
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from mechinterp_assets.orchestration.code_version import code_version
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.specs import formula_code_version
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Frames, Lake, Published
from mechinterp_assets.storage.provenance import Provenance

Metadata = dict[str, dg.MetadataValue | str | int | float | bool | None]


class Publisher:
    """Writes the tables of one step and reports each partition as it is published.

    Dagster reports a step's outputs when the step ends, all partitions of a range at once; then a
    failure at layer 7 of 12 would leave six layers in the lake that Dagster does not know. So each
    partition is an event of its own, and `results` keeps Dagster from making its own.
    """

    def __init__(self, context: dg.AssetExecutionContext, lake: Lake) -> None:
        self._context = context
        self._lake = lake
        self._code_version = code_version()

    def provenance(self, inputs: Inputs) -> Provenance:
        """Provenance of what is made from these inputs."""
        return Provenance(
            study=inputs.study.study,
            run_id=self._context.run_id,
            code_version=self._code_version,
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
    ) -> Iterator[dg.AssetMaterialization]:
        """Write one partition of the tables; then what Dagster is to record of each.

        A table's rows are one frame, or an iterable of frames; see `Lake.write_many`.
        """
        inputs.check_files()
        made_from = inputs.versions
        published = self._lake.write_many(frames, partition, self.provenance(inputs), made_from)
        for table, result in published.items():
            self._context.log.info(
                f"published {table} {partition}: {result.rows} rows, version {result.version}"
            )
            yield dg.AssetMaterialization(
                asset_key=table,
                partition=partition,
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
                tags=self._tags(table, result.data_version, made_from),
            )

    def results(self, tables: Iterable[str]) -> Iterator[dg.MaterializeResult[None]]:
        """The step's outputs, for what comes after; their events are there already."""
        for table in tables:
            yield dg.MaterializeResult(
                asset_key=table, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
            )

    def _tags(self, table: str, data_version: str, made_from: Mapping[str, str]) -> dict[str, str]:
        """The tags by which Dagster tells whether a partition is in step with its inputs."""
        step = self._context.get_step_execution_context()
        tags = {
            DATA_VERSION_TAG: data_version,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            CODE_VERSION_TAG: formula_code_version(table_spec(table)),
        }
        for key in step.job_def.asset_layer.get(dg.AssetKey(table)).parent_keys:
            latest = step.maybe_fetch_and_get_input_asset_version_info(key)
            used = sorted(
                version
                for name, version in made_from.items()
                if name.startswith(f"{key.path[-1]}/")
            )
            tags[get_input_data_version_tag(key)] = "+".join(one[:16] for one in used) or "none"
            tags[get_input_event_pointer_tag(key)] = (
                NULL_EVENT_POINTER if latest is None else str(latest.storage_id)
            )
        return tags

    def _shown(
        self, table: str, frames: Mapping[str, Frames], published: Published
    ) -> pl.DataFrame:
        """Rows for the preview; those of a stream are gone and are read from the file."""
        rows = frames[table]
        if isinstance(rows, pl.DataFrame):
            return rows
        columns = [column.name for column in table_spec(table).science_columns]
        return pl.scan_parquet(published.path, glob=False).select(columns).head(5).collect()


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
