"""JumpReLU SAE (Rajamanoharan et al. 2024b, arXiv 2407.14435): a learnt threshold per feature.

loss = mean_n [ ||x_n - x_hat_n||^2 + l0 sum_i H(pre_ni - theta_i) ],  f = pre H(pre - theta),
H the Heaviside step. A step has no gradient, so theta's is estimated (sec. 3) from the rows whose
pre-activation lies in a window of width b, the bandwidth, about theta; K = 1 there, 0 elsewhere:
  df/dtheta := -theta/b K((pre - theta)/b),   dH/dtheta := -1/b K((pre - theta)/b)
Only theta receives it: pre is reached through active features alone. Decoder rows of unit norm.
Features that die are resampled (resampling.py), since no other gradient reaches them.
"""

import math

import torch
from torch import Tensor

from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.relu_ops import few_positive, positive_encode
from mechinterp_assets.sae.resampling import resample_dead
from mechinterp_assets.sae.sparse_ops import EntriesByFeature, reconstruct_ragged
from mechinterp_assets.sae.steps import StepSums, TrainingStep, gradient_of, step_sums
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="Pre-activations above a learnt threshold per feature; squared error and a penalty "
    "on the number of active features",
    source="Rajamanoharan et al. 2024b, arXiv 2407.14435",
    sparsity_setting="l0_coefficient",
    optional_settings=("bandwidth", "initial_threshold"),
    resamples=True,
    wide_matrices=5,
    sae_lens_name="jumprelu",
    tensors=("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
)

# Inputs are scaled so that a random direction's pre-activation varies by about 1. Adam moves
# log_threshold by at most lr a step: a start near the trained value is what makes short runs work.
BANDWIDTH = 0.5
INITIAL_THRESHOLD = 1.0


