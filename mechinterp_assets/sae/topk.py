"""TopK SAE (Gao et al. 2024, arXiv 2406.04093): the k largest pre-activations, ReLU.

loss = mean_n ||x_n - x_hat_n||^2 + aux-k (auxk.py). Decoder rows of unit norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mechinterp_assets.sae.auxk import add_auxk
from mechinterp_assets.sae.base import SaeError, SparseAutoencoder
from mechinterp_assets.sae.steps import StepSums, TrainingStep, sum_of_squares, variance_sum

# Decoder entries gathered at a time: within the caches of a CPU, few launches on a GPU.
GATHERED_CPU, GATHERED_GPU = 2**20, 2**26


class TopKSAE(SparseAutoencoder):
    """f = ReLU(pre) on the k largest pre-activations of a row, 0 elsewhere."""

    architecture = "topk"

    def __init__(self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, k: int) -> None:
        super().__init__(W_enc, b_enc, W_dec, b_dec)
        if not 0 < k <= self.d_sae:
            raise SaeError(f"k is {k}; give a value from 1 to d_sae ({self.d_sae})")
        self._k = k

    @property
    def k(self) -> int:
        """Most features that can be active at one token."""
        return self._k

    def activate(self, pre: Tensor) -> Tensor:
        """Keep the k largest of each row, through ReLU."""
        values, features = pre.topk(self._k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter_(-1, features, values.relu_())

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Active features of x [n, d_in] without a dense [n, d_sae] result; see the base class."""
        values, features = self.pre_activations(x).topk(self._k, dim=-1, sorted=False)
        features, order = features.sort(dim=-1)
        values = values.gather(-1, order)
        rows, columns = (values > 0).nonzero(as_tuple=True)
        return rows, features[rows, columns], values[rows, columns]


class TopKStep(TrainingStep):
    """One dense GEMM (encode); decoding and all gradients touch only the k active features."""

    sae_class = TopKSAE
    required_settings = ("k",)
    optional_settings = ("k_start",)

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean reconstruction and aux-k loss over x [n, d_in]."""
        n = len(x)
        centred = x - self.b_dec
        pre = self.encode_pre(centred)
        values, features = pre.topk(self.k_at(progress), dim=-1, sorted=False)
        values.relu_()
        residual = F.embedding_bag(features, self.decoder, per_sample_weights=values, mode="sum")
        residual.add_(self.b_dec).sub_(x)

        x_sums, residual_sums = x.sum(0), residual.sum(0)
        error = sum_of_squares(residual)
        active = values > 0

        # dL/d value = 2/n R . W_dec[feature], where the value is positive
        g = self._gathered_dot(residual, features).mul_(2 / n).mul_(active)
        entries = _EntriesByFeature(features, self.settings.d_sae)
        assert self.decoder.grad is not None
        assert self.encoder.grad is not None
        assert self.b_enc.grad is not None
        assert self.b_dec.grad is not None
        torch.mul(entries.weighted_rows(values, residual), 2 / n, out=self.decoder.grad)
        self.encoder.grad.copy_(entries.weighted_rows(g, centred))
        self.b_enc.grad.copy_(entries.weighted_rows(g, x.new_ones(n, 1)).squeeze(1))

        auxiliary = add_auxk(self, pre, centred, residual)
        # b_dec adds to x_hat and is taken from x: 2/n sum_n R_n - (sum_n g_n) W_enc^T
        torch.mul(residual_sums, 2 / n, out=self.b_dec.grad)
        self.b_dec.grad.sub_(self.b_enc.grad @ self.encoder)

        fired = torch.zeros_like(self.tokens_since_fired, dtype=torch.bool)
        fired[features[active]] = True
        self.count_fired(fired, n)
        return StepSums(
            loss=error + auxiliary,
            sparsity_loss=auxiliary,
            squared_error=error,
            residual_variance=variance_sum(residual, residual_sums, error),
            total_variance=variance_sum(x, x_sums, sum_of_squares(x)),
            n_active=active.sum(),
        )

    def _gathered_dot(self, residual: Tensor, features: Tensor) -> Tensor:
        """R_n . W_dec[feature] for every active feature [n, k], a few rows at a time."""
        k, d_in = features.shape[1], residual.shape[1]
        on_cpu = residual.device.type == "cpu"
        rows = max(1, (GATHERED_CPU if on_cpu else GATHERED_GPU) // (k * d_in))
        out = torch.empty(features.shape, dtype=residual.dtype, device=residual.device)
        for start in range(0, len(residual), rows):
            here = slice(start, start + rows)
            directions = self.decoder.index_select(0, features[here].flatten())
            torch.bmm(
                directions.view(-1, k, d_in),
                residual[here].unsqueeze(-1),
                out=out[here].unsqueeze(-1),
            )
        return out

    def build(self, scale: float) -> TopKSAE:
        """The SAE for unscaled inputs."""
        assert self.settings.k is not None
        return TopKSAE(*self.folded(scale), k=self.settings.k)


class _EntriesByFeature:
    """The active features [n, k] of a batch grouped by feature, for sums over each one's rows.

    embedding_bag does the sparse [d_sae, n] by dense [n, d] product: on a CPU several times faster
    than a CSR matrix, and the same on every device and in every run (no atomic adds).
    """

    def __init__(self, features: Tensor, d_sae: int) -> None:
        flat = features.flatten()
        self._order = torch.argsort(flat, stable=True)
        self._rows = self._order // features.shape[1]
        counts = torch.bincount(flat, minlength=d_sae)
        self._starts = counts.cumsum(0) - counts

    def weighted_rows(self, weights: Tensor, rows: Tensor) -> Tensor:
        """sum over entries of a feature of weights [n, k] times rows [n, d]: [d_sae, d]."""
        return F.embedding_bag(
            self._rows,
            rows,
            self._starts,
            per_sample_weights=weights.flatten()[self._order],
            mode="sum",
        )
