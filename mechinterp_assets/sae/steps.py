"""One optimisation step of an SAE: what is the same for every architecture.

Belongs here: parameters, unit-norm decoder rows with projected gradient, Adam, the encoder's matrix
product, dead-feature counters, schedules of the sparsity settings, and everything a checkpoint
needs of them. Does not belong here: a loss and its gradient (each architecture's file derives its
own), the loop over batches (train.py).

Gradients are written out by hand: the gradient of b_dec needs no extra GEMM, the L1 step takes five
GEMMs and the TopK step two. tests/sae compares all of them with autograd in float64.
The encoder is stored [d_sae, d_in] so that a feature's weights are contiguous.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.row_adam import adam_rows_
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.traits import traits_of


@dataclass(frozen=True)
class StepSums:
    """Sums over one batch, 0-dim tensors on the device; inputs scaled as trained.

    loss and sparsity_loss are sums over rows (divide by rows); squared_error = sum ||x - x_hat||^2;
    residual_variance and total_variance = sums of squares about the batch mean.
    """

    loss: Tensor
    sparsity_loss: Tensor
    squared_error: Tensor
    residual_variance: Tensor
    total_variance: Tensor
    n_active: Tensor

    def stacked(self) -> Tensor:
        """[6] float64 in field order."""
        parts = (
            self.loss,
            self.sparsity_loss,
            self.squared_error,
            self.residual_variance,
            self.total_variance,
            self.n_active,
        )
        return torch.stack([part.double() for part in parts])


class TrainingStep(ABC):
    """Parameters and optimiser of one SAE in training.

    encoder [d_sae, d_in], b_enc [d_sae], decoder [d_sae, d_in] with unit rows, b_dec [d_in], and
    `extra`, the architecture's own parameters by name. tokens_since_fired [d_sae] int64 counts
    training tokens since each feature was last active. `buffers` holds what else changes from step
    to step, by name; it is updated in place and goes into checkpoints.
    """

    sae_class: ClassVar[type[SparseAutoencoder]]

    def __init__(self, settings: SaeSettings, decoder: Tensor, b_dec: Tensor) -> None:
        """decoder [d_sae, d_in] with unit rows; the encoder starts as its scaled transpose."""
        self.settings = settings
        self.decoder = nn.Parameter(decoder.detach().clone())
        scale = settings.encoder_scale or traits_of(settings.architecture).encoder_scale
        self.encoder = nn.Parameter(decoder.detach() * scale)
        self.b_enc = nn.Parameter(decoder.new_zeros(settings.d_sae))
        self.b_dec = nn.Parameter(b_dec.detach().clone())
        self.extra = {n: nn.Parameter(t) for n, t in self.initial_extra().items()}
        for parameter in self.parameters().values():
            parameter.grad = torch.zeros_like(parameter)
        self.tokens_since_fired = torch.zeros(
            settings.d_sae, dtype=torch.int64, device=decoder.device
        )
        self.buffers = {"tokens_since_fired": self.tokens_since_fired}
        self.optimizer = torch.optim.Adam(
            self.parameters().values(),
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            fused=True,
        )

    @abstractmethod
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Fill every parameter's .grad with the gradient of the mean loss over x [n, d_in].

        progress is the share of the training done, for coefficients that change. The decoder's
        gradient is not yet projected. Updates tokens_since_fired.
        """

    def b_dec_gradient(self, residual_sums: Tensor, g_sums: Tensor, n: int) -> None:
        """b_dec adds to x_hat and is taken from x: 2/n sum_n R_n - (sum_n g_n) W_enc^T.

        residual_sums [d_in] of R = x_hat - x; g_sums [d_sae] of the loss's gradient with respect to
        centred @ encoder.T.
        """
        torch.mul(residual_sums, 2 / n, out=gradient_of(self.b_dec))
        gradient_of(self.b_dec).sub_(g_sums @ self.encoder)

    @abstractmethod
    def build(self, scale: float) -> SparseAutoencoder:
        """The SAE for unscaled inputs, when training ran on scale * x.

        ReLU and TopK are positively homogeneous: with inputs scaled by s, f(sx)/s uses the same
        weights and biases divided by s, so decoder rows keep their unit norm.
        """

    def initial_extra(self) -> dict[str, Tensor]:
        """Starting values of the architecture's own parameters, by name."""
        return {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name, always in the same order."""
        return {
            "encoder": self.encoder,
            "b_enc": self.b_enc,
            "decoder": self.decoder,
            "b_dec": self.b_dec,
            **self.extra,
        }

    def encode_pre(self, centred: Tensor) -> Tensor:
        """Pre-activations [n, d_sae] of centred rows x - b_dec [n, d_in].

        With compute_dtype "bfloat16" the factors are rounded to bfloat16, sums stay float32 (on a
        CPU the result is rounded once more).
        """
        if self.settings.compute_dtype != "bfloat16":
            return torch.addmm(self.b_enc, centred, self.encoder.T)
        low, weights = centred.bfloat16(), self.encoder.bfloat16().T
        if centred.device.type == "cuda":
            pre = torch.mm(low, weights, out_dtype=torch.float32)
        else:
            pre = torch.mm(low, weights).to(centred.dtype)
        return pre.add_(self.b_enc)

    def warmed_up(self, coefficient: float, progress: float) -> float:
        """A penalty's coefficient at a share of the training: linear warm-up, then constant."""
        warmup = self.settings.sparsity_warmup
        return coefficient * (min(1.0, progress / warmup) if warmup else 1.0)

    def k_at(self, progress: float) -> int:
        """k at a share of the training: linearly from k_start to k, then constant."""
        k, start, warmup = self.settings.k, self.settings.k_start, self.settings.sparsity_warmup
        assert k is not None
        if start is None or progress >= warmup:
            return k
        return round(start + (k - start) * progress / warmup)

    def resample(self, rows: Tensor, generator: torch.Generator) -> int:
        """Revive dead features from rows [n, d_in] (scaled as trained); returns how many.

        Called at settings.resample_steps where the architecture's TRAITS say that it resamples.
        """
        return 0

    def dead(self) -> Tensor:
        """Features [d_sae] bool that were active on none of the last dead_after_tokens tokens."""
        return self.tokens_since_fired >= self.settings.dead_after_tokens

    @torch.no_grad()
    def apply(self, lr: float) -> None:
        """Project the decoder's gradient, clip, take an Adam step, renormalise decoder rows."""
        self.optimizer.param_groups[0]["lr"] = lr
        clip = self.settings.max_gradient_norm
        if clip is None and adam_rows_(self.optimizer, [self.encoder], self.decoder, lr):
            # torch passes over parameters without a gradient: only the small ones are left to it
            done = [(matrix, matrix.grad) for matrix in (self.encoder, self.decoder)]
            self.encoder.grad = self.decoder.grad = None
            self.optimizer.step()
            for matrix, gradient in done:
                matrix.grad = gradient
            return
        project_gradient(self.decoder, gradient_of(self.decoder))
        if clip is not None:
            nn.utils.clip_grad_norm_(self.parameters().values(), clip)
        self.optimizer.step()
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))

    def folded(self, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_enc, b_enc, W_dec, b_dec for unscaled inputs (see build)."""
        return (
            self.encoder.detach().T.contiguous(),
            self.b_enc.detach() / scale,
            self.decoder.detach().clone(),
            self.b_dec.detach() / scale,
        )

    def count_features(self, features: Tensor, rows: int) -> None:
        """count_fired from the features [m] of a batch's active entries."""
        fired = torch.zeros_like(self.tokens_since_fired, dtype=torch.bool)
        self.count_fired(fired.index_fill_(0, features, True), rows)

    def count_fired(self, fired: Tensor, rows: int) -> None:
        """Update tokens_since_fired; fired [d_sae] bool says what was active in the batch."""
        self.tokens_since_fired += rows
        self.tokens_since_fired.masked_fill_(fired, 0)

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs, by name."""
        state = dict(self.buffers)
        for name, parameter in self.parameters().items():
            state[name] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                state[f"adam.{name}.{key}"] = value
        return state

    @torch.no_grad()
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Restore state_tensors, copying into this step's own memory."""
        for name, buffer in self.buffers.items():
            buffer.copy_(state[name])
        for name, parameter in self.parameters().items():
            parameter.copy_(state[name])
            prefix = f"adam.{name}."
            self.optimizer.state[parameter] = {
                key.removeprefix(prefix): value.to(parameter.device, copy=True)
                for key, value in state.items()
                if key.startswith(prefix)
            }

    def reset_moments(self, features: Tensor) -> None:
        """Zero Adam's moments of some features [n] (indices) in every parameter but b_dec."""
        for name, parameter in self.parameters().items():
            if name == "b_dec":
                continue
            state = self.optimizer.state[parameter]
            for key in ("exp_avg", "exp_avg_sq"):
                if key in state:
                    state[key][features] = 0


def step_sums(
    x: Tensor,
    residual: Tensor,
    n_active: Tensor,
    sparsity: Tensor,
    other: Tensor | float = 0.0,
) -> StepSums:
    """StepSums of a batch x [n, d_in] with residual = x_hat - x.

    sparsity and `other`, what else the loss has beside ||x - x_hat||^2, are summed over rows.
    """
    error = sum_of_squares(residual)
    return StepSums(
        loss=error + sparsity + other,
        sparsity_loss=sparsity,
        squared_error=error,
        residual_variance=variance_sum(residual, residual.sum(0), error),
        total_variance=variance_sum(x, x.sum(0), sum_of_squares(x)),
        n_active=n_active,
    )


def project_gradient(decoder: Tensor, gradient: Tensor) -> None:
    """Remove from each row of gradient [d_sae, d_in] its part along the unit row of decoder."""
    along = torch.linalg.vecdot(gradient, decoder)
    gradient.addcmul_(decoder, along[:, None], value=-1)


def sum_of_squares(x: Tensor) -> Tensor:
    """Sum of all squares, 0-dim."""
    return torch.dot(x.flatten(), x.flatten())


def variance_sum(x: Tensor, column_sums: Tensor, squares: Tensor) -> Tensor:
    """sum_n ||x_n - mean||^2 of x [n, d] from its column sums and its sum of squares."""
    return squares - sum_of_squares(column_sums) / len(x)


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """The parameter's gradient, which every step allocates at its start."""
    assert parameter.grad is not None
    return parameter.grad