class JumpReLUSAE(SparseAutoencoder):
    """f = pre where pre > threshold, else 0. threshold [d_sae]; below 0 it acts as 0."""

    architecture = "jumprelu"

    def __init__(
        self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, threshold: Tensor
    ) -> None:
        super().__init__(W_enc, b_enc, W_dec, b_dec)
        if threshold.shape != b_enc.shape:
            raise SaeError(
                f"SAE tensor threshold has shape {tuple(threshold.shape)}, expected "
                f"{tuple(b_enc.shape)} ([d_sae])"
            )
        self.threshold = threshold

    def tensors(self) -> dict[str, Tensor]:
        """Every weight by its name on disk."""
        return super().tensors() | {"threshold": self.threshold}

    def activate(self, pre: Tensor) -> Tensor:
        """Keep what lies above its feature's threshold."""
        return pre.masked_fill(pre <= self.threshold.clamp_min(0), 0)

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Active features of x [n, d_in] without a dense result; see the base class."""
        pre = self.pre_activations(x)
        rows, features = (pre > self.threshold.clamp_min(0)).nonzero(as_tuple=True)
        return rows, features, pre[rows, features]


class JumpReLUStep(TrainingStep):
    """Dense: five GEMMs a step (encode, decode, and the gradients of f, W_dec and W_enc). On a CPU,
    once few pre-activations reach their window: one GEMM, and sums over those.

    theta = exp(log_threshold), which keeps it above 0 and makes its steps relative.
    """

    sae_class = JumpReLUSAE

    def initial_extra(self) -> dict[str, Tensor]:
        """log_threshold [d_sae]."""
        return {"log_threshold": torch.full_like(self.b_enc, math.log(self.initial_threshold))}

    @property
    def initial_threshold(self) -> float:
        """The threshold every feature starts with."""
        return self.settings.initial_threshold or INITIAL_THRESHOLD

    @property
    def bandwidth(self) -> float:
        """Width of the window about the threshold."""
        return self.settings.bandwidth or BANDWIDTH

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean loss, theta's estimated in its window, over x [n, d_in]."""
        assert self.settings.l0_coefficient is not None
        l0 = self.warmed_up(self.settings.l0_coefficient, progress)
        threshold = self.extra["log_threshold"].exp()
        centred = x - self.b_dec
        floor = threshold - self.bandwidth / 2
        if few_positive(centred, self.encoder, self.b_enc - floor):
            return self._sparse_gradients(x, centred, threshold, l0)
        return self._dense_gradients(x, centred, threshold, l0)

    def _dense_gradients(
        self, x: Tensor, centred: Tensor, threshold: Tensor, l0: float
    ) -> StepSums:
        n = len(x)
        pre = self.encode_pre(centred)
        above = pre - threshold
        inactive = above <= 0
        window = above.abs_().lt(self.bandwidth / 2)
        f = pre.masked_fill_(inactive, 0)
        residual = torch.addmm(self.b_dec, f, self.decoder).sub_(x)
        n_active = n - inactive.sum(0)
        self.count_fired(n_active > 0, n)
        sums = step_sums(x, residual, n_active.sum(), l0 * n_active.sum().to(x.dtype))

        residual_sums = residual.sum(0)
        residual.mul_(2 / n)
        g = residual @ self.decoder.T  # dL/df
        in_window = torch.mul(g, window, out=above).sum(0)
        self._threshold_gradient(threshold, in_window, window.sum(0), l0 / n)
        g.masked_fill_(inactive, 0)  # dL/dpre
        torch.mm(f.T, residual, out=self.decoder.grad)
        torch.mm(g.T, centred, out=self.encoder.grad)
        torch.sum(g, 0, out=gradient_of(self.b_enc))
        self.b_dec_gradient(residual_sums, gradient_of(self.b_enc), n)
        return sums

    def _sparse_gradients(
        self, x: Tensor, centred: Tensor, threshold: Tensor, l0: float
    ) -> StepSums:
        """The same from the entries above the window's lower end: one GEMM."""
        n, half = len(x), self.bandwidth / 2
        rows, features, above = positive_encode(
            centred, self.encoder, self.b_enc - threshold + half
        )
        above.sub_(half)  # pre - theta
        active, window = above > 0, above < half
        theta = threshold[features]
        values = torch.where(active, above + theta, 0.0)
        residual, along = reconstruct_ragged(rows, features, values, self.decoder, self.b_dec, x)
        self.count_features(features[active], n)
        n_active = active.sum()
        sums = step_sums(x, residual, n_active, l0 * n_active.to(x.dtype))

        entries = EntriesByFeature(features, self.settings.d_sae, rows)
        g = along.mul_(2 / n)  # dL/df
        inside = window.to(x.dtype)
        self._threshold_gradient(threshold, entries.sums(g * inside), entries.sums(inside), l0 / n)
        g.mul_(active)  # dL/dpre
        entries.weighted_rows(values, residual, scale=2 / n, out=gradient_of(self.decoder))
        entries.weighted_rows(g, centred, out=gradient_of(self.encoder))
        gradient_of(self.b_enc).copy_(entries.sums(g))
        self.b_dec_gradient(residual.sum(0), gradient_of(self.b_enc), n)
        return sums

    def _threshold_gradient(
        self, threshold: Tensor, g_sums: Tensor, counts: Tensor, l0: float
    ) -> None:
        """From the sums of dL/df and the number of rows in each feature's window [d_sae].

        dL/dtheta = -1/b sum over the window of (theta dL/df + l0); dtheta/dlog theta = theta.
        """
        slope = (threshold * g_sums).add_(counts, alpha=l0).mul_(threshold).div_(-self.bandwidth)
        gradient_of(self.extra["log_threshold"]).copy_(slope)

    def build(self, scale: float) -> JumpReLUSAE:
        """The SAE for unscaled inputs; pre-activations shrink by `scale`, so thresholds do."""
        threshold = self.extra["log_threshold"].detach().exp() / scale
        return JumpReLUSAE(*self.folded(scale), threshold=threshold)

    @torch.no_grad()
    def resample(self, rows: Tensor, generator: torch.Generator) -> int:
        """Restart dead features at rows of large ||x - x_hat||^2; returns how many."""
        if not self.dead().any():
            return 0
        threshold = self.extra["log_threshold"].exp()
        centred = rows - self.b_dec
        losses = []
        for block in torch.split(centred, self.settings.batch_size):
            pre = self.encode_pre(block)
            f = pre.masked_fill_(pre <= threshold, 0)
            losses.append((f @ self.decoder).sub_(block).square_().sum(1))
        return resample_dead(self, centred, torch.cat(losses), generator)
