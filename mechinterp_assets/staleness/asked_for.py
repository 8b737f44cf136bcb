"""What studies ask for now: their settings, the files they name, the partitions they expect.

Belongs here: looking, and telling the lake, whose view `stale_partitions` compares that with what
results were made with.
"""

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from mechinterp_assets.files.fingerprint import FileHashes
from mechinterp_assets.settings.as_text import setting_text
from mechinterp_assets.staleness.study_files import FILES, file_inputs
from mechinterp_assets.storage.lake import Lake, LakeError
from mechinterp_assets.storage.observations import Observation
from mechinterp_assets.studies.study import Study

_log = logging.getLogger(__name__)

LAYERS = "settings:layers"
"""The layers with an activation cache and an SAE, which follow from settings and the model."""


def observe(lake: Lake, studies: Iterable[Study]) -> bool:
    """Tell the lake what studies ask for now; whether that differs from what it knew."""
    hashes = hashes_of(lake.root)
    inputs: dict[tuple[str, str], str] = {}
    partitions: dict[tuple[str, str], str] = {}
    for study in studies:
        inputs |= {(study.study, name): value for name, value in inputs_of(study, hashes).items()}
        partitions |= dict.fromkeys(_expected(lake, study), study.study)
    hashes.save()
    return lake.observe(Observation(inputs, partitions, time.time()))


def observe_if_possible(lake: Lake, studies: Iterable[Study]) -> None:
    """As `observe`, for those who only show what is stale: nothing where nothing can be written,
    and no lake where there is none."""
    if lake.is_empty():
        return
    try:
        observe(lake, studies)
    except (OSError, sqlite3.Error, LakeError) as error:
        _log.warning("what is stale is shown as of an earlier look: %s", error)


def inputs_of(study: Study, hashes: FileHashes) -> dict[str, str]:
    """Every setting of a study and every file that it names, as they are recorded."""
    return {**setting_inputs(study), **all_file_inputs(study, hashes)}


def setting_inputs(study: Study) -> dict[str, str]:
    """`settings:<section>.<key>` -> JSON, of every setting of a study."""
    found = {LAYERS: setting_text(study.layers)}
    for name in type(study).model_fields:
        value = getattr(study, name)
        if isinstance(value, BaseModel):
            found |= {
                f"settings:{name}.{key}": setting_text(getattr(value, key))
                for key in type(value).model_fields
            }
        else:
            found[f"settings:{name}"] = setting_text(value)
    return found


def all_file_inputs(study: Study, hashes: FileHashes) -> dict[str, str]:
    """`file:<setting>/<name>` -> fingerprint, of every file that a study names."""
    found: dict[str, str] = {}
    for setting in FILES:
        found |= file_inputs(study, setting, hashes)
    return found


@lru_cache(maxsize=8)
def hashes_of(root: Path) -> FileHashes:
    """The file hashes of this process that are kept beside a lake."""
    return FileHashes(root / "file_hashes.json")


# ---- private -------------------------------------------------------------------------------------


def _expected(lake: Lake, study: Study) -> Iterator[tuple[str, str]]:
    for name, spec in lake.declared.tables.items():
        for partition in [study.study] if spec.per == "study" else study.sites:
            yield name, partition
