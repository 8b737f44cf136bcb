"""How good an SAE is, on held-out tokens (METHODS sec. 2; K24 sec. 3).

Belongs here: reconstruction measures on z, and what splicing the reconstruction into the model does
to its predictions. Does not belong here: per-feature statistics (the attribution and feature
assets), training logs (train.py).

Conventions
  Reconstruction measures are over valid positions only (not position 0, not BOS).
  Splicing replaces z of one layer at valid positions by x_hat (spliced), 0 (zero) or the mean z
  of the training split (mean); z at invalid positions stays as it is in all three. Cross-entropy
  (nats) and KL are means over every predicted token: positions 0..T-2 of every sequence, whose
  targets are positions 1..T-1. Raw weights.
"""

from collections.abc import Callable, Mapping

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import check_token_ids
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.sae.base import SaeError, SparseAutoencoder

EVALUATION_SCHEMA = {
    "layer": pl.Int32,
    "n_tokens": pl.Int64,
    "n_predictions": pl.Int64,
    "l0": pl.Float64,
    "explained_variance": pl.Float64,
    "fvu": pl.Float64,
    "cosine": pl.Float64,
    "mse": pl.Float64,
    "ce_clean": pl.Float64,
    "ce_spliced": pl.Float64,
    "ce_zero": pl.Float64,
    "ce_mean": pl.Float64,
    "ce_recovered": pl.Float64,
    "ce_recovered_mean": pl.Float64,
    "kl": pl.Float64,
    "dead_fraction": pl.Float64,
    "dead_fraction_tokens": pl.Int64,
    "shrinkage": pl.Float64,
}


class ReconstructionSums:
    """Float64 sums over activation rows, from which every reconstruction measure follows."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.n = 0
        self._x = torch.zeros(d_in, dtype=torch.float64)
        self._residual = torch.zeros(d_in, dtype=torch.float64)
        self._x_squares = 0.0
        self._residual_squares = 0.0
        self._cosine = 0.0
        self._norm_ratio = 0.0
        self._n_norm = 0
        self._active = 0
        self._fired = torch.zeros(d_sae, dtype=torch.bool)

    @torch.no_grad()
    def add(self, sae: SparseAutoencoder, x: Tensor) -> None:
        """Add rows x [n, d_in]."""
        f = sae.encode(x)
        x_hat = sae.decode(f)
        self.n += len(x)
        self._active += int(torch.count_nonzero(f))
        self._fired |= (f > 0).any(0).cpu()
        x, x_hat = x.double(), x_hat.double()
        residual = x - x_hat
        self._x += x.sum(0).cpu()
        self._residual += residual.sum(0).cpu()
        self._x_squares += float(x.square().sum())
        self._residual_squares += float(residual.square().sum())
        self._cosine += float(cosine_similarity(x, x_hat, dim=1).sum())
        norms = x.norm(dim=1)
        nonzero = norms > 0
        self._norm_ratio += float((x_hat.norm(dim=1)[nonzero] / norms[nonzero]).sum())
        self._n_norm += int(nonzero.sum())

    def measures(self) -> dict[str, float | int | None]:
        """Columns of sae_evaluation that concern the reconstruction alone.

        A ratio whose denominator is zero (constant activations) is None.
        """
        if self.n == 0:
            raise SaeError("no valid position to evaluate on; give sequences with non-BOS tokens")
        total = self._x_squares - float(self._x.square().sum()) / self.n
        residual = self._residual_squares - float(self._residual.square().sum()) / self.n
        return {
            "n_tokens": self.n,
            "l0": self._active / self.n,
            "explained_variance": 1 - residual / total if total > 0 else None,
            "fvu": self._residual_squares / total if total > 0 else None,
            "cosine": self._cosine / self.n,
            "mse": self._residual_squares / (self.n * len(self._x)),
            "dead_fraction": float((~self._fired).double().mean()),
            "dead_fraction_tokens": self.n,
            "shrinkage": self._norm_ratio / self._n_norm if self._n_norm else None,
        }


def evaluate_reconstruction(
    sae: SparseAutoencoder, rows: Tensor, *, batch_size: int = 4096
) -> dict[str, float | int | None]:
    """Reconstruction measures of sae_evaluation over rows [n, d_in], without any model."""
    sums = ReconstructionSums(sae.d_in, sae.d_sae)
    for start in range(0, len(rows), batch_size):
        sums.add(sae, rows[start : start + batch_size].to(sae.W_enc.device))
    return sums.measures()


@torch.no_grad()
def evaluate_layers(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    token_ids: Tensor,
    mean_z: Mapping[int, Tensor],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Table sae_evaluation without study: one row per layer of saes {layer: SAE}.

    token_ids [sequence, position], held out from training; mean_z {layer: [d_z]} of the training
    split. All layers share the clean forward pass; each adds three (spliced, zero, mean). Logits of
    batch_size sequences are held twice: lower batch_size where memory is short.
    Raises SaeError for an SAE whose width is not the model's, before any forward pass.
    """
    check_token_ids(model, token_ids)
    _check(model, saes, token_ids, mean_z)
    layers = sorted(saes)
    variants = ("spliced", "zero", "mean")
    sums = {layer: ReconstructionSums(saes[layer].d_in, saes[layer].d_sae) for layer in layers}
    ce = {(layer, variant): 0.0 for layer in layers for variant in variants}
    kl = dict.fromkeys(layers, 0.0)
    ce_clean, n_predictions = 0.0, 0
    with tqdm(total=len(token_ids), desc="evaluate SAEs", unit="sequence", disable=None) as bar:
        for start in range(0, len(token_ids), batch_size):
            ids = token_ids[start : start + batch_size].long().to(model.device)
            valid = valid_positions(ids, model.bos_token_id)
            targets = ids[:, 1:].flatten()
            clean, z = _clean_pass(model, layers, ids)
            ce_clean += _nll(clean, targets)
            n_predictions += len(targets)
            for layer in layers:
                sae = saes[layer]
                x = z[layer][valid].float()
                sums[layer].add(sae, x)
                replacements = {
                    "spliced": sae(x),
                    "zero": torch.zeros_like(x),
                    "mean": mean_z[layer].to(x).expand_as(x),
                }
                for variant, rows in replacements.items():
                    log_p = _spliced_pass(model, layer, ids, valid, rows)
                    ce[layer, variant] += _nll(log_p, targets)
                    if variant == "spliced":
                        kl[layer] += _kl(clean, log_p)
            bar.update(len(ids))
            if progress is not None:
                progress(start + len(ids), len(token_ids))
    ce_clean /= n_predictions
    rows_out = []
    for layer in layers:
        losses = {v: ce[layer, v] / n_predictions for v in variants}
        rows_out.append(
            {
                **sums[layer].measures(),
                "layer": layer,
                "n_predictions": n_predictions,
                "ce_clean": ce_clean,
                "ce_spliced": losses["spliced"],
                "ce_zero": losses["zero"],
                "ce_mean": losses["mean"],
                "ce_recovered": loss_recovered(ce_clean, losses["spliced"], losses["zero"]),
                "ce_recovered_mean": loss_recovered(ce_clean, losses["spliced"], losses["mean"]),
                "kl": kl[layer] / n_predictions,
            }
        )
    return pl.DataFrame(rows_out, schema=EVALUATION_SCHEMA)


