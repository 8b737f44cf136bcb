"""Checking everything that is stored, for `mechinterp verify`.

Belongs here: going through the stores, and what is said of it. Does not belong here: how one file
is checked (storage/table_files.py, storage/manifest.py).
"""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from mechinterp_assets.app.progress import Progress
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.quarantine import quarantined
from mechinterp_assets.storage.tensors import Tensors


@dataclass
class Report:
    """What was found in one store.

    Attributes:
        what: what its versions are called.
        versions, bytes: checked.
        damaged: a line for everything that is not as it was written.
        set_aside: a line for every file that is not on record or in the quarantine.
    """

    what: str
    versions: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line about all."""
        found = f"{len(self.damaged)} damaged" if self.damaged else "all whole"
        return f"{self.versions} {self.what}, {self.bytes / 2**20:.1f} MB: {found}"

    @property
    def so_far(self) -> str:
        """One line about what has been done."""
        return f"checked {self.versions} {self.what}, {self.bytes / 2**20:.1f} MB so far"


def verify_lake(lake: Lake, progress: Progress) -> Report:
    """Check the ledger, every stored version of every table, and the catalog.

    Raises:
        LakeError: the ledger is lost or damaged, so that nothing is known of the files.
    """
    report = Report("versions of tables")
    lake.check_ledger()
    with progress.doing(lambda: report.so_far):
        for version, fault in lake.verify():
            if fault is not None:
                report.damaged.append(fault)
            report.versions += 1
            report.bytes += version.bytes
    try:
        lake.sql("SELECT count(DISTINCT versions) FROM versions")
    except duckdb.Error as error:
        lake.refresh()
        report.set_aside.append(f"{lake.database} was damaged ({error}): built it again")
    report.set_aside += [
        f"{path} is not on record: the next write of its partition sets it aside"
        for path in lake.unknown_files()
    ]
    report.set_aside += _quarantined(lake.root)
    return report


def verify_tensors(tensors: Tensors, progress: Progress) -> Report:
    """Check every stored version of every artefact: manifest, sizes, shapes, SHA-256."""
    report = Report("versions of tensors")
    with progress.doing(lambda: report.so_far):
        for kind, partition, number in tensors.stored():
            try:
                report.bytes += tensors.open(kind, partition, number).manifest.bytes
            except ArtefactError as error:
                report.damaged.append(str(error))
            report.versions += 1
    report.set_aside += _quarantined(tensors.root)
    return report


def _quarantined(root: Path) -> list[str]:
    return [
        f"{path} was set aside: it was never on record; remove it if nobody misses it"
        for path in quarantined(root)
    ]
