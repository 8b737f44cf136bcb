"""ReLU SAE with an L1 penalty: the architecture of K24 (sec. 2) and Bricken et al. 2023.

loss = mean_n [ ||x_n - x_hat_n||^2 + l1 sum_i f_ni ], decoder rows of unit norm. Features that die
are resampled (resampling.py).
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.resampling import resample_dead
from mechinterp_assets.sae.steps import StepSums, TrainingStep, sum_of_squares, variance_sum


class StandardSAE(SparseAutoencoder):
    """f = ReLU(pre)."""

    architecture = "standard"

    def activate(self, pre: Tensor) -> Tensor:
        """ReLU."""
        return pre.relu()


class StandardStep(TrainingStep):
    """Five GEMMs a step: encode, decode, and the gradients of f, W_dec and W_enc."""

    sae_class = StandardSAE
    required_settings = ("l1_coefficient",)
    resamples = True

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean of ||x - x_hat||^2 + l1 sum_i f_i over x [n, d_in]."""
        n = len(x)
        l1 = self.l1_coefficient(progress)
        centred = x - self.b_dec
        f = self.encode_pre(centred).relu_()
        residual = torch.addmm(self.b_dec, f, self.decoder).sub_(x)

        f_sums = f.sum(0)
        self.count_fired(f_sums > 0, n)
        x_sums, residual_sums = x.sum(0), residual.sum(0)
        error = sum_of_squares(residual)
        sparsity = l1 * f_sums.sum()
        sums = StepSums(
            loss=error + sparsity,
            sparsity_loss=sparsity,
            squared_error=error,
            residual_variance=variance_sum(residual, residual_sums, error),
            total_variance=variance_sum(x, x_sums, sum_of_squares(x)),
            n_active=torch.count_nonzero(f),
        )

        # g = dL/d pre = (2/n R W_dec^T + l1/n) where f > 0
        residual.mul_(2 / n)
        g = (residual @ self.decoder.T).add_(l1 / n)
        g.masked_fill_(f == 0, 0)
        torch.mm(f.T, residual, out=self.decoder.grad)
        torch.mm(g.T, centred, out=self.encoder.grad)
        torch.sum(g, 0, out=self.b_enc.grad)
        # b_dec adds to x_hat and is taken from x: sum_n R_n - (sum_n g_n) W_enc^T
        assert self.b_dec.grad is not None
        assert self.b_enc.grad is not None
        torch.mul(residual_sums, 2 / n, out=self.b_dec.grad)
        self.b_dec.grad.sub_(self.b_enc.grad @ self.encoder)
        return sums

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
