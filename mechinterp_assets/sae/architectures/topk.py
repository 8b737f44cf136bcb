"""TopK SAE (Gao et al. 2024, arXiv 2406.04093): the k largest pre-activations, ReLU.

loss = mean_n ||x_n - x_hat_n||^2 + aux-k (auxk.py). Decoder rows of unit norm.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from mechinterp_assets.sae.auxk import add_auxk
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.sparse_ops import (
    EntriesByFeature,
    reconstruct,
    topk_encode,
    topk_rows,
)
from mechinterp_assets.sae.steps import (
    StepSums,
    TrainingStep,
    gradient_of,
    sum_of_squares,
    variance_sum,
)
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="The k largest pre-activations of a row, through ReLU; squared error and aux-k",
    source="Gao et al. 2024, arXiv 2406.04093",
    sparsity_setting="k",
    optional_settings=("k_start",),
    auxk=True,
    sae_lens_name="topk",
)


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

    def folder_options(self) -> dict[str, Any]:
        """k, and that pre-activations are not scaled."""
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}

    @classmethod
    def from_folder(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> Self:
        """As the base class, with k."""
        k = options.get("k")
        if isinstance(k, bool) or not (
            isinstance(k, int) or (isinstance(k, float) and k.is_integer())
        ):
            raise SaeError(f"cfg.json gives k = {k!r} for a topk SAE; k must be an integer")
        return cls(**weights, k=int(k))

    @classmethod
    def fold_options(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> None:
        """As the base class, and pre-activations that are scaled by norms of decoder rows."""
        super().fold_options(weights, options)
        if options.get("rescale_acts_by_decoder_norm", False):
            norm = weights["W_dec"].norm(dim=1)
            weights["W_enc"] *= norm
            weights["b_enc"] *= norm
            weights["W_dec"] /= norm[:, None]

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

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean reconstruction and aux-k loss over x [n, d_in]."""
        n, d_sae = len(x), self.settings.d_sae
        centred = x - self.b_dec
        values, features, pre = self._encode(centred, self.k_at(progress))
        values.relu_()
        residual, along = reconstruct(features, values, self.decoder, self.b_dec, x)
        x_sums, residual_sums = x.sum(0), residual.sum(0)
        error = sum_of_squares(residual)
        active = values > 0

        # dL/d value = 2/n R . W_dec[feature], where the value is positive
        g = along.mul_(2 / n).mul_(active)
        entries = EntriesByFeature(features, d_sae)
        entries.weighted_rows(values, residual, scale=2 / n, out=gradient_of(self.decoder))
        entries.weighted_rows(g, centred, out=gradient_of(self.encoder))
        gradient_of(self.b_enc).copy_(entries.sums(g))
        auxiliary = add_auxk(self, pre, centred, residual)
        # b_dec adds to x_hat and is taken from x: 2/n sum_n R_n - (sum_n g_n) W_enc^T
        torch.mul(residual_sums, 2 / n, out=gradient_of(self.b_dec))
        gradient_of(self.b_dec).sub_(gradient_of(self.b_enc) @ self.encoder)

        # one place more, for entries that are not active: choosing the others would wait for a GPU
        fired = torch.zeros(d_sae + 1, dtype=torch.bool, device=x.device)
        fired.index_fill_(0, torch.where(active, features, d_sae).flatten(), True)
        self.count_fired(fired[:d_sae], n)
        return StepSums(
            loss=error + auxiliary,
            sparsity_loss=auxiliary,
            squared_error=error,
            residual_variance=variance_sum(residual, residual_sums, error),
            total_variance=variance_sum(x, x_sums, sum_of_squares(x)),
            n_active=active.sum(),
        )

    def _encode(self, centred: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The k largest pre-activations of each row, their features, and all of them if at hand."""
        rounded = self.settings.compute_dtype == "bfloat16"
        largest = topk_encode(centred, self.encoder, self.b_enc, k, rounded=rounded)
        if largest is not None:
            return *largest, None
        pre = self.encode_pre(centred)
        return *topk_rows(pre, k), pre

    def build(self, scale: float) -> TopKSAE:
        """The SAE for unscaled inputs."""
        assert self.settings.k is not None
        return TopKSAE(*self.folded(scale), k=self.settings.k)
