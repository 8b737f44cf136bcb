"""The published experiments as lists of interventions, a function per family.

Belongs here: which interventions an experiment of Kissane et al. 2024 (K24) or Franco & Crovella
2024 (FC24) consists of, for any model: layers, heads, features and edges are arguments. Does not
belong here: choosing those (head_roles, traces, feature_attribution.py) and running.
"""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from mechinterp_assets.interventions.edge_choice import edge_interventions
from mechinterp_assets.interventions.edge_keys import EDGE_KEY, PAIR_KEY
from mechinterp_assets.interventions.kinds.activation_patching import PatchActivation
from mechinterp_assets.interventions.kinds.edge import EdgeMode, EditEdge, Occurrence
from mechinterp_assets.interventions.kinds.sae_feature_ablation import feature_ablations
from mechinterp_assets.interventions.kinds.sae_feature_path import FeaturePath
from mechinterp_assets.interventions.kinds.sae_splice import SpliceSae
from mechinterp_assets.interventions.path_fields import Inputs
from mechinterp_assets.interventions.sets import InterventionSet, Planned
from mechinterp_assets.interventions.terms import (
    ALL_POSITIONS,
    Head,
    Scope,
    Versus,
    Watched,
)
from mechinterp_assets.model.shape import ModelShape


def noising_of_attention(
    layers: Sequence[int],
    variants: Iterable[str],
    *,
    position_role: str = "S2",
    versus: Sequence[Versus] = ("zero", "zero_all"),
    together: bool = True,
) -> list[Planned]:
    """Attention output at a role from each variant's run (K24 section 4.3, Fig. 5, Table 4).

    Every layer alone and, with `together`, all of them at once (K24: layers 5 and 6). Both zero
    baselines by default: at the role, and at all positions as in the published code.
    """
    planned: list[Planned] = []
    for variant in variants:
        for ablated in versus:
            members = tuple(
                PatchActivation(
                    mode="noise",
                    site="attn_out",
                    layer=layer,
                    position_role=position_role,
                    source_variant=variant,
                    versus=ablated,
                )
                for layer in layers
            )
            planned += members
            if together and len(members) > 1:
                names = "+".join(f"L{layer}" for layer in layers)
                name = f"noise:attn_out:{names}:{position_role}:{variant}:vs-{ablated}"
                planned.append(InterventionSet(name=name, members=members))
    return planned


def splicing(
    layers: Sequence[int],
    groups: Iterable[Sequence[int]] = (),
    *,
    versus: Sequence[Versus] = ("mean_counterfactual",),
) -> list[Planned]:
    """SAEs spliced in at every layer alone, and at groups of layers at once (K24 Fig. 14, 15).

    K24's cross-section of GPT-2 small is {0, 3}, {2, 4}, {5, 6}, {7, 8}, {9, 10, 11}; they are
    compared with mean ablation over ABC prompts.
    """
    chosen = [*((layer,) for layer in layers), *(tuple(group) for group in groups)]
    return [one for ablated in versus for one in splices(chosen, versus=ablated)]


def splices(
    groups: Iterable[Sequence[int]],
    *,
    position_role: str = ALL_POSITIONS,
    versus: Versus | None = None,
) -> list[Planned]:
    """A splice of every group of layers: one alone, several as a set."""
    planned: list[Planned] = []
    for layers in groups:
        own = [
            SpliceSae(layer=layer, position_role=position_role, versus=versus)
            for layer in sorted(layers)
        ]
        if len(own) == 1:
            planned.append(own[0])
        else:
            suffix = "" if versus is None else f":vs-{versus}"
            name = f"splice:{'+'.join(f'L{one.layer}' for one in own)}:{position_role}{suffix}"
            planned.append(InterventionSet(name=name, members=tuple(own)))
    return planned


