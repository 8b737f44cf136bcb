"""A study's comparison from its lake.

Belongs here: putting reference file, measures and comparison together for the command line. Does
not belong here: printing (run_commands.py), the asset (defs/reproduction).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from mechinterp_assets.reproduction.comparison import compare
from mechinterp_assets.reproduction.conditions import run_conditions
from mechinterp_assets.reproduction.measures import (
    Found,
    Measure,
    all_measures,
    measured,
    measures_of,
    tables_read,
)
from mechinterp_assets.reproduction.reference_file import (
    PACKAGED_REFERENCES,
    ReferenceFileError,
    load_references,
    reference_path,
)
from mechinterp_assets.reproduction.writing import new, to_yaml, updated
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.registry import PACKAGED_STUDIES
from mechinterp_assets.studies.study import Study

TEMPLATE = "organism"


def compared(lake: Lake | None, study: Study, only: Sequence[str]) -> pl.DataFrame:
    """Frame reproduction of a study from its current tables; `only` these references, or all.

    Without a lake no value is ours, and conditions are those that the settings say; the file, the
    ids and the measures' names are checked. Raises ReferenceFileError.
    """
    references = load_references(reference_path(study.study, study.reference), study.study).only(
        list(only)
    )
    measures = measures_of(references)
    if lake is None:
        return compare(references, measures, {}, run_conditions(study))
    return compare(references, measures, _measured(lake, study, measures), _conditions(lake, study))


def missing_tables(lake: Lake, study: Study) -> list[str]:
    """Tables behind the measures that have no partition of this study.

    Raises ReferenceFileError where there is none at all.
    """
    tables = sorted(tables_read())
    missing = [
        table for table in tables if not {study.study, *study.sites} & set(lake.partitions(table))
    ]
    if len(missing) == len(tables):
        raise ReferenceFileError(
            f"nothing of study {study.study!r} is materialized in {lake.root}; leave out --no-run, "
            f"or run `mechinterp materialize {study.study}` first"
        )
    return missing


def write_measured(lake: Lake, study: Study) -> Path:
    """Write the study's reference file from its current tables; returns where.

    An existing file keeps its references, keys and tolerances; a new one takes those of the
    packaged organism study, with this study's keys. Raises ReferenceFileError.
    """
    file = reference_path(study.study, study.reference)
    if file.is_file():
        before = load_references(file, study.study)
        measures = measures_of(before.references)
        values = _measured(lake, study, measures)
        written = updated(before, measures, values, _conditions(lake, study))
    else:
        if study.reference is None and study.file.parent != PACKAGED_STUDIES:
            raise ReferenceFileError(
                f"{study.file}: say where the reference file is to be: `reference: "
                f"references/{study.study}.yaml`, relative to the study file, in a folder without "
                "studies"
            )
        measures = all_measures()
        template = load_references(PACKAGED_REFERENCES / f"{TEMPLATE}.yaml", TEMPLATE)
        written = new(
            study.study,
            f"A run of study {study.study}",
            template.references,
            measures,
            _measured(lake, study, measures),
            _conditions(lake, study),
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_yaml(written), encoding="utf-8")
    return file


def _measured(
    lake: Lake, study: Study, measures: Mapping[str, Measure]
) -> dict[str, dict[str, Found]]:
    return measured(measures, lambda statement: lake.query(statement, study.study))


def _conditions(lake: Lake, study: Study) -> dict[str, str]:
    return run_conditions(study, lambda statement: lake.query(statement, study.study))
