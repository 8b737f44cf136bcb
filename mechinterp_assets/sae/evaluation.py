"""How good an SAE is, on held-out tokens (METHODS sec. 2; K24 sec. 3).

Belongs here: reconstruction measures on z, and what splicing the reconstruction into the model does
to its predictions. Does not belong here: per-feature statistics (the attribution and feature
assets), training logs (train.py).

Conventions
  Valid positions are all but position 0 and BOS tokens: reconstruction measures are over them.
  Splicing replaces z of one layer at valid positions by x_hat (spliced), 0 (zero) or the mean z
  of the training split (mean: mode mean_corpus of ablation/modes.py); z at invalid positions stays
  as it is in all three. KL is a mean over valid positions, cross-entropy (nats) over those of them
  that have a next token: what is predicted from BOS is left out. Raw weights.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import check_token_ids
from mechinterp_assets.activations.outliers import LARGE_SHARE, OUTLIER_SHARE, n_outliers
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.splicing import CleanPass, SplicedLosses, clean_pass, spliced_logits

logger = logging.getLogger(__name__)

EVALUATION_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "layer": pl.Int32,
    "n_tokens": pl.Int64,
    "n_predictions": pl.Int64,
    "l0": pl.Float64,
    "explained_variance": pl.Float64,
    "fvu": pl.Float64,
    "typical_explained_variance": pl.Float64,
    "outlier_variance_share": pl.Float64,
    "outlier_loss_share": pl.Float64,
    "reconstruction_cosine": pl.Float64,
    "mse": pl.Float64,
    "ce_clean": pl.Float64,
    "ce_spliced": pl.Float64,
    "ce_zero": pl.Float64,
    "ce_mean": pl.Float64,
    "ce_recovered": pl.Float64,
    "ce_recovered_mean": pl.Float64,
    "kl": pl.Float64,
    "kl_zero": pl.Float64,
    "kl_mean": pl.Float64,
    "kl_recovered": pl.Float64,
    "kl_recovered_mean": pl.Float64,
    "dead_fraction": pl.Float64,
    "dead_fraction_tokens": pl.Int64,
    "dead_fraction_100k": pl.Float64,
    "shrinkage": pl.Float64,
    "density_counts": pl.List(pl.Int32),
}
VARIANT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "layer": pl.Int32,
    "name": pl.String,
    **EVALUATION_SCHEMA,
}

# Bins of log10 density: 0.25 wide from -8 to 0, the lower edge included; the last holds 0 too.
DENSITY_LOW, DENSITY_BINS, DENSITY_WIDTH = -8.0, 32, 0.25

DEAD_TOKENS = 100_000  # K24: dead is a feature that is active on none of so many

ROUNDING = 1e-12  # of float64 sums over millions of rows, relative

Measure = float | int | list[int] | None


@dataclass
class _Moments:
    """Sums over some rows: x and the residual [d_in], and their squares, float64."""

    n: int
    x: Tensor
    residual: Tensor
    x_squares: float
    residual_squares: float

    @classmethod
    def of(cls, x: Tensor, residual: Tensor) -> "_Moments":
        """Those of rows [n, d_in] with their residuals."""
        return cls(
            len(x),
            x.sum(0).cpu(),
            residual.sum(0).cpu(),
            float(x.square().sum()),
            float(residual.square().sum()),
        )

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.n + other.n,
            self.x + other.x,
            self.residual + other.residual,
            self.x_squares + other.x_squares,
            self.residual_squares + other.residual_squares,
        )

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.n - other.n,
            self.x - other.x,
            self.residual - other.residual,
            self.x_squares - other.x_squares,
            self.residual_squares - other.residual_squares,
        )

    @property
    def variance(self) -> float:
        """sum ||x - mean x||^2; 0 where it is no more than rounding."""
        variance = self.x_squares - float(self.x.square().sum()) / self.n
        return variance if variance > ROUNDING * self.x_squares else 0.0

    @property
    def residual_variance(self) -> float:
        """sum ||r - mean r||^2."""
        return self.residual_squares - float(self.residual.square().sum()) / self.n

    @property
    def explained_variance(self) -> float | None:
        """1 - residual variance / variance; None where x does not vary."""
        return 1 - self.residual_variance / self.variance if self.variance > 0 else None


class _LargestRows:
    """Of all rows that are added, the `most` of largest norm with their residuals, float64."""

    def __init__(self, most: int, d_in: int) -> None:
        self._most = most
        self.x = torch.zeros(0, d_in, dtype=torch.float64)
        self.residual = torch.zeros(0, d_in, dtype=torch.float64)

    def add(self, x: Tensor, residual: Tensor, norms: Tensor) -> None:
        """Add rows x [n, d_in] with their residuals; norms [n]: of x."""
        chosen = norms.topk(min(self._most, len(x)), sorted=False).indices
        self.x = torch.cat([self.x, x[chosen].cpu()])
        self.residual = torch.cat([self.residual, residual[chosen].cpu()])
        if len(self.x) > self._most:
            kept = self.x.norm(dim=1).topk(self._most).indices
            self.x, self.residual = self.x[kept], self.residual[kept]


class ReconstructionSums:
    """Float64 sums over n_rows activation rows, from which every reconstruction measure follows."""

    def __init__(self, d_in: int, d_sae: int, n_rows: int) -> None:
        self._n_rows = n_rows
        none = torch.zeros(0, d_in, dtype=torch.float64)
        self._all = _Moments.of(none, none)
        self._largest = _LargestRows(n_outliers(n_rows), d_in)
        self._cosine = 0.0
        self._norm_ratio = 0.0
        self._n_norm = 0
        self._active = 0
        self._fired = torch.zeros(d_sae, dtype=torch.int64)
        self._fired_early = torch.zeros(d_sae, dtype=torch.bool)

    @property
    def n(self) -> int:
        """Rows added so far."""
        return self._all.n

    @torch.no_grad()
    def add(self, sae: SparseAutoencoder, x: Tensor) -> Tensor:
        """Add rows x [n, d_in]; gives their reconstruction x_hat [n, d_in]."""
        f = sae.encode(x)
        reconstruction = sae.decode(f)
        fired = (f > 0).sum(0).cpu()
        self._active += int(fired.sum())
        self._fired += fired
        if self.n < DEAD_TOKENS:
            self._fired_early |= (f[: DEAD_TOKENS - self.n] > 0).any(0).cpu()
        x, x_hat = x.double(), reconstruction.double()
        residual = x - x_hat
        norms = x.norm(dim=1)
        self._all += _Moments.of(x, residual)
        self._largest.add(x, residual, norms)
        self._cosine += float(cosine_similarity(x, x_hat, dim=1).sum())
        nonzero = norms > 0
        self._norm_ratio += float((x_hat.norm(dim=1)[nonzero] / norms[nonzero]).sum())
        self._n_norm += int(nonzero.sum())
        return reconstruction

    def densities(self) -> Tensor:
        """Share of the rows on which each feature is active [d_sae] float64."""
        return self._fired.double() / self.n

    def measures(self) -> dict[str, Measure]:
        """Columns of sae_evaluation that concern the reconstruction alone.

        A ratio whose denominator is zero (constant activations) is None.
        """
        if self.n == 0:
            raise SaeError("no valid position to evaluate on; give sequences with non-BOS tokens")
        assert self.n == self._n_rows
        sums = self._all
        return {
            "n_tokens": self.n,
            "l0": self._active / self.n,
            "explained_variance": sums.explained_variance,
            "fvu": sums.residual_squares / sums.variance if sums.variance > 0 else None,
            **self._outliers(),
            "reconstruction_cosine": self._cosine / self.n,
            "mse": sums.residual_squares / (self.n * len(sums.x)),
            "dead_fraction": float((self._fired == 0).double().mean()),
            "dead_fraction_tokens": self.n,
            "dead_fraction_100k": (
                float((~self._fired_early).double().mean()) if self.n >= DEAD_TOKENS else None
            ),
            "shrinkage": self._norm_ratio / self._n_norm if self._n_norm else None,
            "density_counts": density_counts(self.densities()),
        }

    def _outliers(self) -> dict[str, Measure]:
        """Explained variance without the rows of largest norm, and what they carry."""
        sums, largest = self._all, self._largest
        away = largest.x - sums.x / self.n
        typical = sums - _Moments.of(largest.x, largest.residual)
        # the difference is only as exact as the sums that it is of
        varies = typical.n > 1 and typical.variance > ROUNDING * sums.x_squares
        left_over = float(largest.residual.square().sum())
        return {
            "typical_explained_variance": typical.explained_variance if varies else None,
            "outlier_variance_share": _share(float(away.square().sum()), sums.variance),
            "outlier_loss_share": _share(left_over, sums.residual_squares),
        }


def density_counts(densities: Tensor) -> list[int]:
    """Features per bin of log10 density, [d_sae] -> DENSITY_BINS counts; 0 is in no bin."""
    log10 = densities[densities > 0].double().log10()
    bins = ((log10 - DENSITY_LOW) / DENSITY_WIDTH).floor().long().clamp(0, DENSITY_BINS - 1)
    return [int(count) for count in torch.bincount(bins, minlength=DENSITY_BINS)]


def evaluate_reconstruction(
    sae: SparseAutoencoder, rows: Tensor, *, batch_size: int = 4096
) -> dict[str, Measure]:
    """Reconstruction measures of sae_evaluation over rows [n, d_in], without any model."""
    sums = ReconstructionSums(sae.d_in, sae.d_sae, len(rows))
    for start in range(0, len(rows), batch_size):
        sums.add(sae, rows[start : start + batch_size].to(sae.W_enc.device))
    return sums.measures()


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
    split. All layers share the clean forward pass; each adds three (spliced, zero, mean) that start
    at its layer. Logits of batch_size sequences are held four times: lower batch_size where memory
    is short. Raises SaeError for an SAE whose width is not the model's, before any forward pass.
    """
    named = {layer: {"": sae} for layer, sae in saes.items()}
    frame = evaluate_variants(
        model, named, token_ids, mean_z, batch_size=batch_size, progress=progress
    )
    return frame.drop("name")


