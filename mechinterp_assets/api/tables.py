"""The tables and views of one study, with what their columns mean.

Belongs here: reading them as polars frames or DuckDB relations, and how a table shows itself. Does
not belong here: what single rows stand for (feature.py, head.py), where they come from (origin.py).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.api.not_there import NotThereError, perhaps
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.sql_text import quote_name, quote_text
from mechinterp_assets.storage.table_spec import Column, TableSpec, ViewSpec
from mechinterp_assets.studies.study import parse_site

if TYPE_CHECKING:
    import duckdb

SHOWN_ROWS = 5
_FRAME = "border-collapse:collapse;font-size:13px"
_CELL = "text-align:left;padding:1px 12px 1px 0;vertical-align:top"


@dataclass(frozen=True)
class Table:
    """One table or view of the lake, cut to one study.

    Attributes:
        study: name of the study; views without a column `study` are whole.
        spec: its declaration.
    """

    study: str
    spec: TableSpec | ViewSpec
    _lake: Lake
    _connection: Callable[[], duckdb.DuckDBPyConnection]

    @property
    def name(self) -> str:
        """Its name, as in SQL."""
        return self.spec.name

    @property
    def comment(self) -> str:
        """What one row is."""
        return self.spec.comment

    @property
    def is_view(self) -> bool:
        """Whether its rows are worked out from tables when they are read."""
        return isinstance(self.spec, ViewSpec)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns with type and meaning; of a table without those of provenance."""
        return self.spec.columns

    @property
    def comments(self) -> dict[str, str]:
        """Column -> what it means: definition, unit, range, source."""
        return {column.name: column.comment for column in self.columns}

    def describe(self) -> pl.DataFrame:
        """Columns `column`, `type` (DuckDB's) and `meaning`."""
        return pl.DataFrame(
            {
                "column": [column.name for column in self.columns],
                "type": [column.type for column in self.columns],
                "meaning": [column.comment for column in self.columns],
            }
        )

    @property
    def partitions(self) -> list[str]:
        """Keys of its partitions: the study's, or those of the study's layers; of a view none."""
        if self.is_view:
            return []
        return [key for key in self._lake.partitions(self.name) if _study_of(key) == self.study]

    def lazy(self, *, layer: int | None = None, provenance: bool = False) -> pl.LazyFrame:
        """Its rows as a polars LazyFrame: filters and chosen columns are pushed into the files.

        Args:
            layer: only the rows of one layer, of a table that has a partition for each.
            provenance: also run, code, formula, model, corpus and SAE version of each row.

        Raises:
            NotThereError: nothing of it is materialized for the study, or for the layer.
            LakeError: a file is damaged.
        """
        if isinstance(self.spec, ViewSpec):
            return self.frame(layer=layer).lazy()
        keys = self.partitions
        if layer is not None and self.spec.per == "site":
            keys = [key for key in keys if parse_site(key)[1] == layer]
        if not keys:
            where = self.study if layer is None else f"layer {layer} of {self.study}"
            raise NotThereError(
                f"{self.name} has no rows of {where}; "
                f"`mechinterp materialize {self.study} --select {self.name}` makes them"
            )
        rows = self._lake.read(self.name, keys)
        if not provenance:
            rows = rows.select(column.name for column in self.columns)
        if layer is not None and self.spec.per == "study":
            rows = rows.filter(pl.col("layer") == layer)
        return rows

    def frame(self, *, layer: int | None = None, provenance: bool = False) -> pl.DataFrame:
        """Its rows as a polars DataFrame; arguments and errors as for `lazy`."""
        if not self.is_view:
            return self.lazy(layer=layer, provenance=provenance).collect()
        return self.where() if layer is None else self.where(layer=layer)

    def where(self, **values: int | str | bool) -> pl.DataFrame:
        """Its rows whose columns equal `values`, such as `where(layer=2, feature=12)`.

        Raises NotThereError as `lazy`, and for what is no column.
        """
        if missing := values.keys() - self.comments.keys():
            raise NotThereError(f"{self.name} has no column {' and '.join(sorted(missing))}")
        if self.is_view:
            parameters: dict[str, object] = {**values}
            if "study" in self.comments:
                parameters["study"] = self.study
            return self._lake.sql(self._select(parameters), parameters)
        layer = values.get("layer")
        rows = self.lazy(layer=layer if isinstance(layer, int) else None)
        # Equalities, so that files are skipped by their statistics.
        return rows.filter(pl.col(name) == value for name, value in values.items()).collect()

    def relation(self) -> duckdb.DuckDBPyRelation:
        """Its rows as a DuckDB relation, which computes when it is read.

        It is of the catalog as of when the study was opened (`OpenedStudy.reopen` looks again).
        """
        self._lake.verify_tables(self._lake.declared.tables_read(self.name), self.study)
        rows = self._connection().sql(self._select())
        return (
            rows.filter(f"study = {quote_text(self.study)}") if "study" in self.comments else rows
        )

    def _select(self, equal: Iterable[str] = ()) -> str:
        """Its columns; rows where those of `equal` are the parameters of the same names."""
        chosen = ", ".join(quote_name(name) for name in self.comments)
        conditions = " AND ".join(f"{quote_name(name)} = ${name}" for name in equal)
        where = f" WHERE {conditions}" if conditions else ""
        return f"SELECT {chosen} FROM {quote_name(self.name)}{where}"

    @property
    def n_rows(self) -> int | None:
        """Rows of the study; None of a view."""
        if self.is_view:
            return None
        return sum(self._lake.current(self.name, key).rows for key in self.partitions)

    def __repr__(self) -> str:
        size = "view" if self.is_view else f"{self.n_rows:,} rows"
        lines = [f"{self.name} ({self.study}, {size}): {self.comment}"]
        width = max(len(column.name) for column in self.columns)
        lines += [f"  {column.name:{width}} {column.comment}" for column in self.columns]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        size = "view" if self.is_view else f"{self.n_rows:,} rows"
        rows = "".join(
            f"<tr><th style='{_CELL}'>{escape(column.name)}</th>"
            f"<td style='{_CELL}'>{escape(column.type)}</td>"
            f"<td style='{_CELL}'>{escape(column.comment)}</td></tr>"
            for column in self.columns
        )
        return (
            f"<div><b>{escape(self.name)}</b> ({escape(self.study)}, {size}): "
            f"{escape(self.comment)}<table style='{_FRAME}'>{rows}</table></div>"
        )


