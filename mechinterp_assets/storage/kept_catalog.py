"""The lake's catalog on disk, kept up with the ledger.

Belongs here: whether the catalog shows what the ledger says, and swapping in one that does. Does
not belong here: how a catalog is filled (catalog.py), and reading it (lake.py).
"""

from __future__ import annotations  # keeps no duckdb class alive; see storage/__init__.py

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb

from mechinterp_assets.storage.catalog import build_catalog, update_catalog
from mechinterp_assets.storage.catalog_state import CatalogState, load_state, look
from mechinterp_assets.storage.declarations import Declarations
from mechinterp_assets.storage.disk_space import is_disk_full, told_when_full
from mechinterp_assets.storage.files import (
    locked,
    replace_durably,
    sweep_work_folders,
    work_folder,
)
from mechinterp_assets.storage.ledger import Ledger

DATABASE_NAME = "mechinterp.duckdb"
# Where a write-ahead log of the catalog would go leads nowhere; see `_guard_against_writers`.
_GUARD_TARGET = "the-catalog-is-rebuilt-by-every-write/attach-it-to-a-database-of-your-own"


class KeptCatalog:
    """The catalog of a lake under `root`: `mechinterp.duckdb`, a copy of it, and what they show.

    Args:
        root: folder of the lake.
        ledger: what is published.
        declared: gives the declarations as they are now.
    """

    def __init__(self, root: Path, ledger: Ledger, declared: Callable[[], Declarations]) -> None:
        self._root, self._ledger, self._declared = root, ledger, declared

    @property
    def path(self) -> Path:
        """The catalog that other programs open."""
        return self._root / DATABASE_NAME

    @property
    def private(self) -> Path:
        """The lake's own copy: others may open `path` for writing and so lock it."""
        return self._root / ".catalog" / DATABASE_NAME

    @property
    def _state(self) -> Path:
        return self._root / ".catalog" / "state"

    def refresh_if_behind(self, keep_up_with: int | None) -> None:
        """Swap in a new catalog unless it already shows ledger change `keep_up_with`.

        None builds it from nothing; otherwise only what changed since is brought up to date, which
        keeps a write fast in a lake of many files. Waiting writers are served by one rebuild, as it
        shows whatever was committed before it.
        """
        if self.is_up_to_date(keep_up_with):
            return
        with told_when_full(self._root), locked(self._root / ".catalog" / "lock"):
            if self.is_up_to_date(keep_up_with):
                return
            shown = None if keep_up_with is None else self._shown_change()
            with work_folder(self._root) as folder:
                made = folder / DATABASE_NAME
                changes = self._make_catalog(made, shown)
                copy = folder / "copy.duckdb"
                shutil.copyfile(made, copy)
                before = load_state(self._state)
                state = folder / "state"
                CatalogState(
                    shown=changes,
                    highest=max(changes, 0 if before is None else before.highest),
                    built_from=self._built_from,
                    files=(look(copy), look(made)),
                ).save(state)
                self._guard_against_writers()
                # The state comes last: after a crash it may say less than the catalog shows.
                replace_durably(copy, self.private)
                replace_durably(made, self.path)
                replace_durably(state, self._state)
            sweep_work_folders(self._root)

    def _make_catalog(self, made: Path, shown: int | None) -> int:
        """Write at `made` a catalog as of now, out of the one that shows change `shown`, or from
        nothing; returns the change that it shows."""
        now = self._ledger.snapshot(since=shown)
        if shown is not None:
            shutil.copyfile(self.private, made)
            try:
                update_catalog(made, self._root, self._declared(), now)
                return now.changes
            except duckdb.Error as error:
                if is_disk_full(error):
                    raise
                # It was damaged where its size and time do not tell.
                made.unlink()
                now = self._ledger.snapshot()
        build_catalog(made, self._root, self._declared(), now)
        return now.changes

    @property
    def _built_from(self) -> str:
        return f"{self._declared().fingerprint} {self._root}"

    def _shown_change(self) -> int | None:
        """The ledger change that the catalog shows; None if it must be built anew."""
        state = load_state(self._state)
        if state is None or state.built_from != self._built_from:
            return None
        if state.files != (look(self.private), look(self.path)):
            return None  # somebody wrote to them, cut them off or put others in their place
        # More than the ledger has: an older ledger was put back.
        return state.shown if state.shown <= self._ledger.changes() else None

    def is_up_to_date(self, keep_up_with: int | None) -> bool:
        """Whether it shows ledger change `keep_up_with`; None asks for one that is built anew."""
        if keep_up_with is None:
            return False
        shown = self._shown_change()
        return shown is not None and shown >= keep_up_with

    def _guard_against_writers(self) -> None:
        """Keep others from writing to the catalog, which the next rebuild would throw away.

        DuckDB puts the write-ahead log of `X.duckdb` at `X.duckdb.wal`. Left by someone who wrote
        to an older catalog, that log does not match the new one, and then nobody can open it. A
        link that leads nowhere makes such a write fail, and disturbs no reader.
        """
        log = self.path.with_name(f"{DATABASE_NAME}.wal")
        if log.is_symlink():
            return
        log.unlink(missing_ok=True)
        log.symlink_to(_GUARD_TARGET)

    def is_of_a_newer_ledger(self) -> bool:
        """Whether a catalog was once made of more changes than the ledger has now."""
        state = load_state(self._state)
        return state is not None and state.highest > self._ledger.changes()

    def forget(self) -> None:
        """Forget what it shows, as what was recorded of one ledger means nothing for another."""
        self._state.unlink(missing_ok=True)
