"""Opening what a home folder holds.

Belongs here: from a name to a study, and which studies there are.
"""

import warnings
from pathlib import Path

import polars as pl

from mechinterp_assets.api.not_there import NotThereError, perhaps
from mechinterp_assets.api.opened_study import OpenedStudy
from mechinterp_assets.storage.home import HOME_VARIABLE
from mechinterp_assets.storage.home import home as default_home
from mechinterp_assets.storage.lake import Lake

# Without ipywidgets tqdm, which model libraries import, says so above every first model.
warnings.filterwarnings("ignore", message="IProgress not found", module="tqdm")

_STUDIES = (
    "SELECT study, count(DISTINCT table_name) AS tables, count(*) AS partitions,"
    ' sum("rows")::BIGINT AS "rows", max(written_at) AS last_written'
    " FROM lineage GROUP BY study ORDER BY study"
)


def open_study(study: str, home: Path | str | None = None) -> OpenedStudy:
    """What is materialized of a study: `mechinterp_assets.open`.

    home: folder with lake, tensors and models; None: as commands choose it. Raises NotThereError
    where that holds nothing of the study.
    """
    folder = _home(home)
    found = Lake(folder / "lake").sql("SELECT DISTINCT study FROM versions ORDER BY study")
    known = found["study"].to_list()
    if study not in known:
        raise NotThereError(
            f"nothing of study {study!r} is materialized in {folder}; {perhaps(study, known)} "
            f"(`mechinterp materialize {study}` makes it)"
        )
    return OpenedStudy(study, folder)


def materialized_studies(home: Path | str | None = None) -> pl.DataFrame:
    """Studies that have tables: study, tables, partitions, rows, last_written; home as for open.

    Raises NotThereError for a folder without any.
    """
    return Lake(_home(home) / "lake").sql(_STUDIES)


# ---- private -------------------------------------------------------------------------------------


def _home(home: Path | str | None) -> Path:
    folder = default_home() if home is None else Path(home).expanduser().absolute()
    if Lake(folder / "lake").is_empty():
        raise NotThereError(
            f"nothing is materialized in {folder}; run `mechinterp materialize organism`, or name "
            f"the folder that has results: open(..., home=...) or {HOME_VARIABLE}"
        )
    return folder
