"""Gated SAE (Rajamanoharan et al. 2024a, arXiv 2404.16014): what is active apart from how strongly.

A gate and a magnitude path share one encoder direction per feature (sec. 3.2):
  gate = (x - b_dec) W_gate + b_gate,   pre = (x - b_dec) W_gate exp(r_mag) + b_mag
  f = ReLU(pre) where gate > 0, else 0
loss = mean_n [ ||x_n - x_hat(f_n)||^2 + l1 sum_i ReLU(gate_ni) + ||x_n - x_hat'(ReLU(gate_n))||^2 ]
where x_hat' is the decoder held constant (both W_dec and b_dec, eq. 8), so the L1 penalty shrinks
the gate alone. Decoder rows of unit norm. Features that die are resampled (sec. 3.2, App. D there).

Since pre is a rising affine function of gate, gate > 0 is the same as pre > b_mag - exp(r_mag)
b_gate: a trained gated SAE is a JumpReLU SAE (App. E), and is evaluated as one.
"""

import torch
from torch import Tensor

from mechinterp_assets.sae.base import SaeError
from mechinterp_assets.sae.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.resampling import resample_dead
from mechinterp_assets.sae.steps import (
    StepSums,
    TrainingStep,
    gradient_of,
    sum_of_squares,
    variance_sum,
)


class GatedSAE(JumpReLUSAE):
    """W_gate [d_in, d_sae]; b_gate, r_mag, b_mag [d_sae]; W_dec, b_dec.

    W_enc, b_enc and pre_activations are the magnitude path's: W_gate exp(r_mag) and b_mag. An
    activation above 0 equals its pre-activation, so attribution of a feature splits that path.
    """

    architecture = "gated"

    def __init__(
        self,
        W_gate: Tensor,
        b_gate: Tensor,
        r_mag: Tensor,
        b_mag: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
    ) -> None:
        for name, tensor in {"b_gate": b_gate, "r_mag": r_mag, "b_mag": b_mag}.items():
            if W_gate.ndim != 2 or tuple(tensor.shape) != (W_gate.shape[1],):
                raise SaeError(
                    f"SAE tensor {name} has shape {tuple(tensor.shape)}, expected [d_sae] "
                    f"(W_gate is {tuple(W_gate.shape)}, [d_in, d_sae])"
                )
        gain = r_mag.exp()
        super().__init__(W_gate * gain, b_mag, W_dec, b_dec, threshold=b_mag - gain * b_gate)
        self.W_gate, self.b_gate, self.r_mag, self.b_mag = W_gate, b_gate, r_mag, b_mag

    def tensors(self) -> dict[str, Tensor]:
        """Every weight by its name on disk, where W_enc is the gate's."""
        return {
            "W_enc": self.W_gate,
            "b_gate": self.b_gate,
            "r_mag": self.r_mag,
            "b_mag": self.b_mag,
            "W_dec": self.W_dec,
            "b_dec": self.b_dec,
        }


class GatedStep(TrainingStep):
    """Seven GEMMs a step: encode, two decodes, two gradients of activations, W_dec and W_gate.

    encoder and b_enc are the gate's; r_mag and b_mag [d_sae] the magnitude path's own.
    """

    sae_class = GatedSAE
    required_settings = ("l1_coefficient",)
    resamples = True

    def initial_extra(self) -> dict[str, Tensor]:
        """r_mag and b_mag [d_sae] of 0: both paths start equal."""
        return {name: torch.zeros_like(self.b_enc) for name in ("r_mag", "b_mag")}

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean loss of the module's docstring over x [n, d_in]."""
        n = len(x)
        assert self.settings.l1_coefficient is not None
        l1 = self.warmed_up(self.settings.l1_coefficient, progress)
        gain = self.extra["r_mag"].exp()
        centred = x - self.b_dec
        gate = self.encode_pre(centred)
        f = self._activations(gate)
        gate.relu_()
        inactive = f == 0
        residual = torch.addmm(self.b_dec, f, self.decoder).sub_(x)
        gate_residual = torch.addmm(self.b_dec, gate, self.decoder).sub_(x)

        n_active = n - inactive.sum(0)
        self.count_fired(n_active > 0, n)
        x_sums, residual_sums = x.sum(0), residual.sum(0)
        error = sum_of_squares(residual)
        sparsity = l1 * gate.sum()
        sums = StepSums(
            loss=error + sparsity + sum_of_squares(gate_residual),
            sparsity_loss=sparsity,
            squared_error=error,
            residual_variance=variance_sum(residual, residual_sums, error),
            total_variance=variance_sum(x, x_sums, sum_of_squares(x)),
            n_active=n_active.sum(),
        )

        residual.mul_(2 / n)
        torch.mm(f.T, residual, out=self.decoder.grad)
        # dL/dpre where f > 0, and dL/dgate where the gate is open
        g_mag = (residual @ self.decoder.T).masked_fill_(inactive, 0)
        g_gate = (gate_residual.mul_(2 / n) @ self.decoder.T).add_(l1 / n)
        g_gate.masked_fill_(gate == 0, 0)
        torch.sum(g_mag, 0, out=gradient_of(self.extra["b_mag"]))
        torch.sum(g_gate, 0, out=gradient_of(self.b_enc))
        # dpre/dr_mag = pre - b_mag, and pre is f where g_mag is not 0
        f.sub_(self.extra["b_mag"]).mul_(g_mag)
        torch.sum(f, 0, out=gradient_of(self.extra["r_mag"]))
        # both paths read (x - b_dec) W_gate
        g_gate.addcmul_(g_mag, gain)
        torch.mm(g_gate.T, centred, out=self.encoder.grad)
        torch.mul(residual_sums, 2 / n, out=gradient_of(self.b_dec))
        gradient_of(self.b_dec).sub_(g_gate.sum(0) @ self.encoder)
        return sums

    def build(self, scale: float) -> GatedSAE:
        """The SAE for unscaled inputs: both paths' biases shrink by `scale`, r_mag does not."""
        W_gate, b_gate, W_dec, b_dec = self.folded(scale)
        r_mag, b_mag = (self.extra[name].detach().clone() for name in ("r_mag", "b_mag"))
        return GatedSAE(W_gate, b_gate, r_mag, b_mag / scale, W_dec, b_dec)

    @torch.no_grad()
    def resample(self, rows: Tensor, generator: torch.Generator) -> int:
        """Restart dead features at rows of large loss (resampling.py); returns how many.

        A row's loss is ||x - x_hat||^2 + l1 sum_i ReLU(gate_i).
        """
        if not self.dead().any():
            return 0
        assert self.settings.l1_coefficient is not None
        centred = rows - self.b_dec
        losses = []
        for block in torch.split(centred, self.settings.batch_size):
            gate = self.encode_pre(block)
            error = (self._activations(gate) @ self.decoder).sub_(block).square_().sum(1)
            losses.append(error + self.settings.l1_coefficient * gate.relu_().sum(1))
        return resample_dead(self, centred, torch.cat(losses), generator)

    def _activations(self, gate: Tensor) -> Tensor:
        """f [n, d_sae] from the gate's pre-activations."""
        pre = (gate - self.b_enc).mul_(self.extra["r_mag"].exp()).add_(self.extra["b_mag"])
        return pre.relu_().masked_fill_(gate <= 0, 0)
