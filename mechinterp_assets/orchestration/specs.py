"""The AssetSpec of a table: names, words, columns and version from its declaration.

Belongs here: what Dagster shows of a table. `sql/tables/<table>.sql` is the one place where that is
written, so Dagster shows the words that DuckDB shows.
"""

from collections.abc import Sequence

import dagster as dg

from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import TableSpec

OWNERS = ["team:interpretability"]


def column_schema(spec: TableSpec) -> dg.TableSchema:
    """Dagster's column schema of a table: the declared columns, then provenance."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=column.name, type=column.type, description=column.comment)
            for column in spec.stored_columns
        ]
    )


def formula_code_version(spec: TableSpec) -> str:
    """What Dagster calls the code version of a table: its formula version."""
    return f"formula-{spec.formula_version}"


def table_asset(
    table: str, *, group: str, deps: Sequence[dg.AssetDep], kinds: Sequence[str] = ()
) -> dg.AssetSpec:
    """Spec of the asset that writes `table`."""
    spec = table_spec(table)
    return dg.AssetSpec(
        table,
        deps=deps,
        description=spec.comment,
        group_name=group,
        kinds={"duckdb", "parquet", *kinds},
        owners=OWNERS,
        tags={"per": spec.per},
        code_version=formula_code_version(spec),
        metadata={
            "dagster/column_schema": column_schema(spec),
            "dagster/table_name": f"mechinterp.main.{table}",
        },
    )
