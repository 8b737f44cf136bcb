"""What pages about whole studies ask of a lake: what was made of its latest state, names, sites.

Belongs here: noticing that the lake has changed. Does not belong here: which pages there are
(study_pages.py, experiment_pages.py), pages that outlive a change (head_pages.py).
"""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

T = TypeVar("T")


class Kept(Generic[T]):
    """Things made of a lake, each as of its latest state; safe for threads.

    Args:
        lake: of which they are made.
        most: how many are kept.
    """

    def __init__(self, lake: Lake, most: int) -> None:
        self._lake = lake
        # By name and state of the catalog.
        self._made: LRUCache[tuple[tuple[str, ...], tuple[int, int]], T] = LRUCache(most)
        self._lock = Lock()

    def get(self, name: tuple[str, ...], make: Callable[[], T]) -> T | None:
        """The thing of that name; None for a lake to which nothing was written."""
        with self._lock:
            catalog = self._lake.catalog_state()
            if catalog is None:
                return None
            if (name, catalog) not in self._made:
                self._made[name, catalog] = make()
            return self._made[name, catalog]


def model_name(lake: Lake, study: str) -> str | None:
    """Name of a study's model, for display; None where nothing of it is made."""
    if not lake.exists("language_model", study):
        return None
    row = lake.read("language_model", study).collect().row(0, named=True)
    return shown_name(row["weights_source"])


def sites_of(lake: Lake, table: str, study: str) -> list[str]:
    """Sites of a study of which a table has rows."""
    return [key for key in lake.partitions(table) if parse_site(key)[0] == study]
