"""Experiments of Kissane et al. 2024 (K24, arXiv 2406.17759) for any model.

Belongs here: which interventions each figure consists of, chosen from an ExperimentContext. Does
not belong here: families of interventions (experiments.py), layers of GPT-2 small as published
(published_sets.yaml) and running.

Which layers are noised at S2. K24 noise layers 5 and 6 of GPT-2 small, whose attention output at S2
S-inhibition heads read. For any model: the two layers whose heads' outputs at S2, exchanged for
those of the ABC prompt on their direct paths into the values of the heads with the role
s_inhibition alone, lower the logit difference most. A model without such heads: the two layers
whose attention output at S2, zeroed, lowers it most; zero ablation is what K24 normalise by. What
was measured to choose is part of the experiment. A model of the published shape has both choices.
Where heads share values (grouped-query attention) all heads of a receiver's query group read the
change; `shared_with` of the results names them.
"""

from collections.abc import Sequence

import polars as pl

from mechinterp_assets.interventions.experiment_context import (
    Chosen,
    ExperimentContext,
    HeadChoice,
    NothingToRun,
)
from mechinterp_assets.interventions.experiments import (
    features_at_a_role,
    noising_of_attention,
    splicing,
)
from mechinterp_assets.interventions.feature_choice import LayerChoice, features_to_ablate
from mechinterp_assets.interventions.kinds.layer_ablation import layer_ablations
from mechinterp_assets.interventions.kinds.path_patching import PatchPath
from mechinterp_assets.interventions.kinds.sae_error_path import ErrorPath
from mechinterp_assets.interventions.kinds.sae_feature_path import FeaturePath
from mechinterp_assets.interventions.kinds.sae_splice import SpliceSae
from mechinterp_assets.interventions.published_experiment import Published
from mechinterp_assets.interventions.published_sets import published_layers
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import Versus

REFERENCE = "ABC"
NOISED_LAYERS = 2
VERSUS: tuple[Versus, ...] = ("zero", "zero_all")

# ---- Fig. 5, Table 4 -----------------------------------------------------------------------------


def _noising(context: ExperimentContext) -> list[Chosen]:
    """Every variant in the published layers and in those that are chosen by data."""
    variants = [name for name in context.variants if name != "base"]
    if not variants:
        raise NothingToRun("no counterfactual prompts; add variants to ioi.variants")
    published = published_layers("k24-noised-layers", context.shape)
    groups = dict.fromkeys(published, "published for a model of this shape")
    chosen: list[Chosen] = []
    measured, layers, reason = _layers_by_data(context)
    groups[layers] = f"{groups[layers]}; {reason}" if layers in groups else reason
    chosen += measured
    for layers, reason in groups.items():
        for variant in variants:
            noised = noising_of_attention(layers, [variant], versus=VERSUS)
            chosen += [
                Chosen(one, f"{_name(layers)}: {variant}", reason)
                for one in noised
                # Both baselines for the layers together, as in K24; one for each layer alone.
                if len(layers) == 1 or getattr(one, "versus", None) != "zero_all"
            ]
    return _distinct(chosen)


def _layers_by_data(context: ExperimentContext) -> tuple[list[Chosen], tuple[int, ...], str]:
    """What was measured to choose layers by, the layers, and why these."""
    by_layer: dict[int, Planned] = _paths_into_values(context)
    how = "the ABC prompt's heads at S2 as values of heads with the role s_inhibition read them"
    if not by_layer:
        zeroed = layer_ablations(
            context.shape.n_layers, sites=("attn_out",), position_roles=("S2",)
        )
        by_layer = {one.layer: one for one in zeroed}
        how = "zero attention output at S2 (no head with the role s_inhibition reads from there)"
    effects = context.mean_effects(list(by_layer.values()))
    change = {layer: effects[one.id] for layer, one in by_layer.items() if one.id in effects}
    if not change:
        raise NothingToRun("no layer's attention output at S2 could be changed to choose layers by")
    ranked = sorted(change, key=lambda layer: (change[layer], layer))[:NOISED_LAYERS]
    shown = ", ".join(f"L{layer} {change[layer]:+.3f}" for layer in ranked)
    reason = f"largest falls of the logit difference with {how}: {shown}"
    measured = [
        Chosen(by_layer[layer], f"choice of layers: L{layer}", "every layer, to choose from")
        for layer in change
    ]
    return measured, tuple(sorted(ranked)), reason


def _paths_into_values(context: ExperimentContext) -> dict[int, Planned]:
    """Layer -> path of all its heads at S2 into the values of later S-inhibition heads."""
    if REFERENCE not in context.variants:
        return {}
    receivers = context.with_role.get("s_inhibition", ())
    paths: dict[int, Planned] = {}
    for layer in range(context.shape.n_layers):
        if later := tuple(head for head in receivers if head[0] > layer):
            paths[layer] = PatchPath(
                layer=layer,
                senders=tuple((layer, head) for head in range(context.shape.n_heads)),
                position_role="S2",
                receiver="v",
                receivers=later,
                receiver_role="S2",
                source_variant=REFERENCE,
            )
    return paths


# ---- Fig. 14, 15 ---------------------------------------------------------------------------------


def _splices(context: ExperimentContext) -> list[Chosen]:
    """Every layer's SAE alone."""
    layers = _layers_with_saes(context)
    planned = splicing(layers, versus=_splice_versus(context))
    return [
        Chosen(one, _name((layer,)), "every layer with an SAE")
        for layer, one in zip(layers, planned, strict=True)
    ]


