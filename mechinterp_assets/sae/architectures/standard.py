"""ReLU SAE with an L1 penalty: the architecture of K24 (sec. 2) and Bricken et al. 2023.

loss = mean_n [ ||x_n - x_hat_n||^2 + l1 sum_i f_ni ], decoder rows of unit norm. Features that die
are resampled (resampling.py).
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.relu_ops import (
    few_positive,
    positive_encode,
    relu_backward_sums_,
    relu_sums_,
)
from mechinterp_assets.sae.resampling import resample_dead
from mechinterp_assets.sae.sparse_ops import EntriesByFeature, reconstruct_ragged
from mechinterp_assets.sae.steps import (
    StepSums,
    TrainingStep,
    gradient_of,
    step_sums,
)
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="ReLU of every pre-activation; squared error and an L1 penalty on activations",
    source="Bricken et al. 2023; K24",
    sparsity_setting="l1_coefficient",
    resamples=True,
    encoder_scale=0.1,
    sae_lens_name="standard",
)


class StandardSAE(SparseAutoencoder):
    """f = ReLU(pre)."""

    architecture = "standard"

    def activate(self, pre: Tensor) -> Tensor:
        """ReLU."""
        return pre.relu()


class StandardStep(TrainingStep):
    """Dense: five GEMMs a step (encode, decode, and the gradients of f, W_dec and W_enc). On a CPU,
    once few features are active: one GEMM, and sums over the active entries.
    """

    sae_class = StandardSAE

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean of ||x - x_hat||^2 + l1 sum_i f_i over x [n, d_in]."""
        centred = x - self.b_dec
        l1 = self.l1_coefficient(progress)
        if few_positive(centred, self.encoder, self.b_enc):
            return self._sparse_gradients(x, centred, l1)
        return self._dense_gradients(x, centred, l1)

    def _dense_gradients(self, x: Tensor, centred: Tensor, l1: float) -> StepSums:
        n = len(x)
        f = self.encode_pre(centred)
        f_sums, n_active = relu_sums_(f)
        narrow_f, decoder = self._narrowed(f), self._narrowed(self.decoder)
        residual = _product(narrow_f, decoder).add_(self.b_dec).sub_(x)
        sums = step_sums(x, residual, n_active, l1 * f_sums.sum())
        self.count_fired(f_sums > 0, n)

        # g = dL/d pre = (2/n R W_dec^T + l1/n) where f > 0
        narrow_residual = self._narrowed(residual)
        g = _product(narrow_residual, decoder.T)
        g_sums = relu_backward_sums_(g, f, 2 / n, l1 / n)
        _product(narrow_f.T, narrow_residual, out=gradient_of(self.decoder)).mul_(2 / n)
        _product(self._narrowed(g).T, self._narrowed(centred), out=gradient_of(self.encoder))
        gradient_of(self.b_enc).copy_(g_sums)
        self.b_dec_gradient(residual.sum(0), g_sums, n)
        return sums

    def _sparse_gradients(self, x: Tensor, centred: Tensor, l1: float) -> StepSums:
        n, d_sae = len(x), self.settings.d_sae
        rows, features, values = positive_encode(centred, self.encoder, self.b_enc)
        residual, along = reconstruct_ragged(rows, features, values, self.decoder, self.b_dec, x)
        n_active = torch.tensor(len(values), device=x.device)
        sums = step_sums(x, residual, n_active, l1 * values.sum())
        self.count_features(features, n)

        g = along.mul_(2 / n).add_(l1 / n)
        entries = EntriesByFeature(features, d_sae, rows)
        entries.weighted_rows(values, residual, scale=2 / n, out=gradient_of(self.decoder))
        entries.weighted_rows(g, centred, out=gradient_of(self.encoder))
        gradient_of(self.b_enc).copy_(g_sums := entries.sums(g))
        self.b_dec_gradient(residual.sum(0), g_sums, n)
        return sums

    def _narrowed(self, factor: Tensor) -> Tensor:
        """A factor of a GEMM in settings.compute_dtype."""
        return factor.bfloat16() if self.settings.compute_dtype == "bfloat16" else factor

    def l1_coefficient(self, progress: float) -> float:
        """The L1 coefficient at a share of the training: linear warm-up, then constant."""
        assert self.settings.l1_coefficient is not None
        return self.warmed_up(self.settings.l1_coefficient, progress)

    def build(self, scale: float) -> StandardSAE:
        """The SAE for unscaled inputs."""
        return StandardSAE(*self.folded(scale))

    @torch.no_grad()
    def resample(self, rows: Tensor, generator: torch.Generator) -> int:
        """Restart dead features at rows of large loss (resampling.py); returns how many.

        A row's loss is ||x - x_hat||^2 + l1 sum_i f_i.
        """
        if not self.dead().any():
            return 0
        centred = rows - self.b_dec
        losses = []
        for block in torch.split(centred, self.settings.batch_size):
            f = self.encode_pre(block).relu_()
            error = (f @ self.decoder).sub_(block).square_().sum(1)
            losses.append(error + self.l1_coefficient(1.0) * f.sum(1))
        return resample_dead(self, centred, torch.cat(losses), generator)


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b with factors of either dtype and a result that is not narrower than float32."""
    if a.dtype != torch.bfloat16:
        return torch.mm(a, b, out=out)
    if a.device.type == "cuda":
        product = torch.mm(a, b, out_dtype=torch.float32)
    else:
        product = torch.mm(a, b).float()
    return product if out is None else out.copy_(product)