class Tables(Mapping[str, Table]):
    """All tables and views by name: those of the study that have rows, and every view.

    `study.tables["head_scores"]`, also `study.tables.head_scores`.
    """

    def __init__(
        self, study: str, lake: Lake, connection: Callable[[], duckdb.DuckDBPyConnection]
    ) -> None:
        self._study, self._lake, self._connect = study, lake, connection

    @cached_property
    def _specs(self) -> dict[str, TableSpec | ViewSpec]:
        declared = self._lake.declared
        return {**declared.tables, **{view.name: view for view in declared.views}}

    def __getitem__(self, name: str) -> Table:
        if name not in self._specs:
            raise NotThereError(f"no table {name!r}; {perhaps(name, self._specs)}")
        return Table(self._study, self._specs[name], self._lake, self._connect)

    def __getattr__(self, name: str) -> Table:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except NotThereError as error:
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        made = {
            version.table
            for version in self._lake.current_of(self._lake.declared.tables)
            if version.provenance.study == self._study
        }
        return (
            name
            for name, spec in self._specs.items()
            if isinstance(spec, ViewSpec) or spec.name in made
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def frame(self) -> pl.DataFrame:
        """Columns `table`, `rows` (NULL of views) and `comment`."""
        found = [self[name] for name in self]
        return pl.DataFrame(
            {
                "table": [table.name for table in found],
                "rows": [table.n_rows for table in found],
                "comment": [table.comment for table in found],
            },
            schema={"table": pl.String, "rows": pl.Int64, "comment": pl.String},
        )

    def __repr__(self) -> str:
        return "\n".join(
            f"{name:32} {'view' if rows is None else f'{rows:,}':>12}  {comment}"
            for name, rows, comment in self.frame().iter_rows()
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='{_CELL}'>{escape(name)}</th>"
            f"<td style='{_CELL};text-align:right'>{'view' if n is None else f'{n:,}'}</td>"
            f"<td style='{_CELL}'>{escape(comment)}</td></tr>"
            for name, n, comment in self.frame().iter_rows()
        )
        return f"<table style='{_FRAME}'>{rows}</table>"


# ---- private -------------------------------------------------------------------------------------


def _study_of(key: str) -> str:
    try:
        return parse_site(key)[0] or key
    except ValueError:  # the key of a study
        return key
