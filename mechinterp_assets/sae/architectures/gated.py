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

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.relu_ops import few_positive, positive_encode
from mechinterp_assets.sae.resampling import resample_dead
from mechinterp_assets.sae.sparse_ops import EntriesByFeature, reconstruct_ragged
from mechinterp_assets.sae.steps import (
    StepSums,
    TrainingStep,
    gradient_of,
    step_sums,
    sum_of_squares,
)
from mechinterp_assets.sae.traits import Traits

TRAITS = Traits(
    description="ReLU of a magnitude path where the pre-activation of a gate with the same "
    "direction is above 0; squared error, an L1 penalty on the gate and the gate's own squared "
    "error",
    source="Rajamanoharan et al. 2024a, arXiv 2404.16014",
    sparsity_setting="l1_coefficient",
    resamples=True,
    encoder_scale=0.1,
    wide_matrices=6,
    sae_lens_name="gated",
    tensors=("W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec"),
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

    @classmethod
    def from_folder(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> Self:
        """As the base class; W_enc on disk is the gate's."""
        others = {name: tensor for name, tensor in weights.items() if name != "W_enc"}
        return cls(W_gate=weights["W_enc"], **others)

    @classmethod
    def fold_options(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> None:
        """As the base class, into the biases of both paths."""
        if not options.get("apply_b_dec_to_input", True):
            shift = weights["b_dec"] @ weights["W_enc"]
            weights["b_gate"] += shift
            weights["b_mag"] += shift * weights["r_mag"].exp()


class GatedStep(TrainingStep):
    """Dense: seven GEMMs a step (encode, two decodes, two gradients of activations, W_dec, W_gate).
    On a CPU, once few gates are open: one GEMM, and sums over those.

    encoder and b_enc are the gate's; r_mag and b_mag [d_sae] the magnitude path's own.
    """

    sae_class = GatedSAE

    def initial_extra(self) -> dict[str, Tensor]:
        """r_mag and b_mag [d_sae] of 0: both paths start equal."""
        return {name: torch.zeros_like(self.b_enc) for name in ("r_mag", "b_mag")}

    @torch.no_grad()
    def gradients(self, x: Tensor, progress: float) -> StepSums:
        """Gradient of the mean loss of the module's docstring over x [n, d_in]."""
        assert self.settings.l1_coefficient is not None
        l1 = self.warmed_up(self.settings.l1_coefficient, progress)
        centred = x - self.b_dec
        if few_positive(centred, self.encoder, self.b_enc):
            return self._sparse_gradients(x, centred, l1)
        return self._dense_gradients(x, centred, l1)

    def _dense_gradients(self, x: Tensor, centred: Tensor, l1: float) -> StepSums:
        n = len(x)
        gate = self.encode_pre(centred)
        f = self._activations(gate)
        gate.relu_()
        inactive = f == 0
        residual = torch.addmm(self.b_dec, f, self.decoder).sub_(x)
        gate_residual = torch.addmm(self.b_dec, gate, self.decoder).sub_(x)
        n_active = n - inactive.sum(0)
        self.count_fired(n_active > 0, n)
        sums = step_sums(
            x, residual, n_active.sum(), l1 * gate.sum(), sum_of_squares(gate_residual)
        )

        residual_sums = residual.sum(0)
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
        g_gate.addcmul_(g_mag, self.extra["r_mag"].exp())
        torch.mm(g_gate.T, centred, out=self.encoder.grad)
        self.b_dec_gradient(residual_sums, g_gate.sum(0), n)
        return sums

    def _sparse_gradients(self, x: Tensor, centred: Tensor, l1: float) -> StepSums:
        """The same from the entries whose gate is open: one GEMM."""
        n = len(x)
        rows, features, gate = positive_encode(centred, self.encoder, self.b_enc)
        gain, b_mag = self.extra["r_mag"].exp()[features], self.extra["b_mag"][features]
        f = (gate - self.b_enc[features]).mul_(gain).add_(b_mag).relu_()
        residual, along = reconstruct_ragged(rows, features, f, self.decoder, self.b_dec, x)
        gate_residual, gate_along = reconstruct_ragged(
            rows, features, gate, self.decoder, self.b_dec, x
        )
        active = f > 0
        self.count_features(features[active], n)
        sums = step_sums(x, residual, active.sum(), l1 * gate.sum(), sum_of_squares(gate_residual))

        entries = EntriesByFeature(features, self.settings.d_sae, rows)
        g_mag = along.mul_(2 / n).mul_(active)
        g_gate = gate_along.mul_(2 / n).add_(l1 / n)
        gradient_of(self.extra["b_mag"]).copy_(entries.sums(g_mag))
        gradient_of(self.b_enc).copy_(entries.sums(g_gate))
        gradient_of(self.extra["r_mag"]).copy_(entries.sums((f - b_mag).mul_(g_mag)))
        g_gate.addcmul_(g_mag, gain)
        entries.weighted_rows(f, residual, scale=2 / n, out=gradient_of(self.decoder))
        entries.weighted_rows(g_gate, centred, out=gradient_of(self.encoder))
        self.b_dec_gradient(residual.sum(0), entries.sums(g_gate), n)
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
