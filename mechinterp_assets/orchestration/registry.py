"""The studies this code location knows, and their partitions.

Belongs here: the module-level partition definitions every asset uses. Adding a study file and
reloading the code location adds its partitions and changes nothing else.
"""

from collections.abc import Iterable

from mechinterp_assets.orchestration.partitions import partitions_of
from mechinterp_assets.studies.study import Study, load_registry, parse_site

STUDIES: dict[str, Study] = load_registry()
PARTITIONS = partitions_of(STUDIES)


def site(key: str) -> tuple[Study, int]:
    """Study and layer of a site key such as `organism.L02`."""
    name, layer = parse_site(key)
    return STUDIES[name], layer


def sites_by_study(keys: Iterable[str]) -> dict[str, list[str]]:
    """Site keys of a run, grouped by study, in the order given."""
    grouped: dict[str, list[str]] = {}
    for key in keys:
        grouped.setdefault(parse_site(key)[0], []).append(key)
    return grouped
