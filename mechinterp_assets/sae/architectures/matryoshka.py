"""Matryoshka SAE (Bussmann et al. 2025, arXiv 2503.17547): nested dictionaries, BatchTopK.

Each prefix of the features (group_sizes: its width) must reconstruct the input by itself, so the
first features stay general and are not absorbed by later, more special ones (sec. 3):
loss = sum over prefixes of mean_n ||x_n - x_hat_n(prefix)||^2 + aux-k of the whole (auxk.py).
Selection, threshold and trained form are BatchTopK's (batchtopk.py).
"""

from itertools import pairwise

import torch
from torch import Tensor

from mechinterp_assets.sae.architectures.batchtopk import BatchTopKSAE, BatchTopKStep
from mechinterp_assets.sae.auxk import add_auxk
from mechinterp_assets.sae.sparse_ops import (
    EntriesByFeature,
    gathered_dot_ragged,
    sparse_decode_ragged,
)
from mechinterp_assets.sae.steps import StepSums, gradient_of, step_sums, sum_of_squares
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="As batchtopk; every prefix of the features in group_sizes reconstructs by itself",
    source="Bussmann et al. 2025, arXiv 2503.17547",
    sparsity_setting="k",
    required_settings=("group_sizes",),
    optional_settings=("k_start",),
    auxk=True,
    wide_matrices=4,
    sae_lens_name="jumprelu",
    tensors=("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
)


class MatryoshkaSAE(BatchTopKSAE):
    """f = pre where pre > threshold, else 0; features of inner prefixes come first."""

    architecture = "matryoshka"


class MatryoshkaStep(BatchTopKStep):
    """Each active feature is decoded once and its gradient gathered once, whatever the prefixes.

    With R_p = x_hat(prefix p) - x, the residual of a prefix is the one before it plus the decoding
    of its own group; and a feature of group p takes part in prefixes p, p + 1, ..., so its gradient
    is that of BatchTopK with R replaced by the sum of R_q over q >= p.
    """

    sae_class = MatryoshkaSAE

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean of the prefixes' losses and aux-k over x [n, d_in]."""
        n = len(x)
        assert self.settings.group_sizes is not None
        centred = x - self.b_dec
        rows, features, values, pre = self.select(centred, self.k_at(progress) * n)

        groups = list(pairwise((0, *self.settings.group_sizes)))
        entries, residuals = [], []
        residual = self.b_dec - x
        for start, end in groups:
            mine = ((features >= start) & (features < end)).nonzero().squeeze(1)
            entries.append((rows[mine], features[mine] - start, values[mine]))
            residual = residual + sparse_decode_ragged(*entries[-1], self.decoder[start:end], n)
            residuals.append(residual)
        inner_errors = torch.stack([sum_of_squares(r) for r in residuals[:-1]] or [x.new_zeros(())])

        outer = torch.zeros_like(x)  # sum of the residuals of this prefix and those around it
        for (start, end), (r, f, v), inner in reversed(
            list(zip(groups, entries, residuals, strict=True))
        ):
            outer += inner
            by_feature = EntriesByFeature(f, end - start, r)
            to_decoder, to_encoder = (
                gradient_of(parameter)[start:end] for parameter in (self.decoder, self.encoder)
            )
            by_feature.weighted_rows(v, outer, scale=2 / n, out=to_decoder)
            g = gathered_dot_ragged(outer, self.decoder[start:end], r, f).mul_(2 / n)
            by_feature.weighted_rows(g, centred, out=to_encoder)
            gradient_of(self.b_enc)[start:end] = by_feature.sums(g)
        auxiliary = add_auxk(self, pre, centred, residual)
        # b_dec is in the reconstruction by every prefix
        self.b_dec_gradient(outer.sum(0), gradient_of(self.b_enc), n)

        self.count_active(features, values, n)
        n_active = torch.tensor(len(values), device=x.device)
        return step_sums(x, residual, n_active, auxiliary, inner_errors.sum())

    def build(self, scale: float) -> MatryoshkaSAE:
        """The SAE for unscaled inputs."""
        return MatryoshkaSAE(*self.folded(scale), threshold=self.folded_threshold(scale))