def features_at_a_role(
    features: Mapping[int, Sequence[int]],
    *,
    position_role: str = "S2",
    receivers: Sequence[Head] = (),
    receiver: Inputs = "v",
    via_mlp: bool = False,
) -> list[Planned]:
    """Ablation of features (layer -> features), and of paths into receivers (K24 Fig. 16).

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
    occurrence: Occurrence = "kept",
) -> list[EditEdge]:
    """Edges into a head, or out of it (FC24 Fig. 6, 7), each with its controls.

    edges: rows with the key columns, as heaviest_edges returns them.
    """
    side = "upstream" if out else "downstream"
    own = edges.filter((pl.col(f"{side}_layer") == head[0]) & (pl.col(f"{side}_head") == head[1]))
    return edge_interventions(
        own,
        modes=modes,
        scopes=scopes,
        n_controls=n_controls,
        seed=seed,
        occurrence=occurrence,
    )


def parallel_sets(
    edges: pl.DataFrame,
    shape: ModelShape,
    *,
    mode: EdgeMode = "ablate",
    scope: Scope = "local",
    occurrence: Occurrence = "kept",
    watch: Watched | None = None,
) -> list[InterventionSet]:
    """Edges into the same pair of a head made together (FC24 Fig. 17-28).

    For every pair of `edges`: those that write at its destination, those at its source, and all of
    them, each where there are two or more. watch: see Watched; for edges into one pair.
    """
    planned = []
    for _, own in edges.select(EDGE_KEY).group_by(PAIR_KEY, maintain_order=True):
        sides = [own.filter(pl.col("side") == side) for side in ("destination", "source")]
        groups = [*sides, own] if all(side.height for side in sides) else sides
        made = [
            edges_together(
                group,
                "parallel",
                shape,
                mode=mode,
                scope=scope,
                occurrence=occurrence,
                watch=watch,
            )
            for group in groups
        ]
        planned += [one for one in made if one is not None]
    return planned


def serial_sets(
    edges: pl.DataFrame,
    *,
    mode: EdgeMode = "ablate",
    scope: Scope = "local",
    occurrence: Occurrence = "kept",
) -> list[InterventionSet]:
    """Two edges in a row, the second from the head that the first goes into (FC24 Fig. 17-28).

    The second edge starts where the first one's reader writes: at its pair's destination.
    """
    made = edge_interventions(
        edges, modes=(mode,), scopes=(scope,), n_controls=0, occurrence=occurrence
    )
    return [
        _edge_set("serial", (first, second))
        for first in made
        for second in made
        if (first.layer, first.head) == (second.upstream_layer, second.upstream_head)
        and first.destination_role == second.edited_role
    ]


def edges_together(
    edges: pl.DataFrame,
    kind: str,
    shape: ModelShape,
    *,
    mode: EdgeMode = "ablate",
    scope: Scope = "local",
    occurrence: Occurrence = "kept",
    watch: Watched | None = None,
) -> InterventionSet | None:
    """All `edges` as one set, None below two of them.

    A global edit changes what a head wrote at a position: of several edges of one head from one
    position the first alone takes part, since the same output cannot be edited twice. (FC24's code
    adds such edits up, which takes out twice what their slices share.) Likewise a key that heads of
    a query group share is edited through the first of them alone.
    """
    members: list[EditEdge] = []
    for one in edge_interventions(
        edges, modes=(mode,), scopes=(scope,), n_controls=0, occurrence=occurrence
    ):
        known = [site for member in members for site in member.sites_in(shape)]
        if not any(site.overlaps(other) for site in one.sites_in(shape) for other in known):
            members.append(one)
    return _edge_set(kind, tuple(members), watch) if len(members) > 1 else None


def _edge_set(
    kind: str, members: tuple[EditEdge, ...], watch: Watched | None = None
) -> InterventionSet:
    """A set of edges with the same mode, scope and occurrence, and a name that says which."""
    first = members[0]
    edges = " & ".join(one.edge for one in members)
    suffix = ":traced" if first.occurrence == "traced" else ""
    name = f"{kind}:{first.mode}:{first.scope}:{edges}{suffix}"
    return InterventionSet(name=name, members=members, watch=watch)
