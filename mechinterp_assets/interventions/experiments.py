"""The published experiments as lists of interventions, a function per family.

Belongs here: which interventions an experiment of Kissane et al. 2024 (K24) or Franco & Crovella
2024 (FC24) consists of, for any model: layers, heads, features and edges are arguments. Does not
belong here: choosing those (head_roles, traces, feature_attribution.py) and running.
"""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from mechinterp_assets.interventions.edges import EDGE_KEY, EdgeMode, EditEdge, edge_interventions
from mechinterp_assets.interventions.patching import PatchActivation
from mechinterp_assets.interventions.paths import Inputs
from mechinterp_assets.interventions.sae_features import feature_ablations
from mechinterp_assets.interventions.sae_paths import FeaturePath
from mechinterp_assets.interventions.sae_splice import splices
from mechinterp_assets.interventions.spec import (
    Head,
    InterventionSet,
    Planned,
    ReferenceMode,
    Scope,
)


def noising_of_attention(
    layers: Sequence[int],
    variants: Iterable[str],
    *,
    position_role: str = "S2",
    references: Sequence[ReferenceMode] = ("zero", "zero_all"),
    together: bool = True,
) -> list[Planned]:
    """Attention output at a role from each variant's run (K24 section 4.1, Fig. 5, Table 4).

    Every layer alone and, with `together`, all of them at once (K24: layers 5 and 6). Both zero
    baselines by default: at the role, and at all positions as in the published code.
    """
    planned: list[Planned] = []
    for variant in variants:
        for reference in references:
            members = tuple(
                PatchActivation(
                    mode="noise",
                    site="attn_out",
                    layer=layer,
                    position_role=position_role,
                    source_variant=variant,
                    reference=reference,
                )
                for layer in layers
            )
            planned += members
            if together and len(members) > 1:
                names = "+".join(f"L{layer}" for layer in layers)
                name = f"noise:attn_out:{names}:{position_role}:{variant}:vs-{reference}"
                planned.append(InterventionSet(name=name, members=members))
    return planned


def splicing(
    layers: Sequence[int],
    groups: Iterable[Sequence[int]] = (),
    *,
    references: Sequence[ReferenceMode] = ("mean",),
) -> list[Planned]:
    """SAEs spliced in at every layer alone, and at groups of layers at once (K24 Fig. 14, 15).

    K24's cross-section of GPT-2 small is {0, 3}, {2, 4}, {5, 6}, {7, 8}, {9, 10, 11}; the reference
    is mean ablation over ABC prompts.
    """
    chosen = [*((layer,) for layer in layers), *(tuple(group) for group in groups)]
    return [one for reference in references for one in splices(chosen, reference=reference)]


def features_at_a_role(
    features: Mapping[int, Sequence[int]],
    *,
    position_role: str = "S2",
    receivers: Sequence[Head] = (),
    receiver: Inputs = "v",
    via_mlp: bool = False,
) -> list[Planned]:
    """Ablation of features (layer -> features), and of their paths into receivers (K24 Fig. 16).

    receivers: S-inhibition heads, say; those in layers before a feature's are left out of its path.
    """
    planned: list[Planned] = [*feature_ablations(features, position_roles=(position_role,))]
    for layer, own in sorted(features.items()):
        later = tuple(head for head in receivers if head[0] > layer)
        if later:
            planned += [
                FeaturePath(
                    layer=layer,
                    feature=feature,
                    position_role=position_role,
                    receiver=receiver,
                    receivers=later,
                    via_mlp=via_mlp,
                )
                for feature in own
            ]
    return planned


def edges_of_a_head(
    edges: pl.DataFrame,
    head: Head,
    *,
    out: bool = False,
    modes: Sequence[EdgeMode] = ("ablate", "boost"),
    scopes: Sequence[Scope] = ("local", "global"),
    n_controls: int = 1,
    seed: int = 0,
) -> list[EditEdge]:
    """Edges into a head, or out of it (FC24 Fig. 6, 7), each with its controls.

    edges: rows with the key columns, as heaviest_edges returns them.
    """
    side = "upstream" if out else "downstream"
    own = edges.filter((pl.col(f"{side}_layer") == head[0]) & (pl.col(f"{side}_head") == head[1]))
    return edge_interventions(own, modes=modes, scopes=scopes, n_controls=n_controls, seed=seed)


def parallel_sets(
    edges: pl.DataFrame, *, mode: EdgeMode = "ablate", scope: Scope = "local"
) -> list[InterventionSet]:
    """Edges into the same head, pair and side made together (FC24 Fig. 17-22), pairs of them."""
    key = ["downstream_layer", "downstream_head", "destination_role", "source_role", "side"]
    planned = []
    for _, own in edges.select(EDGE_KEY).group_by(key, maintain_order=True):
        made = edge_interventions(own, modes=(mode,), scopes=(scope,), n_controls=0)
        planned += [
            _edge_set("parallel", (first, second))
            for place, first in enumerate(made)
            for second in made[place + 1 :]
        ]
    return planned


def serial_sets(
    edges: pl.DataFrame, *, mode: EdgeMode = "ablate", scope: Scope = "local"
) -> list[InterventionSet]:
    """Two edges in a row, the second from the head that the first goes into (FC24 Fig. 23-28).

    The second edge starts where the first one's reader writes: at its pair's destination.
    """
    made = edge_interventions(edges, modes=(mode,), scopes=(scope,), n_controls=0)
    return [
        _edge_set("serial", (first, second))
        for first in made
        for second in made
        if (first.layer, first.head) == (second.upstream_layer, second.upstream_head)
        and first.destination_role == second.edited_role
    ]


def _edge_set(kind: str, members: tuple[EditEdge, ...]) -> InterventionSet:
    return InterventionSet(name=f"{kind}:{' & '.join(one.id for one in members)}", members=members)