def loss_recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """1 - (spliced - clean) / (ablated - clean); None where ablation does not raise the loss."""
    if ablated <= clean:
        return None
    return 1 - (spliced - clean) / (ablated - clean)


# ---- private -------------------------------------------------------------------------------------


def _check(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    token_ids: Tensor,
    mean_z: Mapping[int, Tensor],
) -> None:
    if token_ids.shape[1] < 2:
        raise SaeError("sequences of one position have no predicted token; give longer sequences")
    for layer, sae in saes.items():
        model.output_projection(layer)
        if sae.d_in != model.config.d_z:
            raise SaeError(
                f"the SAE of layer {layer} has d_in {sae.d_in}, but z of {model.source} has width "
                f"{model.config.d_z}; load an SAE trained on this model"
            )
        if layer not in mean_z or mean_z[layer].shape != (sae.d_in,):
            shape = tuple(mean_z[layer].shape) if layer in mean_z else None
            raise SaeError(
                f"mean_z of layer {layer} has shape {shape}, expected ({sae.d_in},); "
                "materialize activation_statistics"
            )


def _log_probabilities(model: LanguageModel, ids: Tensor) -> Tensor:
    """log p of the next token at every position but the last [batch * (T - 1), d_vocab] float32."""
    logits = model.hf(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.log_softmax(logits.flatten(0, 1).float(), dim=-1)


def _clean_pass(
    model: LanguageModel, layers: list[int], ids: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    caught: dict[int, Tensor] = {}
    handles = [
        model.output_projection(layer).register_forward_pre_hook(
            lambda module, args, layer=layer: caught.__setitem__(layer, args[0])
        )
        for layer in layers
    ]
    try:
        return _log_probabilities(model, ids), caught
    finally:
        for handle in handles:
            handle.remove()


def _spliced_pass(
    model: LanguageModel, layer: int, ids: Tensor, valid: Tensor, rows: Tensor
) -> Tensor:
    """log p with z of `layer` at valid positions replaced by rows [n_valid, d_z]."""

    def replace(z: Tensor) -> Tensor:
        spliced = z.clone()
        spliced[valid] = rows.to(z.dtype)
        return spliced

    with model.replaced_z(layer, replace):
        return _log_probabilities(model, ids)


def _nll(log_p: Tensor, targets: Tensor) -> float:
    """Sum of -log p of the targets."""
    return -float(log_p.gather(1, targets[:, None]).double().sum())


def _kl(log_p: Tensor, log_q: Tensor) -> float:
    """Sum over rows of KL(p || q)."""
    return float((log_p.exp() * (log_p - log_q)).sum(1).double().sum())
