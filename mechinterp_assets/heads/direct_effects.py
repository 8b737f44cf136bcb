"""Direct effects of heads at END on the logit of IO minus that of S, with their null.

Belongs here: what scores of direct effects on IOI prompts share. Does not belong here: in which run
they are measured (files of `scores/`).
"""

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64

DIRECT_EFFECT = (
    "what the head's output z W_O at END adds directly to logit IO - logit S, the final norm's "
    "scale being that of the run, mean over prompts"
)
OTHER_NAMES = (
    "Two different names of all prompts' names drawn uniformly for every prompt in the place of IO "
    "and S; exact, 0"
)


def effect_activations(model: LanguageModel) -> Sequence[str]:
    """Hook names that direct effects are computed from."""
    layers = range(model.config.n_layers)
    return [*(f"blocks.{layer}.attn.hook_z" for layer in layers), "ln_final.hook_scale"]


class EffectMoments:
    """Direct effects on IO minus S with the moments of their null, summed over prompts.

    z W_O at END over the final norm's scale, times W_U of IO minus that of S. Null: two different
    names of `pool` [name], drawn uniformly for every prompt, in the place of IO and S; exact.
    """

    def __init__(self, model: LanguageModel, pool: Tensor) -> None:
        self._weights = model.weights
        self._pool = pool
        self._columns = model.weights.W_U[:, pool.to(model.device)]
        shape = (model.config.n_layers, model.config.n_heads)
        self._sum = torch.zeros(shape, dtype=torch.float64)
        self._variance = torch.zeros_like(self._sum)
        self._n = 0

    def add(self, group: pl.DataFrame, kept: dict[str, Tensor]) -> None:
        """Prompts of equal length with their kept z [.., position, head, d_head] and scale."""
        each = torch.arange(group.height)
        end = torch.tensor(group["pos_end"].to_list())
        io, s = (
            torch.searchsorted(self._pool, torch.tensor(group[column].to_list()))
            for column in ("io_token_id", "s_token_id")
        )
        scale = kept["ln_final.hook_scale"][each, end]
        for layer in range(self._sum.shape[0]):
            z = kept[f"blocks.{layer}.attn.hook_z"][each, end] / scale[..., None]
            write = self._weights.W_O[layer] @ self._columns
            effect = float64(torch.einsum("bhe,hep->bhp", z, write)).cpu()
            self._sum[layer] += (effect[each, :, io] - effect[each, :, s]).sum(dim=0)
            # The difference of two names drawn without replacement: 2 x the unbiased variance.
            self._variance[layer] += 2 * effect.var(dim=2, correction=1).sum(dim=0)
        self._n += group.height

    def result(self) -> ScoreValues:
        """Mean over everything added so far."""
        return ScoreValues(
            self._sum / self._n,
            self._n,
            torch.zeros_like(self._sum),
            self._variance.sqrt() / self._n,
        )
