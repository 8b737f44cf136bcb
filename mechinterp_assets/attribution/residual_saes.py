"""SAEs on the residual stream that recursive attribution splits sources by.

Belongs here: which layers have one, as a study names them, and how they read the stream. Does not
belong here: reading one folder (sae/external.py), the splits (rdfa_splits.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.external import read_residual
from mechinterp_assets.sae.settings import ResidualSaeSettings


@dataclass(frozen=True)
class ResidualSaes:
    """SAEs on raw hook_resid_pre by layer, d_in = d_model.

    centre: they read the stream less its mean over d_model, as those trained on weights whose
    writing matrices are centred do.
    """

    by_layer: Mapping[int, SparseAutoencoder] = field(default_factory=dict)
    centre: bool = False


def residual_saes_of(
    named: ResidualSaeSettings,
    rdfa: RdfaSettings,
    model: LanguageModel,
    *,
    n_layers: int | None = None,
) -> ResidualSaes:
    """SAEs of a study for its trees, on the model's device; none where it names none or its trees
    do not split by them.

    n_layers: of the first so many layers; None: of all. Raises SaeError for a folder that is no SAE
    on the stream before its layer of this model.
    """
    if not rdfa.residual_features:
        return ResidualSaes()
    folders = named.folders(model.config.n_layers)
    if not folders:
        return ResidualSaes()
    last = model.config.n_layers if n_layers is None else n_layers
    saes = {
        layer: read_residual(folder, model, layer).to(model.device)
        for layer, folder in folders.items()
        if layer < last
    }
    return ResidualSaes(saes, named.centre)
