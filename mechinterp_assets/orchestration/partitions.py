"""Partitions of the asset graph and the mappings between them.

Belongs here: the two partition definitions (`studies`: one key per study; `sites`: one key per
layer of a study) and how an asset of one depends on an asset of the other. Dagster silently infers
an identity mapping between different static definitions, so every cross dependency names one of
the mappings below; a test lints for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from mechinterp_assets.studies.comparisons import targets
from mechinterp_assets.studies.study import Study, parse_site


@dataclass(frozen=True)
class StudyPartitions:
    """Partition definitions and mappings of one registry of studies."""

    studies: dg.StaticPartitionsDefinition
    sites: dg.StaticPartitionsDefinition
    # "upstream is per study": a site depends on its study. Keys are upstream partitions.
    study_to_sites: dg.StaticPartitionMapping
    # "upstream is per layer": a study depends on all its sites.
    sites_to_study: dg.StaticPartitionMapping
    # A layer depends on itself and on all layers of its study before it.
    sites_to_later_sites: dg.StaticPartitionMapping
    # A layer depends on itself and on the layers, or their studies, that it is compared with.
    sites_to_compared_sites: dg.StaticPartitionMapping
    studies_to_compared_sites: dg.StaticPartitionMapping


def partitions_of(studies: Mapping[str, Study]) -> StudyPartitions:
    """Partition definitions and mappings for a registry of studies."""
    sites = {study.study: study.sites for study in studies.values()}
    compared: dict[str, set[str]] = {key: {key} for keys in sites.values() for key in keys}
    of_studies = {name: set(keys) for name, keys in sites.items()}
    for study in studies.values():
        for layer, key in zip(study.layers, study.sites, strict=True):
            for target in targets(study, layer, studies):
                compared[target.key].add(key)
                of_studies[target.study].add(key)
    return StudyPartitions(
        studies=dg.StaticPartitionsDefinition(list(sites)),
        sites=dg.StaticPartitionsDefinition([key for keys in sites.values() for key in keys]),
        study_to_sites=dg.StaticPartitionMapping(dict(sites)),
        sites_to_study=dg.StaticPartitionMapping(
            {key: parse_site(key)[0] for keys in sites.values() for key in keys}
        ),
        sites_to_later_sites=dg.StaticPartitionMapping(
            {key: keys[i:] for keys in sites.values() for i, key in enumerate(keys)}
        ),
        sites_to_compared_sites=dg.StaticPartitionMapping(_sorted(compared)),
        studies_to_compared_sites=dg.StaticPartitionMapping(_sorted(of_studies)),
    )


def partition_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run over one partition, or over a range of them."""
    if first == last:
        return {"dagster/partition": first}
    return range_tags(first, last)


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run over a range of partitions, also of one."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def _sorted(mapping: Mapping[str, set[str]]) -> dict[str, list[str]]:
    return {key: sorted(values) for key, values in mapping.items()}
