"""Tokens whose z is far longer than the others'.

Belongs here: the limit on ||z||. Does not belong here: which token ids are left out anyway
(cache.valid_positions), leaving out what exceeds it (cache.py, forward_rows.py), the largest rows
of any kind (outliers.py).

A few tokens of most models have norms hundreds of times the median (Sun et al. 2024, arXiv
2402.17762); a mean square over rows is then theirs alone. The limit is a multiple of the median of
||z_cat|| over the valid positions of the first NORM_SEQUENCES sequences, so that every reader of
the same corpus finds the same rows.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.activations.outliers import row_norms
from mechinterp_assets.model.language_model import LanguageModel

NORM_SEQUENCES = 64


def norm_limits(
    model: LanguageModel,
    token_ids: Tensor,
    layers: Sequence[int],
    multiple: float | None,
    *,
    batch_size: int = 32,
) -> Mapping[int, float]:
    """Largest ||z_cat|| that counts, by layer; empty where `multiple` is None.

    token_ids [sequence, position]: of the train split, in order.
    Raises ValueError where no position is valid.
    """
    if multiple is None:
        return {}
    ids = token_ids[:NORM_SEQUENCES]
    norms: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for batch in harvest(model, ids, list(layers), batch_size=batch_size):
        valid = valid_positions(batch.token_ids, model.left_out_ids)
        for layer, z in batch.z.items():
            norms[layer].append(row_norms(z)[valid.to(z.device)].cpu())
    found = {layer: torch.cat(parts) for layer, parts in norms.items()}
    if any(len(values) == 0 for values in found.values()):
        raise ValueError(
            f"the first {len(ids)} sequences have no valid position, so there is no median norm; "
            "correct activations.exclude_tokens"
        )
    return {layer: multiple * float(values.median()) for layer, values in found.items()}
