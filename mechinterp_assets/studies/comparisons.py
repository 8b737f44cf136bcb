"""Which SAEs a layer's SAE is compared with.

Belongs here: what the section `comparisons` comes to for one layer; partitions and the asset
sae_matching both ask. Does not belong here: how SAEs are compared (features/matching.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mechinterp_assets.studies.study import Study, site_key


@dataclass(frozen=True)
class Target:
    """The other side of a comparison; `required`: whether its absence is an error."""

    study: str
    layer: int
    previous: bool
    required: bool = True

    @property
    def key(self) -> str:
        """Partition key of the other SAE."""
        return site_key(self.study, self.layer)


def targets(study: Study, layer: int, studies: Mapping[str, Study]) -> list[Target]:
    """What a layer's SAE is compared with: its previous version, then what the study names.

    Layers that a named study does not have, and a layer with itself, are passed over.
    """
    found = [Target(study.study, layer, previous=True, required=False)]
    for comparison in study.comparisons:
        other = studies[comparison.with_study or study.study]
        wanted = layer if comparison.layer is None else comparison.layer
        if wanted == "next":
            wanted = next((other_layer for other_layer in other.layers if other_layer > layer), -1)
        target = Target(other.study, int(wanted), previous=comparison.version is not None)
        itself = (target.study, target.layer, target.previous) == (study.study, layer, False)
        if wanted in other.layers and not itself:
            found = [t for t in found if (t.key, t.previous) != (target.key, target.previous)]
            found.append(target)
    return found
