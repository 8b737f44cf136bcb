"""The aux-k loss of the TopK family (Gao et al. 2024, arXiv 2406.04093, A.2) and its gradient.

loss = a mean_n ||e_n - e_hat_n||^2: e = x - x_hat is held constant, e_hat is what the auxk most
active dead features of each row make of it, a is settings.auxk_coefficient. It gives dead features
a gradient towards what the living ones leave over.
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.steps import TrainingStep, gradient_of, sum_of_squares


def add_auxk(step: TrainingStep, pre: Tensor | None, centred: Tensor, residual: Tensor) -> Tensor:
    """Add to the .grad of encoder, b_enc and decoder; returns the loss summed over rows.

    pre [n, d_sae] (None: those of the dead features are computed), centred = x - b_dec and
    residual = x_hat - x [n, d_in] of a batch. Dense over the dead features alone. The part of
    b_dec's gradient that comes through the encoder is the caller's: it follows from b_enc's.
    """
    settings = step.settings
    if settings.auxk_coefficient == 0:
        return residual.new_zeros(())
    dead = step.dead().nonzero().squeeze(1)
    if len(dead) == 0:
        return residual.new_zeros(())
    n, d_in = centred.shape
    auxk = min(settings.auxk or max(1, d_in // 2), len(dead))
    if pre is None:
        f = torch.addmm(step.b_enc[dead], centred, step.encoder[dead].T)
    else:
        f = pre[:, dead]
    if auxk < len(dead):
        top, index = f.topk(auxk, dim=-1, sorted=False)
        f = torch.zeros_like(f).scatter_(-1, index, top)
    f.relu_()
    decoder = step.decoder[dead]
    difference = (f @ decoder).add_(residual)  # e_hat - e
    loss = settings.auxk_coefficient * sum_of_squares(difference)
    difference.mul_(2 * settings.auxk_coefficient / n)
    g = (difference @ decoder.T).masked_fill_(f == 0, 0)
    # a dead feature may be active in this very batch: add to its gradient
    gradient_of(step.decoder)[dead] += f.T @ difference
    gradient_of(step.encoder)[dead] += g.T @ centred
    gradient_of(step.b_enc)[dead] += g.sum(0)
    return loss
