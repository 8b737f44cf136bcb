"""Why partitions are stale, as the lake says.

Belongs here: reading the view `stale_partitions`. Does not belong here: the rule (sql/catalog.sql),
looking at study files (asked_for.py), what is run (orchestration/plan.py).
"""

from collections import defaultdict
from dataclasses import dataclass

from mechinterp_assets.storage.lake import Lake

# (table, partition)
Place = tuple[str, str]


@dataclass(frozen=True)
class Reason:
    """One reason why a partition is to be made (again).

    cause: as in stale_partitions. words: the reason as people read it. source: the table and
    partition that has other data now, where that is the cause. key: the same for the same reason,
    with everything that it was decided by; a partition that is stale for other reasons than last
    time has other keys.
    """

    cause: str
    words: str
    source: Place | None = None
    key: str = ""


@dataclass(frozen=True)
class Freshness:
    """How a study stands: partitions made, partitions stale or missing, and the reasons with how
    many partitions each concerns, the widest first.

    missing: of `stale`, those that were never made. begun: those that a run began and has not
    published: it is at work, or it was killed.
    """

    made: int
    stale: int
    reasons: tuple[tuple[str, int], ...]
    missing: int = 0
    begun: int = 0


def freshness(lake: Lake) -> dict[str, Freshness]:
    """Every study of which something is made, as of the last look at study files."""
    made = dict(lake.sql("SELECT study, count(*) FROM lineage GROUP BY ALL").rows())
    rows = lake.sql(
        "SELECT study, reason, count(DISTINCT (table_name, partition)) AS n,"
        " count(*) FILTER (cause = 'missing'), count(*) FILTER (cause = 'unfinished')"
        " FROM stale_partitions"
        " GROUP BY GROUPING SETS ((study), (study, reason)) ORDER BY study, n DESC, reason"
    ).rows()
    # The row without a reason is of all of a study's.
    whole = {study: counts for study, words, *counts in rows if words is None}
    found = {}
    for study, number in made.items():
        stale, missing, begun = whole.get(study, (0, 0, 0))
        reasons = tuple((words, n) for of, words, n, *_ in rows if of == study and words)
        found[study] = Freshness(number, stale, reasons, missing, begun)
    return found


def reasons(lake: Lake, study: str) -> dict[Place, list[Reason]]:
    """Every stale partition of a study with its reasons, as of the last look at the study."""
    rows = lake.sql(
        "SELECT table_name, partition, cause, input, recorded, current, reason"
        " FROM stale_partitions WHERE study = $study ORDER BY ALL",
        {"study": study},
    )
    found: dict[Place, list[Reason]] = defaultdict(list)
    for table, partition, cause, name, recorded, current, words in rows.iter_rows():
        source = tuple(name.split("/", 1)) if cause == "input" else None
        key = "\0".join(str(one) for one in (cause, name, recorded, current))
        found[table, partition].append(Reason(cause, words, source, key))
    return dict(found)
