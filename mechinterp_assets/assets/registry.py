"""The studies this code location knows, and their partitions.

Belongs here: the module-level partition definitions every asset uses. Adding a study file and
reloading the code location adds its partitions and changes nothing else.
"""

from mechinterp_assets.partitions import partitions_of
from mechinterp_assets.study import Study, load_registry, parse_site

STUDIES: dict[str, Study] = load_registry()
PARTITIONS = partitions_of(STUDIES.values())


def site(key: str) -> tuple[Study, int]:
    """Study and layer of a site key such as `organism.L02`."""
    name, layer = parse_site(key)
    return STUDIES[name], layer
