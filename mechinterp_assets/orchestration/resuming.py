"""What a run that goes on from a failed one still has to make.

Belongs here: telling which partitions of a step an earlier attempt of the same run published. Does
not belong here: resuming inside a partition (checkpoints, sae/checkpoints.py).
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import RESUME_RETRY_TAG

from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.staleness.asked_for import observe
from mechinterp_assets.storage.lake import Lake


def left_to_make(context: dg.AssetExecutionContext, lake: Lake, tables: Sequence[str]) -> list[str]:
    """The partitions of this step, without those that the run it goes on from has published.

    "Re-execute from failure" of a step that failed at layer 7 makes layers 7 and up. A partition
    that has become stale since is made again.
    """
    keys = list(context.partition_keys)
    if context.run.tags.get(RESUME_RETRY_TAG) != "true":
        return keys
    earlier = _earlier_attempts(context)
    observe(lake, STUDIES.values())
    current = lake.current_of(tables)
    stale = set(
        lake.sql(
            "SELECT DISTINCT partition FROM stale_partitions WHERE list_contains(?, table_name)",
            [list(tables)],
        )["partition"]
    )
    made = {
        key
        for key in keys
        if key not in stale
        and {v.table for v in current if v.partition == key and v.provenance.run_id in earlier}
        == set(tables)
    }
    for key in keys:
        if key in made:
            context.log.info(f"{key}: published by the run that this one goes on from")
    return [key for key in keys if key not in made]


def _earlier_attempts(context: dg.AssetExecutionContext) -> set[str]:
    """Ids of the runs that this one goes on from."""
    found: set[str] = set()
    parent = context.run.parent_run_id
    while parent is not None and parent not in found:
        found.add(parent)
        run = context.instance.get_run_by_id(parent)
        parent = None if run is None else run.parent_run_id
    return found
