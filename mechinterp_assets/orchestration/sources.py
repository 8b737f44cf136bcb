"""Settings and files of studies as observable source assets: what tables come from, in the UI.

Belongs here: one source per section of a study (`settings/sae`) and per setting that names files
(`files/labels`), partitioned by study, and their data versions. Tables depend on those that they
declare. Does not belong here: which key or file makes what stale (sql/catalog.sql), which is finer.
"""

import hashlib
import warnings
from collections.abc import Iterable

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS
from mechinterp_assets.staleness.asked_for import hashes_of, inputs_of
from mechinterp_assets.staleness.study_files import FILES
from mechinterp_assets.storage.home import lake_folder
from mechinterp_assets.studies.registry import load_registry
from mechinterp_assets.studies.study import Study

GROUP = "study_files"
_NOT_USED_BY_TABLES = {"study", "automation", "checks"}


def settings_key(path: str) -> dg.AssetKey:
    """The source of a setting: that of its section."""
    return dg.AssetKey(["settings", path.partition(".")[0]])


def files_key(setting: str) -> dg.AssetKey:
    """The source of the files that a setting names."""
    return dg.AssetKey(["files", setting.replace(".", "_")])


def study_sources() -> list[dg.SourceAsset]:
    """Every source, each with the button that looks at it."""
    with warnings.catch_warnings():
        # Observable sources are in beta in Dagster 1.13; the lock on 1.13 keeps them as they are.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_source(key) for key in _keys()]


def data_versions(studies: Iterable[Study]) -> dict[dg.AssetKey, dict[str, str]]:
    """Source -> study -> data version, as the files are now."""
    hashes = hashes_of(lake_folder())
    found: dict[dg.AssetKey, dict[str, str]] = {}
    for study in studies:
        lines: dict[dg.AssetKey, list[str]] = {key: [] for key in _keys()}
        for name, value in inputs_of(study, hashes).items():
            key = _key_of(name)
            if key in lines:
                lines[key].append(f"{name} {value}")
        for key, own in lines.items():
            digest = hashlib.sha256("\n".join(sorted(own)).encode()).hexdigest()
            found.setdefault(key, {})[study.study] = digest[:16]
    return found


# ---- private -------------------------------------------------------------------------------------


def _keys() -> list[dg.AssetKey]:
    sections = [name for name in Study.model_fields if name not in _NOT_USED_BY_TABLES]
    return [*map(settings_key, sections), *map(files_key, FILES)]


def _key_of(name: str) -> dg.AssetKey:
    """The source that an input belongs to: `settings:sae.k`, `file:corpus.path/books.txt`."""
    kind, _, path = name.partition(":")
    return settings_key(path) if kind == "settings" else files_key(path.partition("/")[0])


def _source(key: dg.AssetKey) -> dg.SourceAsset:
    kind, name = key.path
    what = f"The section `{name}`" if kind == "settings" else f"The files named by `{name}`"

    @dg.observable_source_asset(
        key=key,
        partitions_def=PARTITIONS.studies,
        group_name=GROUP,
        description=f"{what} of a study. Its data version changes when any of it does.",
        tags={"kind": kind},
    )
    def look(context: dg.AssetExecutionContext) -> dg.DataVersionsByPartition:
        known = set(PARTITIONS.studies.get_partition_keys())
        studies = [s for s in load_registry().studies.values() if s.study in known]
        return dg.DataVersionsByPartition(data_versions(studies)[key])

    return look
