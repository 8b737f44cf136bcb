"""BatchTopK SAE (Bussmann et al. 2024, arXiv 2412.06410): k active features a row on average.

In training the k * n largest positive pre-activations of a batch of n rows are kept, so that rows
share the budget. A trained SAE sees rows one by one: it keeps what exceeds one threshold, the mean
over batches of the smallest value kept (sec. 2), and so is a JumpReLU SAE with equal thresholds.
loss = mean_n ||x_n - x_hat_n||^2 + aux-k (auxk.py). Decoder rows of unit norm.
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.auxk import add_auxk
from mechinterp_assets.sae.relu_ops import positive_encode
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.sparse_ops import EntriesByFeature, compiled, reconstruct_ragged
from mechinterp_assets.sae.steps import (
    StepSums,
    TrainingStep,
    gradient_of,
    step_sums,
)
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="The k n largest pre-activations of a batch of n rows, through ReLU; squared error "
    "and aux-k. Trained: what exceeds one threshold, the mean smallest value kept in a batch",
    source="Bussmann et al. 2024, arXiv 2412.06410",
    sparsity_setting="k",
    optional_settings=("k_start",),
    auxk=True,
    wide_matrices=4,
    sae_lens_name="jumprelu",
    tensors=("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
)

# Weight of the newest batch in the running mean that becomes the threshold.
THRESHOLD_RATE = 0.01
# Rows on which the batch's k * n-th largest value is guessed, and how far below it is still read.
SAMPLED_ROWS, SLACK = 64, 2


class BatchTopKSAE(JumpReLUSAE):
    """f = pre where pre > threshold, else 0; threshold [d_sae] has one value throughout."""

    architecture = "batchtopk"


class BatchTopKStep(TrainingStep):
    """One dense GEMM (encode); decoding and all gradients touch only the active features."""

    sae_class = BatchTopKSAE

    def __init__(self, settings: SaeSettings, decoder: Tensor, b_dec: Tensor) -> None:
        super().__init__(settings, decoder, b_dec)
        # [2]: exponentially weighted sum of the batches' smallest kept values, and of the weights
        self.buffers["threshold"] = decoder.new_zeros(2)

    @property
    def threshold(self) -> Tensor:
        """Running mean of the smallest value kept in a batch, 0-dim; 0 before the first batch."""
        total, weight = self.buffers["threshold"]
        return torch.where(weight > 0, total / weight, 0.0)

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean reconstruction and aux-k loss over x [n, d_in]."""
        n = len(x)
        centred = x - self.b_dec
        rows, features, values, pre = self.select(centred, self.k_at(progress) * n)
        residual, along = reconstruct_ragged(rows, features, values, self.decoder, self.b_dec, x)

        # dL/d value = 2/n R . W_dec[feature]
        g = along.mul_(2 / n)
        entries = EntriesByFeature(features, self.settings.d_sae, rows)
        entries.weighted_rows(values, residual, scale=2 / n, out=gradient_of(self.decoder))
        entries.weighted_rows(g, centred, out=gradient_of(self.encoder))
        gradient_of(self.b_enc).copy_(entries.sums(g))
        auxiliary = add_auxk(self, pre, centred, residual)
        self.b_dec_gradient(residual.sum(0), gradient_of(self.b_enc), n)

        self.count_active(features, values, n)
        return step_sums(x, residual, torch.tensor(len(values), device=x.device), auxiliary)

    def select(self, centred: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """largest_of_batch of a batch's pre-activations, and all of them if at hand.

        centred = x - b_dec [n, d_in]. The compiled kernels find those above a floor without them.
        """
        if compiled(centred, self.encoder) is None:
            pre = self.encode_pre(centred)
            return *largest_of_batch(pre, count), pre
        floor = batch_floor(self.encode_pre(sampled(centred)), count, len(centred))
        entries = positive_encode(centred, self.encoder, self.b_enc - floor)
        if len(entries[0]) < count and floor > 0:
            floor = torch.zeros_like(floor)
            entries = positive_encode(centred, self.encoder, self.b_enc)
        rows, features, values = entries
        return *keep_largest(rows, features, values + floor, count), None

    def count_active(self, features: Tensor, values: Tensor, n: int) -> None:
        """Update the running threshold and tokens_since_fired from a batch's active entries."""
        if len(values):
            newest = torch.stack([values.min(), values.new_ones(())])
            self.buffers["threshold"].lerp_(newest, THRESHOLD_RATE)
        self.count_features(features, n)

    def folded_threshold(self, scale: float) -> Tensor:
        """threshold [d_sae] for unscaled inputs; pre-activations shrink by `scale`, so it does."""
        return (self.threshold / scale).expand(self.settings.d_sae).clone()

    def build(self, scale: float) -> BatchTopKSAE:
        """The SAE for unscaled inputs."""
        return BatchTopKSAE(*self.folded(scale), threshold=self.folded_threshold(scale))


def largest_of_batch(pre: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest positive entries of pre [n, d_sae], or all positive ones if fewer.

    Rows, features (int64) and values, each [m], sorted by row, within a row by feature. Of equal
    values at the edge those first in that order are kept, so the choice is the same in every run.
    """
    # Only entries near the edge or above it need sorting.
    floor = batch_floor(sampled(pre), count, len(pre))
    rows, features = (pre > floor).nonzero(as_tuple=True)
    if len(rows) < count and floor > 0:
        rows, features = (pre > 0).nonzero(as_tuple=True)
    return keep_largest(rows, features, pre[rows, features], count)


def sampled(rows: Tensor) -> Tensor:
    """A few rows of a batch [n, d], evenly spread over it."""
    return rows[:: max(1, len(rows) // SAMPLED_ROWS)]


def batch_floor(sample: Tensor, count: int, n: int) -> Tensor:
    """A value, 0 or more, that about SLACK * count pre-activations of n rows exceed, 0-dim.

    Guessed from the pre-activations of some of the rows, sample [few, d_sae].
    """
    flat = sample.flatten()
    rank = min(len(flat), max(1, SLACK * count * len(sample) // n))
    return flat.topk(rank, sorted=False).values.min().clamp_min(0)


def keep_largest(
    rows: Tensor, features: Tensor, values: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest of some entries [m], in their order; of equal ones the first."""
    if len(values) <= count:
        return rows, features, values
    edge = values.topk(count, sorted=False).values.min()
    kept = values >= edge
    ties = (values == edge).nonzero().squeeze(1)
    kept[ties[len(ties) - int(kept.sum()) + count :]] = False
    return rows[kept], features[kept], values[kept]