@torch.no_grad()
def evaluate_variants(
    model: LanguageModel,
    saes: Mapping[int, Mapping[str, SparseAutoencoder]],
    token_ids: Tensor,
    mean_z: Mapping[int, Tensor],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """As evaluate_layers for several SAEs of a layer: saes {layer: {name: SAE}}, and a column name.

    All share the clean pass, those of a layer its two ablations: one more SAE costs one pass from
    its layer on. Rows are in order of layer, then of the names as given.
    """
    check_token_ids(model, token_ids)
    _check(model, saes, token_ids, mean_z)
    layers = sorted(saes)
    n_valid = int(valid_positions(token_ids, model.left_out_ids).sum())
    sums = {layer: _LayerSums.of(saes[layer], n_valid) for layer in layers}
    ce_clean, n_predictions = 0.0, 0
    with tqdm(total=len(token_ids), desc="evaluate SAEs", unit="sequence", disable=None) as bar:
        for start in range(0, len(token_ids), batch_size):
            ids = token_ids[start : start + batch_size].long().to(model.device)
            valid = valid_positions(ids, model.left_out_ids)
            clean = clean_pass(model, layers, ids, valid)
            ce_clean += clean.cross_entropy(clean.logits, clean.log_normalizer)
            n_predictions += len(clean.targets)
            for layer in layers:
                sums[layer].add(model, clean, layer, saes[layer], mean_z[layer])
            bar.update(len(ids))
            if progress is not None:
                progress(start + len(ids), len(token_ids))
    ce_clean /= n_predictions
    rows = [
        {
            "layer": layer,
            "name": name,
            "n_predictions": n_predictions,
            "ce_clean": ce_clean,
            **measures,
        }
        for layer in layers
        for name, measures in sums[layer].measures(ce_clean, n_predictions).items()
    ]
    for row in rows:
        _warn_of_outliers(row)
    return pl.DataFrame(rows, schema=VARIANT_SCHEMA)


def loss_recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """1 - (spliced - clean) / (ablated - clean); None where ablation does not raise the loss."""
    if ablated <= clean:
        return None
    return 1 - (spliced - clean) / (ablated - clean)


def share_recovered(spliced: float, ablated: float) -> float | None:
    """1 - spliced / ablated, of divergences from the clean model; None where ablation has none."""
    return 1 - spliced / ablated if ablated > 0 else None


# ---- private -------------------------------------------------------------------------------------


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _warn_of_outliers(row: Mapping[str, Any]) -> None:
    shares = {name: row[f"outlier_{name}_share"] for name in ("variance", "loss")}
    if max(value or 0.0 for value in shares.values()) <= LARGE_SHARE:
        return
    said = " and ".join(
        f"{100 * (value or 0.0):.0f}% of the {name}" for name, value in shares.items()
    )
    logger.warning(
        "SAE of layer %d: the %.1f%% of tokens with the largest norm carry %s; without them it "
        "explains %s of the variance, with them %s",
        row["layer"],
        100 * OUTLIER_SHARE,
        said,
        row["typical_explained_variance"],
        row["explained_variance"],
    )


@dataclass
class _LayerSums:
    """Running sums of one layer: its two ablations, and each of its SAEs by name."""

    reconstruction: dict[str, ReconstructionSums]
    spliced: dict[str, SplicedLosses]
    zero: SplicedLosses = field(default_factory=SplicedLosses)
    mean: SplicedLosses = field(default_factory=SplicedLosses)

    @classmethod
    def of(cls, saes: Mapping[str, SparseAutoencoder], n_rows: int) -> "_LayerSums":
        return cls(
            {name: ReconstructionSums(sae.d_in, sae.d_sae, n_rows) for name, sae in saes.items()},
            {name: SplicedLosses() for name in saes},
        )

    def add(
        self,
        model: LanguageModel,
        clean: CleanPass,
        layer: int,
        saes: Mapping[str, SparseAutoencoder],
        mean_z: Tensor,
    ) -> None:
        x = clean.z[layer]
        zeros, means = torch.zeros_like(x), mean_z.to(x).expand_as(x)
        self.zero.add(clean, spliced_logits(model, clean, layer, zeros))
        self.mean.add(clean, spliced_logits(model, clean, layer, means))
        for name, sae in saes.items():
            x_hat = self.reconstruction[name].add(sae, x)
            self.spliced[name].add(clean, spliced_logits(model, clean, layer, x_hat))

    def measures(self, ce_clean: float, n: int) -> dict[str, dict[str, Measure]]:
        """{name: columns of sae_evaluation that depend on the layer or the SAE}.

        ce_clean: mean over n predictions.
        """
        zero, mean = self.zero.cross_entropy / n, self.mean.cross_entropy / n
        measures: dict[str, dict[str, Measure]] = {}
        for name, losses in self.spliced.items():
            sums = self.reconstruction[name]
            spliced = losses.cross_entropy / n
            measures[name] = {
                **sums.measures(),
                "ce_spliced": spliced,
                "ce_zero": zero,
                "ce_mean": mean,
                "ce_recovered": loss_recovered(ce_clean, spliced, zero),
                "ce_recovered_mean": loss_recovered(ce_clean, spliced, mean),
                "kl": losses.kl / sums.n,
                "kl_zero": self.zero.kl / sums.n,
                "kl_mean": self.mean.kl / sums.n,
                "kl_recovered": share_recovered(losses.kl, self.zero.kl),
                "kl_recovered_mean": share_recovered(losses.kl, self.mean.kl),
            }
        return measures


def _check(
    model: LanguageModel,
    saes: Mapping[int, Mapping[str, SparseAutoencoder]],
    token_ids: Tensor,
    mean_z: Mapping[int, Tensor],
) -> None:
    if not valid_positions(token_ids, model.left_out_ids)[:, :-1].any():
        raise SaeError(
            f"no token besides position 0 and BOS has a next one in sequences of "
            f"{token_ids.shape[1]} positions; give longer sequences"
        )
    for layer, named in saes.items():
        model.output_projection(layer)
        for name, sae in named.items():
            if sae.d_in != model.config.d_z:
                raise SaeError(
                    f"SAE {name!r} of layer {layer} has d_in {sae.d_in}, but z of {model.source} "
                    f"has width {model.config.d_z}; load an SAE trained on this model"
                )
        if layer not in mean_z or mean_z[layer].shape != (model.config.d_z,):
            shape = tuple(mean_z[layer].shape) if layer in mean_z else None
            raise SaeError(
                f"mean_z of layer {layer} has shape {shape}, expected ({model.config.d_z},); "
                "materialize activation_statistics"
            )