def _cross_section(context: ExperimentContext) -> list[Chosen]:
    """SAEs of groups of layers at once."""
    layers = _layers_with_saes(context)
    published = published_layers("k24-cross-section", context.shape)
    groups = [group for group in published if set(group) <= set(layers)]
    reason = "published for a model of this shape"
    if not groups:
        groups = pairs_in_order(layers)
        reason = "layers with an SAE in order, in pairs (three where one is left over)"
    if not groups:
        raise NothingToRun("only one layer has an SAE")
    planned = splicing((), groups, versus=_splice_versus(context))
    return [Chosen(one, _name(group), reason) for group, one in zip(groups, planned, strict=True)]


def pairs_in_order(layers: Sequence[int]) -> list[tuple[int, ...]]:
    """Layers two by two; the last group has three where their number is odd, none has one."""
    pairs = [tuple(layers[start : start + 2]) for start in range(0, len(layers) - 1, 2)]
    if pairs and len(layers) % 2:
        pairs[-1] = (*pairs[-1], layers[-1])
    return pairs


def _splice_versus(context: ExperimentContext) -> tuple[Versus, ...]:
    """Mean ablation over ABC prompts, or zero ablation where there are none."""
    return ("mean_counterfactual",) if REFERENCE in context.variants else ("zero",)


# ---- Fig. 16 -------------------------------------------------------------------------------------


def _features_at_s2(context: ExperimentContext) -> list[Chosen]:
    """Ablation of the features that are active, of the error terms, and of their direct paths."""
    _layers_with_saes(context)
    settings = context.settings
    # In the last layer nothing at S2 reaches END: a feature there has no attribution.
    attribution = context.attribution("S2").filter(
        (pl.col("attribution") != 0).any().over("layer", "feature")
    )
    if attribution.is_empty():
        raise NothingToRun("no SAE feature at S2 has an attribution")
    layers = features_to_ablate(
        attribution,
        per_layer=settings.published_features,
        at_most=settings.published_active_features,
    )
    receivers = _receivers(context)
    through = f"receivers: {receivers.reason}"
    chosen = []
    for layer, own in sorted(layers.items()):
        error = f"L{layer} error"
        why = "what the SAE leaves of z"
        chosen.append(Chosen(SpliceSae(layer=layer, position_role="S2"), error, why))
        chosen += [
            Chosen(path, error, f"{why}; {through}")
            for path in _paths(ErrorPath, receivers, layer=layer)
        ]
        for feature in own.features:
            part, reason = f"L{layer}F{feature}", _reason(layer, feature, own)
            chosen += [
                Chosen(one, part, reason)
                for one in features_at_a_role({layer: [feature]}, position_role="S2")
            ]
            chosen += [
                Chosen(path, part, f"{reason}; {through}")
                for path in _paths(FeaturePath, receivers, layer=layer, feature=feature)
            ]
    return chosen


def _reason(layer: int, feature: int, own: LayerChoice) -> str:
    order, value = own.strongest[feature]
    at = f"at S2 ({value:+.3f}{f' in {order} prompts' if order else ''})"
    if own.whole:
        return f"all {own.n_active} features of L{layer} that are active at S2; attribution {at}"
    return (
        f"among the {len(own.features)} of {own.n_active} active features of L{layer} with the "
        f"largest attribution {at}"
    )


def _paths(
    kind: type[FeaturePath] | type[ErrorPath], receivers: HeadChoice, layer: int, **given: int
) -> list[Planned]:
    """The direct path into the receivers' values, and the one through MLPs too."""
    later = tuple(head for head in receivers.heads if head[0] > layer)
    return [
        kind(
            layer=layer,
            position_role="S2",
            receiver="v",
            receivers=later,
            via_mlp=via_mlp,
            **given,
        )
        for via_mlp in (False, True)
        if later
    ]


def _receivers(context: ExperimentContext) -> HeadChoice:
    """Heads whose values are read; none where there are none."""
    try:
        return context.heads("s_inhibition")
    except NothingToRun as reason:
        return HeadChoice((), str(reason), False)


# ---- shared --------------------------------------------------------------------------------------


def _layers_with_saes(context: ExperimentContext) -> tuple[int, ...]:
    if not context.sae_layers:
        raise NothingToRun("no layer has an SAE")
    return context.sae_layers


def _name(layers: Sequence[int]) -> str:
    return "+".join(f"L{layer}" for layer in layers)


def _distinct(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Without repetitions of an intervention under the same part."""
    return list({(one.part, one.planned.id): one for one in chosen}.values())


K24_EXPERIMENTS: tuple[Published, ...] = (
    Published(
        name="k24_noising",
        source="K24 section 4.3, Fig. 5, Table 4",
        question=(
            "How much of the logit difference is kept when attention outputs at S2 come from a "
            "prompt with other names, fillers, order or conjunction?"
        ),
        choose=_noising,
    ),
    Published(
        name="k24_splicing",
        source="K24 App. K, Fig. 14",
        question="How much of the task survives SAE reconstructions in one layer?",
        choose=_splices,
    ),
    Published(
        name="k24_cross_section",
        source="K24 App. K, Fig. 15",
        question="How much of the task survives SAE reconstructions in several layers at once?",
        choose=_cross_section,
    ),
    Published(
        name="k24_features_at_s2",
        source="K24 App. K.1, Fig. 16",
        question=(
            "Which features and error terms at S2 does the logit difference depend on, by order of "
            "names, and how much of it goes through the values of S-inhibition heads?"
        ),
        choose=_features_at_s2,
    ),
)
