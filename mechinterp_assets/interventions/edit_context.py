"""All kinds of interventions and the editors that work them out.

Belongs here: the list of kinds. Does not belong here: what a kind does (a file per kind).
"""

from collections.abc import Mapping

import polars as pl
from torch import Tensor

from mechinterp_assets.interventions.ablation_fields import AblationEditor
from mechinterp_assets.interventions.kinds.activation_patching import (
    PatchActivation,
    PatchingEditor,
)
from mechinterp_assets.interventions.kinds.edge import EdgeEditor, EditEdge
from mechinterp_assets.interventions.kinds.head_ablation import AblateHead
from mechinterp_assets.interventions.kinds.head_scaling import ScaleHead, ScalingEditor
from mechinterp_assets.interventions.kinds.layer_ablation import AblateLayer
from mechinterp_assets.interventions.kinds.path_patching import PatchPath, PathEditor
from mechinterp_assets.interventions.kinds.sae_feature_ablation import (
    AblateFeature,
    FeatureAblationEditor,
)
from mechinterp_assets.interventions.kinds.sae_feature_path import FeaturePath, FeaturePathEditor
from mechinterp_assets.interventions.kinds.sae_splice import SpliceEditor, SpliceSae
from mechinterp_assets.interventions.kinds.steering import Steer, SteeringEditor
from mechinterp_assets.interventions.reference import ReferenceCache
from mechinterp_assets.interventions.runs import Editor
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

KINDS = (
    AblateHead,
    AblateLayer,
    PatchActivation,
    PatchPath,
    EditEdge,
    AblateFeature,
    SpliceSae,
    FeaturePath,
    Steer,
    ScaleHead,
)
SAE_KINDS = frozenset({"sae_feature_ablation", "sae_splice", "sae_feature_path"})


def all_editors(
    model: LanguageModel,
    *,
    reference_prompts: pl.DataFrame | None = None,
    trace_edges: pl.DataFrame | None = None,
    saes: Mapping[int, SparseAutoencoder] | None = None,
    directions: Mapping[str, Tensor] | None = None,
    batch_rows: int = 256,
) -> dict[str, Editor]:
    """Editors of every kind by name; that of edges only where traced edges are given.

    reference_prompts: for means. saes: layer -> SAE of raw z. directions: name -> [d_model].
    """
    references = ReferenceCache(model, reference_prompts, batch_rows)
    saes = {layer: sae.to(model.device) for layer, sae in (saes or {}).items()}
    vectors = {name: vector.to(model.device) for name, vector in (directions or {}).items()}
    ablation = AblationEditor(model, references)
    editors: dict[str, Editor] = {
        "head_ablation": ablation,
        "layer_ablation": ablation,
        "activation_patching": PatchingEditor(model),
        "path_patching": PathEditor(model),
        "sae_feature_ablation": FeatureAblationEditor(model, saes),
        "sae_splice": SpliceEditor(model, saes),
        "sae_feature_path": FeaturePathEditor(model, saes),
        "steering": SteeringEditor(model, saes, vectors),
        "head_scaling": ScalingEditor(model),
    }
    if trace_edges is not None:
        editors["edge"] = EdgeEditor(model, trace_edges)
    return editors
