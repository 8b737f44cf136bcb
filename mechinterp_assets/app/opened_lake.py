"""The lake that commands read.

Belongs here: the answer where nothing is materialized. Reading makes no folder.
"""

from typing import TYPE_CHECKING

from mechinterp_assets.app.mistakes import Mistake, told
from mechinterp_assets.storage.home import HOME_VARIABLE, home, lake_folder

if TYPE_CHECKING:
    from mechinterp_assets.storage.lake import Lake


def opened_lake() -> "Lake":
    """The lake of this home. Raises Mistake where there is none, or one without its ledger."""
    from mechinterp_assets.storage.lake import Lake, LakeError

    with told(LakeError):
        lake = Lake(lake_folder())
        if lake.is_empty():
            raise Mistake(
                f"nothing is materialized in {home()}; run `mechinterp materialize organism`, or "
                f"name the folder that has results in {HOME_VARIABLE}"
            )
    return lake


def check_has_study(lake: "Lake", study: str) -> None:
    """Raise Mistake unless something of `study` is materialized."""
    found = lake.sql("SELECT DISTINCT study FROM versions ORDER BY study")["study"].to_list()
    if study not in found:
        raise Mistake(
            f"nothing of study {study!r} is materialized in {home()}; there is: {', '.join(found)}"
        )
