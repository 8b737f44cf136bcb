"""The studies this code location knows, and their partitions.

Belongs here: the module-level partition definitions every asset uses. Adding a study file and
reloading the code location adds its partitions and changes nothing else; a file with a problem adds
none, and the log says why.
"""

import logging
from collections.abc import Iterable

from mechinterp_assets.orchestration.partitions import partitions_of
from mechinterp_assets.studies.registry import Registry, load_registry
from mechinterp_assets.studies.study import Study, parse_site


def loaded() -> Registry:
    """The registry; each file that gives no study is one warning in the code location's log."""
    registry = load_registry()
    for problem in registry.problems:
        reasons = "; ".join(problem.reasons)
        logging.getLogger("mechinterp").warning("left out: %s: %s", problem.file, reasons)
    return registry


REGISTRY = loaded()
STUDIES: dict[str, Study] = REGISTRY.studies
PARTITIONS = partitions_of(STUDIES)


def site(key: str) -> tuple[Study, int]:
    """Study and layer of a site key such as `organism.L02`."""
    name, layer = parse_site(key)
    return REGISTRY.find(name), layer


def sites_by_study(keys: Iterable[str]) -> dict[str, list[str]]:
    """Site keys of a run, grouped by study, in the order given."""
    grouped: dict[str, list[str]] = {}
    for key in keys:
        grouped.setdefault(parse_site(key)[0], []).append(key)
    return grouped
