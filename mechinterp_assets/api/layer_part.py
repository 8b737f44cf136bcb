"""What a feature and a head have in common: each is one of many that a layer has.

Belongs here: reading its rows of any table, how a box in a notebook looks. Does not belong here:
what is read and shown of each (feature.py, head.py).
"""

from typing import ClassVar

import polars as pl

from mechinterp_assets.api.not_there import NotThereError
from mechinterp_assets.api.tables import Tables

BOX = "max-width:900px;font-size:13px"
TEXT = "font-family:monospace;white-space:pre-wrap;text-align:left;padding:2px 0"


class LayerPart:
    """One of a layer's features or heads.

    Attributes:
        study, layer, index: which.
    """

    _numbered: ClassVar[str]
    """Column of tables that holds `index`."""

    def __init__(self, tables: Tables, study: str, layer: int, index: int) -> None:
        self._tables = tables
        self.study, self.layer, self.index = study, layer, index

    def rows(self, table: str) -> pl.DataFrame:
        """Its rows of any table or view with the columns layer and feature, or layer and head.

        Raises NotThereError where that has no such columns, or no rows of the layer at all.
        """
        return self._tables[table].where(**{"layer": self.layer, self._numbered: self.index})

    def _rows_if_made(self, table: str) -> pl.DataFrame | None:
        """The same, None where the table was not made."""
        try:
            return self.rows(table)
        except NotThereError:
            return None
