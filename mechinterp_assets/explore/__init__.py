"""Any prompt: what a model and its SAEs make of it, and what if.

Belongs here: one entry, `explore`, which imports torch only when it is called. Does not belong
here: methods (attribution/, circuits/, interventions/), tables and pages.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechinterp_assets.attribution.residual_saes import ResidualSaes
    from mechinterp_assets.explore.exploration import Exploration
    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.sae.base import SparseAutoencoder


def explore(
    model: "LanguageModel",
    saes: Mapping[int, "SparseAutoencoder"],
    text: str | Sequence[int],
    *,
    residual: "ResidualSaes | None" = None,
    max_tokens: int = 512,
) -> "Exploration":
    """One prompt, run once: its tokens, features, attributions, attention and logits as frames.

    text: text, tokenised as the model's prompts are (BOS before it where they begin with one), or
    token ids that are taken as they are. saes: layer -> SAE on raw z. residual: SAEs on the
    residual stream, whose features split what is read at their layers. For several prompts of one
    model make an `Explorer`, which keeps what they share. Raises ExploreError for a prompt that is
    empty, longer than `max_tokens` or the model's context, or has ids that the model has not.
    """
    from mechinterp_assets.explore.exploration import Explorer

    return Explorer(model, saes, residual=residual, max_tokens=max_tokens).explore(text)
