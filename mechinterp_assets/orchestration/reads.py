"""What an asset declares to read: tables, and of which partitions.

Belongs here: the declaration, its partition mapping, and the refusal of anything else. Does not
belong here: reading (inputs.py).

Of a table with the asset's own partitioning its own partition is read; of a table per study that
of the layer's study; of a table per layer, by an asset per study, all layers. `earlier` and
`compared` say what is read beyond that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import Per

Relation = Literal["own", "earlier", "compared"]


# What assets have read in this process, by name: a test holds it against their declarations.
SEEN: dict[str, set[str]] = {}


class UndeclaredReadError(RuntimeError):
    """An asset reads what it did not declare; the message says what to add where."""


@dataclass(frozen=True)
class Read:
    """A table that an asset reads, and the relation of its partitions to the asset's own."""

    table: str
    relation: Relation = "own"


def earlier(*tables: str) -> tuple[Read, ...]:
    """Tables per layer that are read of a layer and of all layers of its study before it."""
    return tuple(Read(table, "earlier") for table in tables)


def compared(*tables: str) -> tuple[Read, ...]:
    """Tables that are read of a layer and of those it is compared with (study.comparisons)."""
    return tuple(Read(table, "compared") for table in tables)


def as_reads(declared: Iterable[str | Read]) -> tuple[Read, ...]:
    """The declaration with every table as a Read. A table named twice is a ValueError."""
    reads = tuple(Read(one) if isinstance(one, str) else one for one in declared)
    names = [read.table for read in reads]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"reads name {', '.join(twice)} twice")
    return reads


def dependency(read: Read, downstream: Per) -> dg.AssetDep:
    """Dependency on a table, with the mapping between both partitionings spelled out."""
    upstream = table_spec(read.table).per
    mapping: dg.PartitionMapping = dg.IdentityPartitionMapping()
    if read.relation == "earlier":
        mapping = PARTITIONS.sites_to_later_sites
    elif read.relation == "compared" and upstream == "site":
        mapping = PARTITIONS.sites_to_compared_sites
    elif read.relation == "compared":
        mapping = PARTITIONS.studies_to_compared_sites
    elif (upstream, downstream) == ("study", "site"):
        mapping = PARTITIONS.study_to_sites
    elif (upstream, downstream) == ("site", "study"):
        mapping = PARTITIONS.sites_to_study
    return dg.AssetDep(read.table, partition_mapping=mapping)


def source_dependency(key: dg.AssetKey, downstream: Per) -> dg.AssetDep:
    """Dependency on settings or files of the study."""
    own: dg.PartitionMapping = dg.IdentityPartitionMapping()
    mapping = own if downstream == "study" else PARTITIONS.study_to_sites
    return dg.AssetDep(key, partition_mapping=mapping)
